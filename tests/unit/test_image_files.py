"""Layers, manifests and layouts: what is in them, and that the same inputs give the same bytes."""

import gzip
import hashlib
import json
import os
import tarfile
from pathlib import Path

import pytest
from tests.small_bundle import logistic, make_bundle
from tests.unit.working import ROWS

from sunup.engine.kubernetes.image.layer import Entry, folder, read_layer, tree, write_layer
from sunup.engine.kubernetes.image.layout import write_layout
from sunup.engine.kubernetes.image.model import Image, architecture, sha256
from sunup.engine.kubernetes.image.push import bundle_image, flat_image, flat_tag
from sunup.engine.kubernetes.image.runtime.build import lay_out, sources
from sunup.engine.kubernetes.image.runtime.cache import Cache, key_of
from sunup.errors import BundleDamaged, ImageError, UsageError
from sunup.limits import IMAGE_CACHE_LAYERS_MAX


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("bundles")
    return made / make_bundle(made, logistic(3), ROWS)


def members(path: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(path) as archive:
        return {member.name: member for member in archive}


def test_a_layer_says_nothing_of_who_wrote_it_and_when(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "b").mkdir(parents=True)
    (source / "b" / "script").write_text("run")
    (source / "b" / "script").chmod(0o700)
    (source / "a").write_text("data")
    (source / "a").chmod(0o600)
    (source / "link").symlink_to("b/script")
    os.link(source / "a", source / "same")
    first = write_layer(tree(source, "opt"), tmp_path / "first")
    os.utime(source / "a", (1, 1))
    again = write_layer(reversed(list(tree(source, "opt"))), tmp_path / "again")

    assert first.blob.descriptor == again.blob.descriptor
    found = members(tmp_path / "first")
    assert list(found) == ["opt", "opt/a", "opt/b", "opt/b/script", "opt/link", "opt/same"]
    assert {(member.uid, member.gid, member.mtime, member.uname) for member in found.values()} == {(0, 0, 0, "")}
    assert [oct(found[name].mode) for name in ("opt", "opt/a", "opt/b/script")] == ["0o755", "0o644", "0o755"]
    assert found["opt/link"].linkname == "b/script"
    assert found["opt/same"].isreg()
    head = (tmp_path / "first").read_bytes()[:10]
    assert head[3] == 0  # no name in it
    assert head[4:8] == bytes(4)  # no time


def test_a_layers_digests_are_of_its_bytes(tmp_path: Path) -> None:
    layer = write_layer([Entry("x" * 150 + "/ä", 0o644, data=b"long name"), folder("tmp", anyone=True)], tmp_path / "l")
    data = (tmp_path / "l").read_bytes()
    assert layer.blob.descriptor.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert layer.blob.descriptor.size == len(data)
    assert layer.diff_id == f"sha256:{hashlib.sha256(gzip.decompress(data)).hexdigest()}"
    assert read_layer(tmp_path / "l") == layer
    found = members(tmp_path / "l")
    assert list(found) == ["tmp", "x" * 150, "x" * 150 + "/ä"]
    assert found["tmp"].mode == 0o1777


def test_what_is_named_twice_is_what_was_named_last(tmp_path: Path) -> None:
    write_layer([Entry("a", 0o644, data=b"old"), Entry("a", link="b")], tmp_path / "l")
    assert members(tmp_path / "l")["a"].linkname == "b"


def test_a_manifest_names_layers_and_config(tmp_path: Path) -> None:
    layer = write_layer([Entry("a", 0o644, data=b"1")], tmp_path / "l")
    image = Image((layer,), {"User": "65532"}, {"z": "1", "a": "2"})
    manifest = json.loads(image.manifest.data)
    assert manifest == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": sha256(image.config.data),
            "size": len(image.config.data),
        },
        "layers": [
            {
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": layer.blob.descriptor.digest,
                "size": layer.blob.descriptor.size,
            }
        ],
        "annotations": {"a": "2", "z": "1"},
    }
    assert json.loads(image.config.data) == {
        "architecture": architecture(),
        "os": "linux",
        "config": {"User": "65532"},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
    }


@pytest.mark.parametrize(("machine", "name"), [("x86_64", "amd64"), ("aarch64", "arm64")])
def test_machines_are_called_what_go_calls_them(machine: str, name: str) -> None:
    assert architecture(machine) == name


def test_a_machine_without_images() -> None:
    with pytest.raises(ImageError, match="this machine is riscv64"):
        architecture("riscv64")


def test_the_same_bundle_gives_the_same_images(bundle: Path, tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        scratch = tmp_path / name
        scratch.mkdir()
        runtime = Image((write_layer([Entry("r", 0o644, data=b"r")], scratch / "r"),), {"Entrypoint": ["/r"]})
        mounted = bundle_image(bundle, bundle.name, scratch)
        flat = flat_image(bundle, bundle.name, runtime, scratch)
        for image in (mounted, flat):
            write_layout(image, scratch / f"{len(image.layers)}.tar", name="fraud:1")
        made.append((mounted.digest, flat.digest, flat_tag(bundle.name, runtime)))
    assert made[0] == made[1]
    for file in ("1.tar", "2.tar"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_bundle_with_another_content_is_refused(bundle: Path, tmp_path: Path) -> None:
    copied = tmp_path / "bundle"
    lay_out(bundle_image(bundle, bundle.name, tmp_path).layers, copied)
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == {
        path.name: path.read_bytes() for path in bundle.iterdir()
    }
    (copied / "model.onnx").write_bytes(b"another")
    with pytest.raises(BundleDamaged, match=r"model\.onnx does not match its digest"):
        bundle_image(copied, bundle.name, tmp_path)
    with pytest.raises(UsageError, match="not the digest of a bundle"):
        bundle_image(bundle, "latest", tmp_path)


@pytest.mark.parametrize("name", ["image.tar", "image"])
def test_a_layout_holds_what_the_index_names(bundle: Path, tmp_path: Path, name: str) -> None:
    image = bundle_image(bundle, bundle.name, tmp_path)
    write_layout(image, tmp_path / "deep" / name, name="fraud:bundle-1")
    root = tmp_path / "deep" / name
    if root.is_file():
        with tarfile.open(root) as archive:
            archive.extractall(tmp_path / "unpacked")
        root = tmp_path / "unpacked"
    assert json.loads((root / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    (named,) = json.loads((root / "index.json").read_text())["manifests"]
    assert named["digest"] == image.digest
    assert named["annotations"]["org.opencontainers.image.ref.name"] == "bundle-1"
    for path in (root / "blobs/sha256").iterdir():
        assert path.name == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(list((root / "blobs/sha256").iterdir())) == 3
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == [name]


def test_a_layout_is_not_written_over_what_is_there(bundle: Path, tmp_path: Path) -> None:
    image = bundle_image(bundle, bundle.name, tmp_path)
    with pytest.raises(UsageError, match="already there"):
        write_layout(image, tmp_path, name="fraud:1")
    (tmp_path / "file").write_text("")
    with pytest.raises(ImageError, match="cannot be written"):
        write_layout(image, tmp_path / "file" / "image", name="fraud:1")


class TestCache:
    @staticmethod
    def entries(text: str) -> list[Entry]:
        return [Entry("a", 0o644, data=text.encode())]

    def test_a_layer_is_made_once(self, tmp_path: Path) -> None:
        cache, made = Cache(tmp_path / "cache"), []

        def make(scratch: Path) -> list[Entry]:
            made.append(scratch)
            assert list(scratch.iterdir()) == []
            return self.entries("x")

        first = cache.layer("k", make)
        assert cache.layer("k", make) == first
        assert len(made) == 1
        assert [path.name for path in (tmp_path / "cache").iterdir()] == ["k"]

    def test_one_that_is_not_whole_is_made_again(self, tmp_path: Path) -> None:
        cache = Cache(tmp_path)
        first = cache.layer("k", lambda _: self.entries("x"))
        (tmp_path / "k" / "layer.tar.gz").write_bytes(b"torn")
        assert cache.layer("k", lambda _: self.entries("x")) == first
        (tmp_path / "k" / "facts.json").unlink()
        assert cache.layer("k", lambda _: self.entries("x")) == first

    def test_what_fails_leaves_nothing(self, tmp_path: Path) -> None:
        def fails(_: Path) -> list[Entry]:
            raise ImageError("no")

        with pytest.raises(ImageError, match="no"):
            Cache(tmp_path).layer("k", fails)
        assert list(tmp_path.iterdir()) == []

    def test_those_used_longest_ago_go(self, tmp_path: Path) -> None:
        cache = Cache(tmp_path)
        for number in range(IMAGE_CACHE_LAYERS_MAX):
            cache.layer(f"k{number}", lambda _: self.entries("x"))
            os.utime(tmp_path / f"k{number}", (number, number))
        cache.layer("k0", lambda _: self.entries("never made"))
        cache.layer("new", lambda _: self.entries("x"))
        kept = {path.name for path in tmp_path.iterdir()}
        assert len(kept) == IMAGE_CACHE_LAYERS_MAX
        assert kept & {"k0", "k1", "new"} == {"k0", "new"}

    def test_keys_tell_their_parts_apart(self) -> None:
        assert key_of("ab", "c") != key_of("a", "bc")

    def test_a_layer_goes_where_the_user_keeps_caches(self, tmp_path: Path) -> None:
        assert repr(Cache.usual({"XDG_CACHE_HOME": str(tmp_path)})) == f"Cache({str(tmp_path / 'sunup' / 'image')!r})"


def test_layers_are_laid_one_over_the_other(tmp_path: Path) -> None:
    lower = write_layer(
        [Entry("a", 0o644, data=b"1"), Entry("l", link="a"), folder("tmp", anyone=True)], tmp_path / "1"
    )
    upper = write_layer([Entry("a", 0o755, data=b"2")], tmp_path / "2")
    lay_out([lower, upper], tmp_path / "root")
    assert (tmp_path / "root/l").read_text() == "2"
    assert (tmp_path / "root/a").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "root/tmp").stat().st_mode & 0o7777 == 0o1777


def test_without_sunups_source_folder_there_is_no_runtime_image_to_be_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no image/\. Run it there, or name one .* --runtime-image"):
        sources(tmp_path / "site-packages" / "sunup")


def test_a_layer_whose_maker_was_killed_goes_after_a_day(tmp_path: Path) -> None:
    for name in (".making-old", ".making-new"):
        (tmp_path / name).mkdir()
    os.utime(tmp_path / ".making-old", (0, 0))
    Cache(tmp_path).layer("k", lambda _: [Entry("a", 0o644, data=b"x")])
    assert sorted(path.name for path in tmp_path.iterdir()) == [".making-new", "k"]
