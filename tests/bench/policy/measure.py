"""What a cold start and an idle worker cost on this machine, measured on the engine in its real processes."""

import json
import os
import tempfile
import time
from pathlib import Path

from tests.bench import harness
from tests.bench.models import rows, tree_model
from tests.engine_fixture import PATIENCE_SECONDS, Engine
from tests.small_bundle import make_bundle

from sunup.bundle.manifest import Scale
from sunup.link.process import pss_bytes


def measure(starts: int) -> tuple[float, float, list[float]]:
    """CPU seconds of one life of a worker (birth, one call, end; of supervisor, door, nursery and the worker itself),
    its proportional set size in bytes, and the seconds each of the calls took that woke one."""
    with tempfile.TemporaryDirectory() as name, harness.local_engine(Path(name) / "p") as engine:
        scale = Scale(max=1, idle_s=0.3)
        digest = make_bundle(engine.project.bundles, tree_model(), rows(8, seed=3), dtype="float32", scale=scale)
        engine.deploy("score", digest, settings={}, on_event=lambda _: None)
        body = json.dumps({f"f{i}": v for i, v in enumerate(rows(1)[0].tolist())}).encode()
        _one(engine, body)
        (worker,) = engine.status("score")["functions"][0]["workers"]
        held = pss_bytes(worker["pid"])
        _wait_for_zero(engine)
        pids = [one["pid"] for one in engine.status(None)["engine"]["processes"]]
        before = sum(map(_cpu, pids))
        took = [_one(engine, body) for _ in range(starts)]
        _wait_for_zero(engine)
        return (sum(map(_cpu, pids)) - before) / starts, held, took


def _one(engine: Engine, body: bytes) -> float:
    _wait_for_zero(engine)
    begun = time.perf_counter()
    answer = engine.ask("POST", "/functions/score", body)
    if answer.status != 200:
        raise RuntimeError(f"a cold start was not answered: {answer!r}")
    return time.perf_counter() - begun


def _wait_for_zero(engine: Engine) -> None:
    """Until only the front is left, as the sockets of workers show: asking the engine costs CPU that is counted."""
    end = time.monotonic() + PATIENCE_SECONDS
    while len(list(engine.project.run.glob("worker-*.sock"))) > 1:
        if time.monotonic() > end:
            raise RuntimeError("the function did not go to zero")
        time.sleep(0.02)
    time.sleep(0.1)  # the nursery has its last child's CPU time once it has reaped it


def _cpu(pid: int) -> float:
    """CPU seconds of a process and of its children that ended (proc(5), stat: utime, stime, cutime, cstime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
