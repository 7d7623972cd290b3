"""cold-tree: a request to a function at zero workers, to the first correct byte; LightGBM of 200 trees, 30 features.

    python -m tests.bench cold-tree [--rounds 10] [--starts 10] [--peers litserve,...]

Every start goes through the whole engine: door, supervisor, nursery, a new worker, a proven model. Between two starts
the function goes to zero by itself. The floor forks a process that has imported ONNX Runtime, opens the same file and
runs one row. Other model servers are started PEER_STARTS times each, to their first answer, with their files in the
page cache. One absolute goal is printed too, as a promise to users: p50 at most 25 ms.
"""

import argparse
import json
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.bench import harness
from tests.bench.models import rows, tree_model
from tests.bench.peers.peers import PEERS, bodies, running
from tests.engine_fixture import Engine, until
from tests.small_bundle import make_bundle

from sunup.bundle.manifest import Scale

PACKAGES = ("httptools", "msgspec", "numpy", "onnxruntime", "starlette", "uvloop")
PROMISE_MS = 25.0
PEER_STARTS = 3


def main() -> int:
    parser = argparse.ArgumentParser(description="request at zero workers to first correct byte")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--peers", default=",".join(PEERS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "model.onnx"
        model.write_bytes(tree_model())
        with harness.local_engine(folder / "p") as engine:
            report = _measure(engine, model, options.rounds, options.starts)
        _start_peers(list(filter(None, options.peers.split(","))), folder, report)
    return report.finish(PACKAGES)


def _measure(engine: Engine, model: Path, rounds: int, starts: int) -> harness.Report:
    bundles = engine.project.bundles
    digest = make_bundle(bundles, model.read_bytes(), rows(8, seed=3), dtype="float32", scale=Scale(max=1, idle_s=0.3))
    engine.deploy("score", digest, settings={}, on_event=lambda _: None)
    table = rows(64)
    ours: list[list[float]] = []
    floor: list[list[float]] = []
    stages: list[dict[str, float]] = []
    for _ in range(rounds):
        took = [_start(engine, table[i % len(table)].tolist()) for i in range(starts)]
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


def _start_peers(names: list[str], folder: Path, report: harness.Report) -> None:
    """Seconds from each one's start to its first answer; the goal is on the fastest."""
    row = rows(1).tolist()
    for name in names:
        first = bodies(PEERS[name], row)[0]
        report.rounds[name] = []
        for number in range(PEER_STARTS + 1):
            with running(name, folder / "model.onnx", folder / f"{name}-{number}", first) as (_, seconds):
                report.rounds[name] += [seconds] if number else []  # the first one reads its files from the disk
        print(f"{name}: first answer after {statistics.median(report.rounds[name]):.2f} s")
    if names:
        fastest = min((report.rounds[name] for name in names), key=statistics.median)
        ours = [report.facts["p50_ms"] / 1e3] * PEER_STARTS
        report.goals.append(harness.ratio_goal("cold-tree-peers", 100.0, fastest, ours))


def _start(engine: Engine, row: list[float]) -> tuple[float, dict[str, float]]:
    """One cold start: seconds to the first byte, and what Server-Timing says (milliseconds by stage)."""
    until(lambda: engine.at_zero("score"), "the function to go to zero")
    body = json.dumps({f"f{i}": v for i, v in enumerate(row)}).encode()
    head = (
        b"POST /functions/score HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n"
    )
    request = head + b"content-length: %d\r\n\r\n" % len(body) + body
    begun = time.perf_counter()
    with socket.create_connection(("127.0.0.1", engine.port)) as client:
        client.sendall(request)
        answer = client.recv(1)
        seconds = time.perf_counter() - begun
        while more := client.recv(65536):
            answer += more
    lines, _, reply = answer.partition(b"\r\n\r\n")
    if not answer.startswith(b"HTTP/1.1 200 ") or "score" not in json.loads(reply)["predictions"][0]:
        raise RuntimeError(f"a cold start was not answered: {answer!r}")
    timing = next(one for one in lines.split(b"\r\n") if one.startswith(b"server-timing: ")).decode()
    stages = dict(one.strip().split(";dur=") for one in timing.partition(": ")[2].split(","))
    return seconds, {stage: float(ms) for stage, ms in stages.items()}


if __name__ == "__main__":
    sys.exit(main())
