"""cold-tree: a request to a function at zero workers, to the first correct byte; LightGBM of 200 trees, 30 features.

    python -m tests.bench cold-tree [--rounds 10] [--starts 10] [--loaded 1000] [--peers litserve,...]

Every start goes through the whole engine: door, supervisor, nursery, a new worker, a proven model. Between two starts
the function goes to zero by itself. The floor forks a process that has imported ONNX Runtime, opens the same file and
runs one row. Then LOADED starts, of FUNCTIONS functions in turn, are measured while wrk, on the other core, calls one
more that is warm (LOAD_CONNECTIONS connections, each DELAY_MS after its last answer); their 99th percentile has a goal.
Other model servers are started three times each, to their first answer, with their files in the page cache. One
absolute goal is printed too, as a promise to users: p50 at most 25 ms.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench import cold, harness
from tests.bench.models import record, rows, tree_model
from tests.bench.peers.peers import PEERS, bodies
from tests.engine_fixture import Engine
from tests.small_bundle import make_bundle

from sunup.bundle.manifest import Scale

PACKAGES = ("httptools", "msgspec", "numpy", "onnxruntime", "starlette", "uvloop")
PROMISE_MS = 25.0
FUNCTIONS = 12  # in turn: the first is at zero again when the last was called
LOAD_CONNECTIONS, DELAY_MS = 4, 4


def main() -> int:
    parser = argparse.ArgumentParser(description="request at zero workers to first correct byte")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--loaded", type=int, default=1000)
    parser.add_argument("--peers", default=",".join(PEERS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "model.onnx"
        model.write_bytes(tree_model())
        with harness.local_engine(folder / "p") as engine:
            report = _measure(engine, model, options.rounds, options.starts)
            if options.loaded:
                _measure_loaded(engine, model, options.loaded, folder, report)
        row = rows(1).tolist()
        firsts = {name: bodies(PEERS[name], row)[0] for name in filter(None, options.peers.split(","))}
        cold.start_peers(firsts, folder, report, "cold-tree-peers", 100.0)
    return report.finish(PACKAGES)


def _measure(engine: Engine, model: Path, rounds: int, starts: int) -> harness.Report:
    bundles = engine.project.bundles
    digest = make_bundle(bundles, model.read_bytes(), rows(8, seed=3), dtype="float32", scale=cold.SHORT)
    engine.deploy("score", digest, settings={}, on_event=lambda _: None)
    table = rows(64)
    ours: list[list[float]] = []
    floor: list[list[float]] = []
    stages: list[dict[str, float]] = []
    for _ in range(rounds):
        took = [cold.start(engine, "score", record(table[i % len(table)].tolist())) for i in range(starts)]
        ours.append([seconds for seconds, _ in took])
        stages += [stage for _, stage in took]
        floor.append(harness.run_floor("fork_session", model, table, starts))
    every = sorted(s for each in ours for s in each)
    p50, p99 = statistics.median(every), every[int(0.99 * (len(every) - 1))]
    print(
        f"{len(every)} starts: p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms; floor p50 "
        f"{statistics.median(s for each in floor for s in each) * 1e3:.1f} ms"
    )
    middle = {k: round(statistics.median(one.get(k, 0.0) for one in stages), 2) for k in stages[0]}
    print("median stages, ms: " + ", ".join(f"{k} {v}" for k, v in middle.items()))
    verdict = "pass" if 1e3 * p50 <= PROMISE_MS else "fail"
    print(f"PROMISE cold-tree-p50 ms={1e3 * p50:.1f} goal={PROMISE_MS:g} {verdict}")
    medians = [statistics.median(each) for each in ours], [statistics.median(each) for each in floor]
    return harness.Report(
        "cold-tree",
        {"sunup": list(ours), "fork_session": list(floor)},
        [harness.ratio_goal("cold-tree-floor", 2.0, *medians, least=False)],
        {"p50_ms": 1e3 * p50, "p99_ms": 1e3 * p99, "stages_ms": middle},
    )


def _measure_loaded(engine: Engine, model: Path, starts: int, folder: Path, report: harness.Report) -> None:
    """Seconds of many cold starts while another function is called all the time."""
    bundles, warmup, table = engine.project.bundles, rows(8, seed=3), rows(64)
    for number in range(FUNCTIONS + 1):
        name, scale = (f"cold{number}", cold.SHORT) if number < FUNCTIONS else ("warm", Scale(min=1, max=1))
        digest = make_bundle(bundles, model.read_bytes(), warmup, function=name, dtype="float32", scale=scale)
        engine.deploy(name, digest, settings={}, on_event=lambda _: None)
    with _called(engine, "warm", folder, record(table[0].tolist())):
        took = [
            cold.start(engine, f"cold{i % FUNCTIONS}", record(table[i % len(table)].tolist())) for i in range(starts)
        ]
    every = sorted(seconds for seconds, _ in took)
    p50, p99 = statistics.median(every), every[int(0.99 * (len(every) - 1))]
    calls = engine.status("warm")["functions"][0]["requests"]
    print(f"{starts} starts beside {calls} calls of another: p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms")
    report.rounds["loaded"] = [seconds for seconds, _ in took]
    report.goals.append(harness.Goal("cold-tree-p99", 3.0, p99 / p50, p99 / p50, p99 / p50, least=False))
    report.facts["loaded"] = {"starts": starts, "p50_ms": 1e3 * p50, "p99_ms": 1e3 * p99, "calls_beside": calls}


@contextmanager
def _called(engine: Engine, function: str, folder: Path, body: bytes) -> Iterator[None]:
    """While `function` is called from the load core."""
    script = cold.quiet_load(folder, body, DELAY_MS)
    wrk = ["taskset", "-c", str(harness.LOAD_CORE), "wrk", "-t1", f"-c{LOAD_CONNECTIONS}", "-d1h", "-s", str(script)]
    url = f"http://127.0.0.1:{engine.port}/functions/{function}"
    process = subprocess.Popen([*wrk, url], stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


if __name__ == "__main__":
    sys.exit(main())
