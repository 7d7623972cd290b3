"""density: memory of an idle warm function, and what the idle engine costs of a core.

    python -m tests.bench density [--warm 200]

LightGBM of 200 trees, 30 features. Warm: proportional set size (PSS) of all of Sunup's processes, divided by the
number of functions. Floors: the same number of children of a process that has imported the same, each with the same
session and an empty event loop; and a process of its own per model (`floor/raw_asgi.py`).
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from tests.bench import harness
from tests.bench.models import rows, tree_model
from tests.engine_fixture import Engine, until
from tests.small_bundle import make_bundle

from sunup.bundle.manifest import Scale

PACKAGES = ("httptools", "msgspec", "numpy", "onnxruntime", "uvloop")
IDLE_SECONDS = 20.0
PROCESSES = 4  # of a process per model, measured together
IDLE_MAX = 0.01


def main() -> int:
    parser = argparse.ArgumentParser(description="memory per idle function")
    parser.add_argument("--warm", type=int, default=200)
    options = parser.parse_args()
    report = harness.Report("density", facts={"warm": options.warm})
    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "model.onnx"
        model.write_bytes(tree_model())
        _warm(Path(name), model, options.warm, report)
    return report.finish(PACKAGES)


def _warm(folder: Path, model: Path, count: int, report: harness.Report) -> None:
    with harness.local_engine(folder / "warm") as engine:
        _deploy(engine, model.read_bytes(), count)
        ours = pss_mb(_pids(engine)) / count
        idle = _busy(_pids(engine), IDLE_SECONDS)
    floor = _fork_mb(model, count)
    alone = _alone_mb(model)
    print(
        f"{count} warm functions: {ours:.2f} MB each; a bare fork {floor:.2f} MB; a process of its own {alone:.1f} MB"
    )
    print(f"idle, all processes: {100 * idle:.2f} % of a core")
    report.facts |= {"warm_mb": ours, "fork_mb": floor, "process_mb": alone, "idle_share": idle}
    for id, most, ratio in (
        ("density-fork", 1.5, ours / floor),
        ("density-process", 0.05, ours / alone),
        ("density-idle", IDLE_MAX, idle),
    ):
        report.goals.append(harness.Goal(id, most, ratio, ratio, ratio, least=False))


def _deploy(engine: Engine, model: bytes, count: int) -> None:
    """So many functions of the same model, each with a bundle and a worker of its own that stays."""
    for number in range(count):
        digest = make_bundle(
            engine.project.bundles,
            model,
            rows(8, seed=3),
            function=f"f{number}",
            dtype="float32",
            scale=Scale(max=1, idle_s=3600),
        )
        engine.deploy(f"f{number}", digest, settings={}, on_event=lambda _: None)
    until(lambda: len(_pids(engine)) >= count, "a worker for each")


def _pids(engine: Engine) -> list[int]:
    status = engine.status(None)
    pids = [process["pid"] for process in status["engine"]["processes"]]
    return pids + [worker["pid"] for function in status["functions"] for worker in function["workers"]]


def _fork_mb(model: Path, count: int) -> float:
    command = [sys.executable, "-m", "tests.bench.floor.fork_idle", str(model), str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=harness.ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        each = pss_mb(json.loads(process.stdout.readline())["pids"]) / count
        process.stdin.close()
    return each


def _alone_mb(model: Path) -> float:
    """A process per model, PROCESSES of them sharing what files they can."""
    with contextlib.ExitStack() as stack:
        for _ in range(PROCESSES):
            stack.enter_context(harness.server("tests.bench.floor.raw_asgi", model))
        mine = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        pids = [int(pid) for pid in mine if b"floor.raw_asgi" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(pids) == PROCESSES
        return pss_mb(pids) / PROCESSES


def pss_mb(pids: Iterable[int]) -> float:
    """Proportional set size of processes together, in MB."""
    return sum(_kb(Path(f"/proc/{pid}/smaps_rollup").read_text()) for pid in pids) / 1024


def _kb(rollup: str) -> int:
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))


def _busy(pids: Iterable[int], seconds: float) -> float:
    """Share of a core that the processes use while nobody calls."""
    pids = list(pids)
    before = sum(map(_ticks, pids))
    time.sleep(seconds)
    return (sum(map(_ticks, pids)) - before) / os.sysconf("SC_CLK_TCK") / seconds


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


if __name__ == "__main__":
    sys.exit(main())
