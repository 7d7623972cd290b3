"""The store of bundles: whole or not at all, and damage is found."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tests.small_bundle import logistic, make_bundle

from sunup.bundle.intake import take_all
from sunup.bundle.pack import inspect
from sunup.bundle.store import MANIFEST, Store, check, read_manifest, verify
from sunup.errors import BundleDamaged, UsageError


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle that is in no store yet."""
    return tmp_path / make_bundle(tmp_path, logistic(3), np.zeros((2, 3)))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "project" / "bundles")


def test_a_taken_bundle_is_there_under_its_digest(store: Store, bundle: Path) -> None:
    digest = store.take(bundle)
    assert digest == bundle.name == hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest()
    path = store.open(digest)
    assert sorted(file.name for file in path.iterdir()) == sorted(file.name for file in bundle.iterdir())
    assert store.list() == [digest]
    assert store.take(bundle) == digest
    assert store.list() == [digest]
    assert inspect(path)["files"]["model.onnx"] == (bundle / "model.onnx").stat().st_size


def test_many_are_taken_together_and_the_bad_ones_are_left_out(store: Store, bundle: Path, tmp_path: Path) -> None:
    others = [tmp_path / make_bundle(tmp_path, logistic(n), np.zeros((2, n)), function=f"f{n}") for n in (1, 2)]
    cut, linked = others
    (cut / "model.onnx").write_bytes(b"cut")
    root = tmp_path / "project" / "bundles"
    bad, good, absent, same = take_all(root, [cut, bundle, tmp_path / "none", bundle])
    assert isinstance(bad, BundleDamaged)
    assert "model.onnx does not match its digest" in bad.message
    assert isinstance(absent, BundleDamaged)
    assert good == same == bundle.name
    assert store.list() == [bundle.name]
    before = (store.open(bundle.name) / "model.onnx").stat().st_ino
    assert take_all(root, [bundle, linked]) == [bundle.name, linked.name]
    assert (store.open(bundle.name) / "model.onnx").stat().st_ino == before
    (root / bundle.name / "model.onnx").write_bytes(b"damaged")
    assert take_all(root, [bundle]) == [bundle.name]
    assert verify(root / bundle.name).function == "score"
    assert list((root / ".staging").iterdir()) == []


def test_a_removed_bundle_is_gone(store: Store, bundle: Path) -> None:
    digest = store.take(bundle)
    store.remember("key", digest)
    assert store.recall("key") == digest
    store.remove(digest)
    store.remove(digest)
    assert store.list() == []
    assert store.recall("key") is None
    with pytest.raises(UsageError, match="platform deploy"):
        store.open(digest)


def test_an_empty_store_has_nothing(store: Store) -> None:
    assert store.list() == []
    assert store.recall("key") is None
    with pytest.raises(UsageError, match="There is no bundle"):
        store.open("../elsewhere")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["model.onnx", "warmup.npz", "parity.json", MANIFEST])
def test_a_changed_byte_is_found_and_its_file_named(store: Store, bundle: Path, name: str) -> None:
    path = store.open(store.take(bundle))
    flip(path / name)
    for look in (check, verify):
        with pytest.raises(BundleDamaged, match=name):
            look(path)


def test_a_missing_an_extra_and_a_linked_file_are_found(store: Store, bundle: Path) -> None:
    path = store.open(store.take(bundle))
    (path / "extra").write_text("")
    with pytest.raises(BundleDamaged, match="extra does not belong"):
        check(path)
    (path / "extra").unlink()
    (path / "model.onnx").rename(path.parent / "aside")
    with pytest.raises(BundleDamaged, match=r"model\.onnx is missing"):
        check(path)
    (path / "model.onnx").symlink_to(path.parent / "aside")
    with pytest.raises(BundleDamaged, match=r"model\.onnx"):
        check(path)


def test_the_quick_check_reads_only_the_manifest(store: Store, bundle: Path) -> None:
    """What has the same size, time and inode is taken as unchanged: that is what makes a cold start cheap."""
    path = store.open(store.take(bundle))
    model = path / "model.onnx"
    stat = model.stat()
    flip(model)
    os.utime(model, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    check(path)
    with pytest.raises(BundleDamaged):
        verify(path)


def test_a_touched_file_is_read_in_full_and_then_known(store: Store, bundle: Path) -> None:
    path = store.open(store.take(bundle))
    stamps = path.parent / ".checked" / path.name
    before = stamps.read_bytes()
    os.utime(path / "model.onnx", ns=(1, 1))
    check(path)
    assert stamps.read_bytes() != before


def test_a_bundle_outside_a_store_is_checked_in_full(bundle: Path, tmp_path: Path) -> None:
    other = bundle.rename(tmp_path / "prepared")
    assert check(other).function == "score"
    flip(other / "model.onnx")
    with pytest.raises(BundleDamaged):
        check(other)


def test_damage_in_the_store_is_mended_by_adding_again(store: Store, bundle: Path) -> None:
    digest = store.take(bundle)
    flip(store.open(digest) / "model.onnx")
    store.remember("key", digest)
    assert store.recall("key") is None
    assert store.take(bundle) == digest
    verify(store.open(digest))


def test_a_damaged_bundle_is_not_taken(store: Store, bundle: Path) -> None:
    flip(bundle / "model.onnx")
    with pytest.raises(BundleDamaged, match=r"model\.onnx"):
        store.take(bundle)
    assert store.list() == []
    assert not list((store._root / ".staging").iterdir())


def test_another_format_is_refused_with_the_command_that_rebuilds(bundle: Path) -> None:
    manifest = json.loads((bundle / MANIFEST).read_bytes())
    (bundle / MANIFEST).write_bytes(msgspec.json.encode({"format": 99, "function": "fraud", "future": manifest}))
    with pytest.raises(UsageError, match=r"format 99.*platform deploy fraud"):
        read_manifest(bundle)
    (bundle / MANIFEST).write_bytes(b"{")
    with pytest.raises(BundleDamaged, match="damaged"):
        read_manifest(bundle)


def test_what_a_killed_process_staged_is_swept_and_what_a_living_one_stages_is_not(store: Store) -> None:
    with store.stage() as mine:
        left = mine.parent / "left"
        left.mkdir()
        (left / "model.onnx").write_bytes(b"half")
        with Store(store._root).stage() as other:
            assert not left.exists()
            assert mine.exists()
        assert not other.exists()
    assert not mine.exists()


ADDING = """
import sys
from pathlib import Path
from sunup.bundle.store import Store
store = Store(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    digest = store.take(Path(sys.argv[2]))
    store.remember("key", digest)
    print("added", flush=True)
    store.remove(digest)
"""


def test_a_kill_at_any_moment_leaves_whole_bundles_only(store: Store, bundle: Path) -> None:
    for kill in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", ADDING, str(store._root), str(bundle)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        with process.stdout as output:
            for _ in range(2 + kill % 3):
                output.readline()
            # Where in its loop the process is now depends on the machine, so every kill lands elsewhere.
            process.send_signal(signal.SIGKILL)
            process.wait()
        for digest in store.list():
            verify(store._root / digest)
    assert store.take(bundle) == bundle.name
    verify(store.open(bundle.name))
    with store.stage() as staged:
        assert [folder.name for folder in staged.parent.iterdir()] == [staged.name]


def test_two_processes_may_add_the_same_bundle(store: Store, bundle: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ADDING.replace("while True:", "for _ in range(30):"), str(store._root), str(bundle)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:
        errors = process.communicate(timeout=60)[1]
        assert process.returncode == 0, errors
