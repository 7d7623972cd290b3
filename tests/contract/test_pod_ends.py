"""How pods end that cannot serve: the exit code, one sentence that says what to do, and nothing of it twice."""

import json
import os
import shutil
import signal
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.engine_fixture import Engine, until
from tests.pod_fixture import Pod, Start, pods, settings_file
from tests.small_bundle import logistic, make_bundle

from sunup.bundle.manifest import StreamSpec
from sunup.types import Field

__all__ = ["pods"]

ROWS = np.array([[0.0, 1.0, 2.0], [1.0, -1.0, 3.0]])
SECRET = "redis://user:hunter2@redis:6379"
PLAN = json.dumps({"service": "s", "project": "p", "entities": [], "views": [], "fields": []}).encode()


def made(folder: Path, **more: Any) -> Path:
    """A bundle that may be spoilt."""
    return folder / make_bundle(folder, logistic(3), ROWS, **more)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return made(tmp_path / "bundles")


def ended(pod: Pod, code: int) -> dict[str, str]:
    """Its last words: the last line, and the only one of its kind."""
    assert pod.end() == code, pod.said
    words = pod.said[-1]
    assert list(words) == ["code", "message"]
    assert not any(line.get("message") == "ready" for line in pod.said)
    assert "Traceback" not in words["message"]
    return words


CONFIGURED = {
    "role": ({"SUNUP_ROLE": "batch"}, "SUNUP_ROLE is 'batch'"),
    "port": ({"PORT": "eighty"}, "PORT is 'eighty'"),
    "large port": ({"METRICS_PORT": "70000"}, "METRICS_PORT is '70000'"),
    "one port": ({"PORT": "9000", "METRICS_PORT": "9000"}, "PORT and METRICS_PORT are both 9000"),
    "digest": ({"SUNUP_DIGEST": "sha256:12"}, "64 hexadecimal digits"),
    "revision": ({"SUNUP_REVISION": "v3"}, "SUNUP_REVISION is 'v3'"),
    "no settings": ({"SUNUP_SETTINGS": "/nowhere/settings.json"}, "/nowhere/settings.json, which cannot be read"),
    "no keys": ({"SUNUP_API_KEYS": "/nowhere/keys"}, "The key file /nowhere/keys cannot be read"),
    "state": ({"SUNUP_STATE": "/proc/sunup"}, "SUNUP_STATE /proc/sunup cannot be written to"),
    "no stream": ({"SUNUP_ROLE": "stream"}, "score has no stream"),
}


@pytest.mark.parametrize("case", CONFIGURED)
def test_what_is_configured_wrongly_ends_with_2(bundle: Path, pods: Start, case: str) -> None:
    variables, told = CONFIGURED[case]
    words = ended(pods(bundle, **variables), 2)
    assert words["code"] == "usage"
    assert told in words["message"]


@pytest.mark.parametrize("text", ["[]", "{", '{"features_url": 5}', json.dumps([SECRET])])
def test_settings_that_are_none_are_not_repeated(bundle: Path, pods: Start, tmp_path: Path, text: str) -> None:
    path = tmp_path / "settings.json"
    path.write_text(text)
    pod = pods(bundle, SUNUP_SETTINGS=str(path))
    assert "no JSON object of texts" in ended(pod, 2)["message"]
    assert "hunter2" not in pod.log.read_text()


@pytest.mark.parametrize("settings", [{}, {"stream_broker": "embedded"}])
def test_a_stream_needs_a_kafka_broker(pods: Start, tmp_path: Path, settings: dict[str, str]) -> None:
    stream = StreamSpec("${KAFKA}", "in", "out", "dead", "group")
    bundle = made(tmp_path / "bundles", stream=stream)
    pod = pods(bundle, SUNUP_ROLE="stream", SUNUP_SETTINGS=settings_file(tmp_path, settings))
    assert "stream_broker" in ended(pod, 2)["message"]


def test_features_need_a_store(pods: Start, tmp_path: Path) -> None:
    bundle = made(tmp_path / "bundles", features=PLAN, request=(Field("f0", "float64"),))
    assert "features_url" in ended(pods(bundle), 2)["message"]


def test_a_port_that_is_taken(bundle: Path, pods: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = ended(pods(bundle, PORT=str(taken.getsockname()[1])), 2)
    assert "cannot be listened on: Address already in use" in words["message"]


def test_a_bundle_that_is_not_there_ends_with_3(pods: Start, tmp_path: Path) -> None:
    words = ended(pods(tmp_path / "nothing"), 3)
    assert words["code"] == "bundle_damaged"
    assert "No such file or directory" in words["message"]


def test_another_bundle_ends_with_3(bundle: Path, pods: Start) -> None:
    words = ended(pods(bundle, SUNUP_DIGEST="0" * 64), 3)
    assert bundle.name in words["message"]
    assert "0" * 64 in words["message"]


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("mounted", [True, False], ids=["mounted", "by digest"])
@pytest.mark.parametrize("name", ["model.onnx", "warmup.npz", "parity.json"])
def test_a_damaged_file_ends_with_3_and_is_named(bundle: Path, pods: Start, name: str, mounted: bool) -> None:
    digest = bundle.name
    if mounted:  # under a name that says nothing, as in a container
        bundle = bundle.rename(bundle.with_name("bundle"))
    spoil(bundle / name)
    words = ended(pods(bundle, SUNUP_DIGEST=digest), 3)
    assert f"{bundle / name} does not match its digest" in words["message"]


def test_a_file_too_many_or_too_few_ends_with_3(bundle: Path, pods: Start) -> None:
    (bundle / "more.txt").write_text("x")
    assert "does not belong to the bundle" in ended(pods(bundle), 3)["message"]
    (bundle / "more.txt").unlink()
    (bundle / "model.onnx").unlink()
    assert "is missing" in ended(pods(bundle), 3)["message"]


def test_another_format_ends_with_3(bundle: Path, pods: Start) -> None:
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    (bundle / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    assert "format 99" in ended(pods(bundle.rename(bundle.with_name("bundle"))), 3)["message"]


def test_a_proof_that_fails_ends_with_4(pods: Start, tmp_path: Path) -> None:
    engine = Engine(tmp_path / "p")
    bundle = engine.project.bundles / engine.bundle("double", 2.0, claim=2.5)
    words = ended(pods(bundle), 4)
    assert words["code"] == "proof_failed"
    assert "self-proof" in words["message"] or "differ" in words["message"]


def test_code_of_its_own_that_cannot_be_imported_ends_with_3(pods: Start, tmp_path: Path) -> None:
    engine = Engine(tmp_path / "p")
    bundle = engine.project.bundles / engine.bundle("double", 2.0, handler="import nothing_of_this_name\n")
    assert "nothing_of_this_name" in ended(pods(bundle), 3)["message"]


def test_a_bundle_that_cannot_be_written_to_is_served(bundle: Path, pods: Start, tmp_path: Path) -> None:
    place = tmp_path / "mounted"
    shutil.copytree(bundle, place / "bundle")
    before = {path.name: path.stat().st_mtime_ns for path in (place / "bundle").iterdir()}
    for path in (*place.rglob("*"), place):
        path.chmod(0o555 if path.is_dir() else 0o444)
    pod = pods(place / "bundle", SUNUP_DIGEST=bundle.name).wait_ready()
    assert pod.ask("POST", "/functions/score", b'{"f0": 1, "f1": 2, "f2": 3}').status == 200
    assert pod.stop() == 0
    assert {path.name: path.stat().st_mtime_ns for path in (place / "bundle").iterdir()} == before
    assert [path.name for path in place.iterdir()] == ["bundle"]
    for path in (*place.rglob("*"), place):
        path.chmod(0o755)


def test_told_to_end_while_it_starts_it_ends_with_0(bundle: Path, pods: Start) -> None:
    pod = pods(bundle)
    # It has one before anything is imported; before that a container's first process does not get the signal.
    until(lambda: caught(pod.process.pid) & 1 << (signal.SIGTERM - 1) != 0, "a handler of SIGTERM")
    assert pod.stop() == 0


def caught(pid: int) -> int:
    """The signals a process has handlers for, a bit each (proc(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("SigCgt:")).split()[1], 16)


def test_a_pod_that_is_killed_starts_again_and_counts_on(bundle: Path, pods: Start) -> None:
    pod = pods(bundle).wait_ready()
    call = ("POST", "/functions/score", b'{"f0": 1, "f1": 2, "f2": 3}')
    answer = pod.ask(*call)
    os.kill(pod.process.pid, signal.SIGKILL)
    assert pod.end() == -signal.SIGKILL
    pod.start()
    pod.wait_ready()
    assert pod.ask(*call).json["predictions"] == answer.json["predictions"]
    assert b'sunup_requests_total{code="200",function="score",revision="1"} 2.0' in pod.probe("/metrics").body
