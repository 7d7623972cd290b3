"""Pods that start: what they say meanwhile, whose they may be, where their features come from, how they are stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.engine_fixture import Engine, until
from tests.pod_fixture import ROOT, Pod, Start, pods, settings_file
from tests.redis_fixture import RedisServer
from tests.service.test_store_outage import DEFAULT, PLAN, fill, score
from tests.small_bundle import logistic, make_bundle

from sunup.lookup.plan import dump
from sunup.settings import FEATURES_URL
from sunup.types import Field

__all__ = ["pods"]

NOBODY = 65532  # the user of the images
INSTALLED = os.pathsep.join([str(ROOT / "platform"), sysconfig.get_path("purelib")])
GATED = """
import os
import time

while not os.path.exists({gate!r}):
    time.sleep(0.01)


def preprocess(rows):
    return {{"x": rows["x"]}}
"""


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """What a bundle waits for while it is loaded."""
    return tmp_path / "gate"


@pytest.fixture
def gated(tmp_path: Path, gate: Path) -> Path:
    engine = Engine(tmp_path / "p")
    return engine.project.bundles / engine.bundle("double", 2.0, handler=GATED.format(gate=str(gate)))


def is_loading(pod: Pod) -> bool:
    try:
        return bool(pod.probe("/ready").json == {"ready": False, "reason": "loading"})
    except OSError:
        return False


def test_a_pod_that_loads_is_alive_and_not_ready(gated: Path, gate: Path, pods: Start) -> None:
    pod = pods(gated)
    until(lambda: is_loading(pod), "it to load")
    assert pod.probe("/live").status == 200
    assert pod.probe("/metrics").status == 200
    with pytest.raises(ConnectionRefusedError):
        pod.ask("GET", "/v2/health/ready")
    gate.touch()
    pod.wait_ready()
    assert pod.ask("POST", "/functions/double", b'{"x": 2}').y == 4.0


def test_a_pod_that_loads_ends_at_once(gated: Path, pods: Start) -> None:
    pod = pods(gated)
    until(lambda: is_loading(pod), "it to load")
    assert pod.stop() == 0


def test_at_a_terminal_it_is_interrupted(gated: Path, gate: Path, pods: Start) -> None:
    gate.touch()
    pod = pods(gated).wait_ready()
    pod.tell(signal.SIGINT)
    assert pod.end() == 0


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that other users can reach."""
    folder = Path(tempfile.mkdtemp(prefix="sunup-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def reachable() -> str:
    """An interpreter of this version that other users may run, with what this one has installed; else a skip."""
    if os.geteuid() != 0:
        pytest.skip("only root starts processes of other users")
    found = shutil.which(f"python{sys.version_info[0]}.{sys.version_info[1]}", path="/usr/bin:/usr/local/bin")
    code = "import onnxruntime, uvloop, sunup.serve.pod"
    tried = [found or sys.executable, "-c", code]
    of = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    if subprocess.run(tried, env={"PYTHONPATH": INSTALLED}, cwd="/", capture_output=True, check=False, **of).returncode:  # type: ignore[call-overload]  # as a mapping
        pytest.skip("what is installed here is closed to other users")
    return tried[0]


def test_it_may_be_any_user_without_a_name_or_a_home(place: Path) -> None:
    python = reachable()
    rows = np.array([[0.0, 1.0, 2.0], [1.0, -1.0, 3.0]])
    bundle = place / make_bundle(place, logistic(3), rows)
    (place / "state").mkdir()
    os.chown(place / "state", NOBODY, NOBODY)
    pod = Pod(place, {"SUNUP_BUNDLE": str(bundle), "PYTHONPATH": INSTALLED}, NOBODY, python)
    try:
        pod.wait_ready()
        assert pod.ask("POST", "/functions/score", b'{"f0": 1, "f1": 2, "f2": 3}').status == 200
        lines = Path(f"/proc/{pod.process.pid}/status").read_text().splitlines()
        said = {line.split(":")[0]: line.split()[1:] for line in lines}
        assert (said["Uid"], said["CapEff"], said["NoNewPrivs"]) == ([str(NOBODY)] * 4, ["0" * 16], ["1"])
        assert pod.stop() == 0
    finally:
        if pod.process.poll() is None:
            pod.process.kill()
            pod.process.wait()


def test_features_come_from_the_store_of_the_settings(tmp_path: Path, pods: Start, redis_server: RedisServer) -> None:
    fill(redis_server)
    rows = np.array([[1.0], [2.0]])
    request = (Field("user_id", "int64"),)
    bundle = tmp_path / make_bundle(tmp_path, logistic(1), rows, request=request, features=dump(PLAN))
    settings = {FEATURES_URL: redis_server.url}
    pod = pods(bundle, SUNUP_SETTINGS=settings_file(tmp_path, settings)).wait_ready()

    def asked(user: int) -> tuple[float, list[str]]:
        (said,) = pod.ask("POST", "/functions/score", json.dumps({"user_id": user}).encode()).json["predictions"]
        return said["score"], said.get("defaulted", [])

    until(lambda: not asked(1)[1], "the store to be connected")
    assert asked(12)[0] == pytest.approx(score(1.2))
    redis_server.stop()
    until(lambda: asked(12)[1] == ["f0"], "the outage to be felt")
    assert asked(12)[0] == pytest.approx(score(DEFAULT))
    assert pod.probe("/ready").status == 200, "calls are answered"
    assert pod.stop() == 0
