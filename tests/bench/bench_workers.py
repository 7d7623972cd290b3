"""workers: two workers of one function against one, with connections that were opened before the second was born.

    python -m tests.bench workers [--rounds 7] [--seconds 4] [--connections 24]

The model takes 2 to 3 ms a row, computed out of the cache. Two functions serve it, one with `[scale] max = 1`, one with
`max = 2`; both are warm with one worker when the connections are opened, and the load itself makes the second be born.
So what is measured is also whether those connections come to share both workers. Answers are counted by the workers'
own counters, from SETTLE_SECONDS after the birth on. Nothing is pinned: there are two cores, and the load generator
(wrk) is light beside such a model.
"""

import sys
import tempfile
import time
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from tests.bench import harness
from tests.bench.models import DEEP, deep_model, record_bodies, rows
from tests.engine_fixture import Engine, until
from tests.small_bundle import make_bundle

from sunup.bundle.manifest import Scale
from sunup.link.counters import Segment, counters_path

SETTLE_SECONDS = 2.0
IDLE_SECONDS = 2.0  # after which the second worker ends: every round begins with one
BIRTH_SECONDS_MAX = 20
PACKAGES = ("httptools", "msgspec", "numpy", "onnxruntime", "uvloop")


def main() -> int:
    given = harness.options("two workers against one", rounds=7, seconds=4, connections="24")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = deep_model(DEEP)
        with harness.local_engine(folder / "p") as engine:
            urls = {}
            for count in (1, 2):
                scale = Scale(min=1, max=count, target_concurrency=4, idle_s=IDLE_SECONDS, queue_max=10_000)
                store, warm, name = engine.project.bundles, rows(8, seed=3), f"max{count}"
                digest = make_bundle(store, model, warm, dtype="float32", function=name, scale=scale)
                urls[count] = engine.deploy(name, digest, settings={}, on_event=lambda _: None)["url"]
            report = _measure(engine, urls, harness.Wrk(folder, record_bodies()), given)
    return report.finish(PACKAGES)


def _measure(engine: Engine, urls: dict[int, str], wrk: harness.Wrk, given: Namespace) -> harness.Report:
    rps: dict[int, list[float]] = {count: [] for count in urls}
    for number in range(given.rounds + 1):
        for count, url in urls.items():
            found = _round(engine, count, url, wrk, given)
            rps[count] += [found] if number else []
    for count, each in rps.items():
        print(f"max = {count}: {median(each):,.1f} requests/s")
    report = harness.Report("workers", {f"max{count}": list(each) for count, each in rps.items()})
    report.goals.append(harness.ratio_goal("workers-two", 1.7, rps[2], rps[1]))
    return report


def _round(engine: Engine, count: int, url: str, wrk: harness.Wrk, given: Namespace) -> float:
    """Answers a second once all workers are there."""
    _until_ready(engine, count, 1)
    connections = int(given.connections)
    with ThreadPoolExecutor(1) as beside:
        load = beside.submit(wrk.run, url, seconds=6 + int(SETTLE_SECONDS) + given.seconds, connections=connections)
        _until_ready(engine, count, count)
        time.sleep(SETTLE_SECONDS)
        begun, before = time.monotonic(), _answered(engine, count)
        time.sleep(given.seconds)
        found = (_answered(engine, count) - before) / (time.monotonic() - begun)
        if load.done():
            raise SystemExit("the second worker was born too late for this measurement")
        load.result()  # raises when an answer was not a 200
    return found


def _answered(engine: Engine, count: int) -> float:
    """Calls that the workers of a function have answered."""
    total = 0.0
    for slot in range(count):
        segment = Segment.open(counters_path(engine.project.run, f"max{count}", slot))
        total += sum(sum(segment.read(at)) for at, s in enumerate(segment.series) if s.name == "sunup_requests_total")
        segment.close()
    return total


def _until_ready(engine: Engine, count: int, wanted: int) -> None:
    until(lambda: _ready(engine, count) == wanted, f"{wanted} workers of max{count}", BIRTH_SECONDS_MAX)


def _ready(engine: Engine, count: int) -> int:
    workers = engine.status(f"max{count}")["functions"][0]["workers"]
    return sum(worker["state"] == "ready" for worker in workers)


if __name__ == "__main__":
    sys.exit(main())
