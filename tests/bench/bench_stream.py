"""stream: Kafka in, two Feast views on Redis, a tree model, Kafka out; records a second of one core, side by side.

    python -m tests.bench stream [--rounds 7] [--seconds 4] [--subjects NAME,...] [--only rate,latency,wake]

Who scores has core 0 (of Sunup every process: the supervisor, the watcher and whatever else an engine is); the
broker, Redis and who looks at the outputs have core 1. The input topic is filled once; a run has a fresh group and
output topic, and counts the committed outputs from the first that is seen to those some seconds later. Every run's
answers are checked, beginning with one run of each subject that is not measured. All are at least once, but where it
says otherwise. The floors write the same records as Sunup, with a CloudEvent's headers, and once more `bare`: key
and value only, as the peers do. The peers get their features from Feast's SDK, a call a batch, and once more,
`by hand`, with the floor's own code, which then is most of them.

Then, without goals, what a record takes at a fixed rate that waits for nobody, from when it was due to when its
prediction is seen by a read_committed consumer; and the same of one record that comes when there is no worker. These
are in a result file of their own, stream-latency.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from tests.bench import harness
from tests.bench.floor.stream_scoring import Scorer
from tests.bench.models import rows, tree_model
from tests.bench.stream.arrivals import Arrivals, Arrived, collect, fill, latency, open_loop, per_second
from tests.bench.stream.setting import KEYS, PARTITIONS, Setting
from tests.bench.stream.subjects import PEERS, SUBJECTS
from tests.engine_fixture import until

BODIES = 4096
RECORDS = 200_000
CHECKED = 20_000  # of the runs that are not measured
RATE, RATE_SECONDS, RATE_SKIP_SECONDS = 1000.0, 8.0, 2.0
WAKES = 20
WAKE_GOAL_MS = 1000.0
PARTS = ("rate", "latency", "wake")
BEST = "sunup confluent-kafka"
PACKAGES = ("confluent-kafka", "crc32c", "hiredis", "kafka-python", "msgspec", "numpy", "onnxruntime", "uvloop")


def main() -> int:
    given = _options()
    model = tree_model()
    facts = {"records": RECORDS, "partitions": PARTITIONS, "keys": KEYS}
    rates, times = harness.Report("stream", facts=facts), harness.Report("stream-latency", facts=facts)
    with tempfile.TemporaryDirectory() as name:
        setting = Setting(Path(name), model)
        try:
            setting.start()
            values = bodies()
            right = [json.loads(said)["score"] for said in Scorer(str(setting.model), setting.redis.url).score(values)]
            if "rate" in given.only:
                _rates(setting, values, right, given, rates)
            if "latency" in given.only:
                _latencies(setting, values, right, given, times)
            if "wake" in given.only:
                _wakes(setting, values, given, times)
        finally:
            setting.stop()
    return max(report.finish(PACKAGES) for report in (rates, times) if report.rounds)


def _options() -> argparse.Namespace:
    given = harness.options(
        "records per second of one core, side by side",
        rounds=7,
        seconds=4,
        subjects=",".join(SUBJECTS),
        only=",".join(PARTS),
    )
    given.subjects, given.only = given.subjects.split(","), given.only.split(",")
    if wrong := [*{*given.subjects} - {*SUBJECTS}, *{*given.only} - {*PARTS}]:
        raise SystemExit(f"there is no {', '.join(wrong)}; subjects: {', '.join(SUBJECTS)}; parts: {', '.join(PARTS)}")
    return given


def bodies() -> list[bytes]:
    """Different records of the function's request."""
    rng = random.Random(11)
    keys = [{"card_id": rng.randrange(KEYS), "merchant_id": rng.randrange(KEYS)} for _ in range(BODIES)]
    own = rows(BODIES)[:, :10].tolist()
    return [json.dumps({**k, **{f"f{i}": v for i, v in enumerate(f)}}).encode() for k, f in zip(keys, own, strict=True)]


def check(found: Sequence[Arrived], right: Sequence[float]) -> None:
    """Each is the answer to its record, to float32, with all features, and there once. Raises SystemExit otherwise."""
    if len({one.key for one in found}) != len(found):
        raise SystemExit("a record was scored twice")
    for one in found:
        said = json.loads(one.value)
        if abs(said["score"] - right[int(one.key) % len(right)]) > 1e-6 or "defaulted" in said or "stale" in said:
            raise SystemExit(f"the answer to record {one.key!r} is {said}, not {right[int(one.key) % len(right)]}")


# --- Records a second -------------------------------------------------------------------------------------------------


def _rates(
    setting: Setting, values: list[bytes], right: list[float], given: argparse.Namespace, report: harness.Report
) -> None:
    setting.kafka.create("filled", PARTITIONS)
    fill(setting.kafka.servers, "filled", values, RECORDS)
    rate: dict[str, list[float]] = {name: [] for name in given.subjects}
    for number in range(given.rounds + 1):
        for name in given.subjects:
            found = _run(setting, name, given.seconds) if number else _run(setting, name, 1.0, CHECKED)
            check(found, right)
            if number:
                rate[name].append(per_second(found))
    report.rounds |= rate
    for name, several in rate.items():
        print(
            f"{name:38}{statistics.median(several):10,.0f} records/s   {1e6 / statistics.median(several):7.1f} us each"
        )
    report.goals += _goals(rate)


def _run(setting: Setting, name: str, seconds: float, count: int = RECORDS) -> list[Arrived]:
    """What one subject makes of the filled topic in so many seconds from its first output on."""
    with (
        setting.way("filled") as way,
        closing(Arrivals(setting.kafka.servers, way.target)) as arrivals,
        SUBJECTS[name](setting, way) as alive,
    ):
        return collect(arrivals, count, seconds, alive)


def _goals(rate: Mapping[str, list[float]]) -> list[harness.Goal]:
    """Of those that were measured."""
    floors = {"kafka-python": 0.9, "confluent-kafka": 0.6}
    wanted = [
        (f"stream-floor-{client}", least, f"sunup {client}", f"floor {client}") for client, least in floors.items()
    ]
    wanted += [(f"stream-{peer.replace(' ', '-')}", 5.0, BEST, peer) for peer in PEERS]
    for client in floors:
        for ours, other in (
            (f"sunup {client}", f"floor {client} bare"),
            (f"sunup {client} exactly-once", f"sunup {client}"),
        ):
            if ours in rate and other in rate:
                goal = harness.ratio_goal("", 0.0, rate[ours], rate[other])
                print(f"{ours} / {other}: {goal.ratio:.3f} ({goal.low:.3f}-{goal.high:.3f}), no goal")
    return [
        harness.ratio_goal(id, least, rate[ours], rate[other])
        for id, least, ours, other in wanted
        if ours in rate and other in rate
    ]


# --- Time a record takes ----------------------------------------------------------------------------------------------


def _latencies(
    setting: Setting, values: list[bytes], right: list[float], given: argparse.Namespace, report: harness.Report
) -> None:
    """Of every subject at RATE; those of the first seconds, in which it starts, do not count."""
    servers = setting.kafka.servers
    took = {}
    for name in given.subjects:
        with setting.way() as way, closing(Arrivals(servers, way.target)) as arrivals:
            fill(servers, way.source, values, 1)
            with SUBJECTS[name](setting, way) as alive:
                collect(arrivals, 1, RATE_SECONDS, alive)  # it has begun
                due, late, found = open_loop(servers, way.source, values, arrivals, rate=RATE, seconds=RATE_SECONDS)
        check(found, right)
        took[name] = latency(due, found, late, int(RATE * RATE_SKIP_SECONDS))
        p50, p99, lost, behind = took[name]
        print(f"{name:38} p50 {p50:9.2f} ms   p99 {p99:9.2f} ms   lost {lost}   sent late by {behind:.2f} ms (p99)")
    report.facts["latency_at_1000_per_second"] = {name: one._asdict() for name, one in took.items()}


def _wakes(setting: Setting, values: list[bytes], given: argparse.Namespace, report: harness.Report) -> None:
    """From a record's being due to its prediction's being seen, when there is no worker."""
    servers = setting.kafka.servers
    for client in ("kafka-python", "confluent-kafka"):
        if f"sunup {client}" not in given.subjects:
            continue
        took: list[float] = []
        with (
            setting.way() as way,
            closing(Arrivals(servers, way.target)) as arrivals,
            setting.sunup(way, client, "exactly-once", idle_s=0.2) as alive,
        ):
            for _ in range(WAKES + 1):
                until(lambda: not setting.workers(), "no worker", 30.0)
                begun = time.perf_counter()
                fill(servers, way.source, values, 1)
                (seen,) = collect(arrivals, 1, 30.0, alive)
                took.append(1000 * (seen.at - begun))
        del took[0]
        low, p50, high = statistics.quantiles(took, n=4, method="inclusive")
        print(f"wake from zero, {client}: p50 {p50:.0f} ms, {low:.0f}-{high:.0f}, at most {max(took):.0f}")
        report.rounds[f"wake {client}"] = took
        report.goals.append(harness.Goal(f"stream-wake-{client}-ms", WAKE_GOAL_MS, p50, low, high, least=False))


if __name__ == "__main__":
    sys.exit(main())
