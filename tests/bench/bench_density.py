"""density: memory of an idle function, warm and cold, what the idle engine costs of a core, and a deploy of thousands.

    python -m tests.bench density [--warm 200] [--cold 2000] [--peers litserve,mlserver,mlflow,bentoml]

LightGBM of 200 trees, 30 features. Warm: proportional set size (PSS) of all of Sunup's processes, divided by the
number of functions. Floor: the same number of children of a process that has imported the same, each with the same
session and an empty event loop. A process per model is another model server with all its processes, of the one that
takes least; a process of raw ASGI is printed beside it.
Cold: distinct bundles in folders of their own, deployed by one command; what they add to the engine's processes.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
import psutil
from tests.bench import harness
from tests.bench.models import record, rows, tree_model
from tests.bench.peers.peers import PEERS, bodies, running
from tests.engine_fixture import Engine, until
from tests.small_bundle import make_bundle

from sunup.bundle.manifest import Scale

PACKAGES = ("httptools", "msgspec", "numpy", "onnxruntime", "uvloop")
IDLE_SECONDS = 20.0
SETTLE_SECONDS = 3.0  # after the last birth: what is done once, later, is done
PROCESSES = 4  # of a process per model, measured together
RESIDENT = {"supervisor", "door", "nursery", "front"}


def main() -> int:
    parser = argparse.ArgumentParser(description="memory per idle function")
    parser.add_argument("--warm", type=int, default=200)
    parser.add_argument("--cold", type=int, default=2000)
    parser.add_argument("--peers", default="litserve,mlserver,mlflow,bentoml")
    options = parser.parse_args()
    report = harness.Report("density", facts={"warm": options.warm, "cold": options.cold})
    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "model.onnx"
        model.write_bytes(tree_model())
        if options.warm:
            peers = {peer: _peer_mb(peer, model, Path(name)) for peer in filter(None, options.peers.split(","))}
            _warm(Path(name), model, options.warm, peers, report)
        if options.cold:
            _cold(Path(name), model, options.cold, report)
    return report.finish(PACKAGES)


def _warm(folder: Path, model: Path, count: int, peers: dict[str, float], report: harness.Report) -> None:
    with harness.local_engine(folder / "warm") as engine:
        _deploy(engine, model.read_bytes(), count)
        time.sleep(SETTLE_SECONDS)
        ours = pss_mb(_pids(engine)) / count
        idle = _busy(_pids(engine), IDLE_SECONDS)
    floor = _fork_mb(model, count)
    alone = _alone_mb(model)
    print(f"{count} warm functions: {ours:.2f} MB each; a bare fork {floor:.2f} MB; raw ASGI of its own {alone:.1f} MB")
    print("a process per model: " + ", ".join(f"{peer} {mb:.0f} MB" for peer, mb in peers.items()))
    print(f"idle, all processes: {100 * idle:.2f} % of a core; of raw ASGI {ours / alone:.3f}")
    facts = {"warm_mb": ours, "fork_mb": floor, "process_mb": alone, "peers_mb": peers, "idle_share": idle}
    report.facts |= facts
    _goal(report, "density-fork", 1.5, ours / floor)
    if peers:
        _goal(report, "density-process", 0.05, ours / min(peers.values()))
    _goal(report, "density-idle", 0.01, idle)


def _cold(folder: Path, model: Path, count: int, report: harness.Report) -> None:
    bundles = list(_prepare(folder / "prepared", model.read_bytes(), count))
    os.sync()  # what preparing them left to be written is no part of what is measured
    with harness.local_engine(folder / "cold") as engine:
        time.sleep(SETTLE_SECONDS)
        before = _resident_mb(engine)
        command = [sys.executable, "-m", "sunup.cli.main", "deploy", "--json", "--project", str(engine.project.root)]
        begun = time.monotonic()
        done = subprocess.run([*command, *map(str, bundles)], check=True, capture_output=True, text=True)
        seconds = time.monotonic() - begun
        said = json.loads(done.stdout)
        assert len(said["functions"]) == count
        assert not any(one["unchanged"] for one in said["functions"])
        time.sleep(SETTLE_SECONDS)
        each = (_resident_mb(engine) - before) * 1024 / count
        assert not any(function["workers"] for function in engine.status(None)["functions"])
        answered = engine.ask("POST", f"/functions/f{count - 1}", record(rows(1)[0].tolist()))
        assert answered.status == 200, answered
    print(f"{count} functions registered in {seconds:.1f} s; each takes {each:.1f} KB while it is cold")
    report.facts |= {"register_seconds": seconds, "cold_kb": each}
    _goal(report, "density-register", 30.0, seconds)
    _goal(report, "density-cold", 20.0, each)


def _goal(report: harness.Report, id: str, most: float, value: float) -> None:
    report.goals.append(harness.Goal(id, most, value, value, value, least=False))


def _prepare(folder: Path, model: bytes, count: int) -> Iterator[Path]:
    """Bundles in folders, each of a model of its own: the same trees with other leaves."""
    folder.mkdir()
    graph = onnx.load_from_string(model)
    leaves = next(a for a in graph.graph.node[0].attribute if a.name == "class_weights").floats
    given = list(leaves)
    for number in range(count):
        leaves[:] = [leaf * (1 + number / 1e5) for leaf in given]
        other = graph.SerializeToString()
        yield folder / make_bundle(folder, other, rows(8, seed=3), function=f"f{number}", dtype="float32")


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


def _resident_mb(engine: Engine) -> float:
    """Of the processes that are there whatever is called."""

    def resident() -> dict[str, int]:
        return {process["role"]: process["pid"] for process in engine.status(None)["engine"]["processes"]}

    until(lambda: resident().keys() == RESIDENT, "the end of what a deploy needs")
    return pss_mb(resident().values())


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


def _peer_mb(name: str, model: Path, folder: Path) -> float:
    """Another model server with all its processes, two of it sharing what files they can."""
    first = bodies(PEERS[name], rows(1).tolist())[0]
    others = {child.pid for child in psutil.Process().children(recursive=True)}
    with running(name, model, folder / f"{name}-1", first), running(name, model, folder / f"{name}-2", first):
        pids = {child.pid for child in psutil.Process().children(recursive=True)} - others
        return pss_mb(pids) / 2


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
