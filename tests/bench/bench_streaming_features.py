"""streaming-features: how soon an event is seen, how many a second, what is kept of an entity, and that it is right.

    python -m tests.bench streaming-features [--only freshness,rate,size,chaos] [--clients NAME,...] [--rounds 3]

`freshness`: an event is produced and a REST call looks for it again and again, beside 100 and 1,000 others a second.
`rate`: topics of events of --cards cards, read by one process on one core, the broker and Redis on the other. One of
--events events is aggregated and not scored, by `platform stream replay --features`, from its first event to the last
value online; the 2 to 4 s in which the command starts and workers let go are not in it. One of --scored events is
aggregated and scored by a worker, and beside it is the floor: the same client, which only takes batches (and, for
information, decodes them as JSON). `size`: --entities entities of the view of functions/fraud, three events of a day
each: memory and disk for each, how long until a worker without any tiles has them from the changelog, and until a store
that lost everything has it again. `chaos`: --faulted events under kill -9, each score and each value online against a
batch computation, on Redis and on SQLite. The results are streaming-features.json, and streaming-features-faults.json
for the last part. All of it takes some 20 minutes.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench import harness
from tests.bench.streaming.freshness import event, measured
from tests.bench.streaming.setting import LATE_S, PARTITIONS, SECONDS_MAX, Setting, pinned, pss_bytes
from tests.engine_fixture import until
from tests.exactly_once.chaos import Plan
from tests.streaming.chaos import StreamingChaos
from tests.streaming.events import Events
from tests.streaming.function import Streaming
from tests.topics import Entry

PACKAGES = ("confluent-kafka", "hiredis", "kafka-python", "msgspec", "numpy", "onnxruntime", "pandas", "redis")
PARTS = ("freshness", "rate", "size", "chaos")
RATES = (100, 1000)
FRESH_GOAL_MS = 50.0
ALONE_GOAL = 50_000.0  # events/s that are aggregated, and not scored
RATIO_GOAL = 0.5
RECOVERY_GOAL_S = 5.0  # of 100,000 entities
REBUILD_GOAL_S = 10.0  # of 100,000 entities
MEMORY_GOAL_MB, DISK_GOAL_MB = 512.0, 1024.0  # of a million
PER_ENTITY = 3  # events
TIMES = ("replay", "wake", "recovery", "rebuild")
LOOK_SECONDS = 0.02
MILLION, HUNDRED_THOUSAND = 1_000_000, 100_000


def main() -> int:
    given = _options()
    facts = {
        name: getattr(given, name) for name in ("events", "scored", "faulted", "cards", "entities", "kills", "seconds")
    }
    figures = harness.Report("streaming-features", facts=dict(facts))
    faults = harness.Report("streaming-features-faults", facts=dict(facts))
    parts: dict[str, Callable[[Setting], None]] = {
        "freshness": lambda setting: _freshness(setting, given, figures),
        "rate": lambda setting: _rate(setting, given, figures),
        "size": lambda setting: _size(setting, given, figures),
        "chaos": lambda setting: _chaos(setting, given, faults),
    }
    for name in given.only:
        with tempfile.TemporaryDirectory() as folder, Setting(Path(folder)) as setting:
            parts[name](setting)
    return max(report.finish(PACKAGES) for report in (figures, faults) if report.rounds)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="stream feature views: how soon, how many, how large, how right")
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--clients", default="confluent-kafka,kafka-python")
    parser.add_argument("--entities", default=f"{HUNDRED_THOUSAND},{MILLION}")
    for name, default in (("rounds", 3), ("seconds", 15), ("events", MILLION), ("cards", HUNDRED_THOUSAND)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--scored", type=int, default=300_000)
    parser.add_argument("--faulted", type=int, default=50_000)
    parser.add_argument("--kills", type=int, default=20)
    given = parser.parse_args()
    given.only, given.clients = given.only.split(","), given.clients.split(",")
    given.entities = [int(each) for each in given.entities.split(",")]
    if wrong := {*given.only} - {*PARTS}:
        raise SystemExit(f"there is no {', '.join(wrong)}; parts: {', '.join(PARTS)}")
    return given


def _events(count: int, cards: int, seconds: float = 1800.0) -> Events:
    now = time.time()
    return Events(count, cards, now - seconds, now, late_s=(LATE_S, 2 * LATE_S), odd=0.0)


# --- How soon ---------------------------------------------------------------------------------------------------------


def _freshness(setting: Setting, given: argparse.Namespace, report: harness.Report) -> None:
    for client in given.clients:
        for rate in RATES:
            with setting.function(client, setting.store("redis")) as f:
                f.topics.send(f.stream.input, _events(100, 50).entries(range(100)))
                pinned(f)
                until(lambda: f.facts["scored"] > 0, "a first score", SECONDS_MAX)
                took = measured(f, "card_tx_count_1h", rate, given.seconds)
            low, p50, high = statistics.quantiles(took, n=4, method="inclusive")
            p99 = statistics.quantiles(took, n=100, method="inclusive")[98]
            print(f"{client}, {rate:,} events/s: p50 {p50:.1f} ms, p99 {p99:.1f} ms ({len(took)} looked for)")
            report.rounds[f"fresh {client} at {rate} ms"] = took
            report.goals.append(_most(f"streaming-fresh-{client}-{rate}-p50-ms", FRESH_GOAL_MS, p50, low, high))


# --- How many ---------------------------------------------------------------------------------------------------------


def _rate(setting: Setting, given: argparse.Namespace, report: harness.Report) -> None:
    for topic, count in (("load", given.scored), ("alone", given.events)):
        setting.kafka.create(topic, PARTITIONS)
        setting.fill(topic, _events(count, given.cards))
    rates: dict[str, list[float]] = {}
    for _ in range(given.rounds):
        for client in given.clients:
            subjects: dict[str, Callable[[], float]] = {
                f"sunup {client}": partial(_scored, setting, client, given.scored),
                f"floor {client}": partial(_floor, setting, client, given.scored, "raw"),
                f"floor {client} json": partial(_floor, setting, client, given.scored, "json"),
            }
            for name, subject in subjects.items():
                rates.setdefault(name, []).append(subject())
                print(f"{name:32}{rates[name][-1]:12,.0f} events/s", flush=True)
    for _ in range(given.rounds):
        with setting.function(given.clients[0], setting.store("redis"), input="alone", seek_end=True) as f:
            rates.setdefault("aggregation only", []).append(given.events / setting.replayed(f))
    report.rounds |= rates
    for name, measured_ in rates.items():
        print(f"{name:32}{statistics.median(measured_):12,.0f} events/s")
    alone = rates["aggregation only"]
    report.goals.append(_least("streaming-rate-aggregation-s", ALONE_GOAL, min(alone), statistics.median(alone)))
    for client in given.clients if given.rounds > 1 else ():
        ours = rates[f"sunup {client}"]
        report.goals.append(harness.ratio_goal(f"streaming-rate-{client}", RATIO_GOAL, ours, rates[f"floor {client}"]))


def _scored(setting: Setting, client: str, count: int) -> float:
    """Events/s of one worker that aggregates and scores the topic, from its first commit to the last."""
    with setting.function(client, setting.store("redis"), input="load") as f:
        pinned(f)
        return _until_read(f, lambda: int(f.facts["scored"] + f.facts["dead"]), count)


def _until_read(streaming: Streaming, done: Callable[[], int], count: int) -> float:
    first, end = None, time.monotonic() + SECONDS_MAX
    while (so_far := done()) < count:
        first = first or ((time.monotonic(), so_far) if so_far else None)
        if time.monotonic() > end:
            raise RuntimeError(f"{so_far:,} of {count:,} events read: {streaming.facts}")
        time.sleep(LOOK_SECONDS)
    if first is None:
        raise RuntimeError("too few events to measure a rate")
    return (count - first[1]) / (time.monotonic() - first[0])


def _floor(setting: Setting, client: str, count: int, way: str) -> float:
    core, module = str(harness.SERVER_CORE), "tests.bench.floor.stream_consume"
    command = ["taskset", "-c", core, sys.executable, "-m", module, client, setting.kafka.servers, "load", str(count)]
    ran = subprocess.run(
        [*command, way], cwd=harness.ROOT, check=True, capture_output=True, text=True, timeout=SECONDS_MAX
    )
    return float(ran.stdout)


# --- How large, and how soon it is back -------------------------------------------------------------------------------


def _size(setting: Setting, given: argparse.Namespace, report: harness.Report) -> None:
    for count in given.entities:
        topic = f"entities-{count}"
        setting.kafka.create(topic, PARTITIONS)
        setting.spread(topic, count, PER_ENTITY, time.time())
        with setting.function(given.clients[0], setting.store("redis"), input=topic, idle_s=2.0, seek_end=True) as f:
            took = setting.replayed(f)
            found = {"replay": [took], **_sizes(setting, f)}
            found |= _comes_back(setting, f, count, given.rounds if count < MILLION else 1)
        report.rounds[f"{count} entities"] = [found]
        each = ", ".join(f"{name} {value / count:,.0f} B" for name, value in found.items() if name.endswith("bytes"))
        times = ", ".join(f"{name} {statistics.median(found[name]):.2f} s" for name in TIMES)
        print(f"{count:,} entities, each: {each}; {times}", flush=True)
        _goals(report, count, found)


def _online(setting: Setting) -> int:
    with setting.redis.client() as client:
        size: Any = client.dbsize()
        return int(size)


def _sizes(setting: Setting, streaming: Streaming) -> dict[str, Any]:
    folder = setting.engine.project.aggregates / streaming.name
    with setting.redis.client() as client:
        memory: Any = client.info("memory")
    return {
        "state_bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        "changelog_bytes": setting.log_bytes(f"{streaming.stream.group}-tiles"),
        "redis_bytes": int(memory["used_memory"]),
    }


def _comes_back(setting: Setting, streaming: Streaming, count: int, rounds: int) -> dict[str, Any]:
    """Seconds until the next score of a worker that has no tiles, and of one that has; until everything is in a store
    that lost it. And what the worker takes of memory then."""
    found: dict[str, list[float]] = {"recovery": [], "wake": [], "rebuild": []}
    memory: list[float] = []
    for _ in range(rounds):
        for name in ("wake", "recovery"):
            if name == "recovery":
                shutil.rmtree(setting.engine.project.aggregates / streaming.name)
            found[name].append(_next(streaming))
            until(lambda: not streaming.facts["workers"], "zero workers", SECONDS_MAX)
        with setting.redis.client() as client:
            client.flushall()
        begun = time.monotonic()
        streaming.send_entries([_one()])
        pid = pinned(streaming)
        until(lambda: _online(setting) >= count, "all to be online again", SECONDS_MAX)
        found["rebuild"].append(time.monotonic() - begun)
        memory.append(pss_bytes(pid))
        until(lambda: not streaming.facts["workers"], "zero workers", SECONDS_MAX)
    return {**found, "worker_bytes": max(memory)}


def _one() -> Entry:
    """An event of now."""
    return b"1", event(0, 1), []


def _next(streaming: Streaming) -> float:
    begun, before = time.monotonic(), streaming.facts["scored"]
    streaming.send_entries([_one()])
    until(lambda: streaming.facts["scored"] > before, f"a score, not {streaming.facts}", SECONDS_MAX)
    return time.monotonic() - begun


def _goals(report: harness.Report, count: int, found: dict[str, Any]) -> None:
    if count == HUNDRED_THOUSAND:
        for name, goal in (("recovery", RECOVERY_GOAL_S), ("rebuild", REBUILD_GOAL_S)):
            report.goals.append(_most(f"streaming-{name}-s", goal, max(found[name])))
    if count == MILLION:
        report.goals.append(_most("streaming-million-worker-mb", MEMORY_GOAL_MB, found["worker_bytes"] / 2**20))
        report.goals.append(_most("streaming-million-state-mb", DISK_GOAL_MB, found["state_bytes"] / 2**20))


# --- How right --------------------------------------------------------------------------------------------------------


def _chaos(setting: Setting, given: argparse.Namespace, report: harness.Report) -> None:
    for kind in ("redis", "sqlite"):
        for client in given.clients[:1] if kind == "sqlite" else given.clients:
            _one_chaos(setting, client, kind, given, report)


def _one_chaos(setting: Setting, client: str, kind: str, given: argparse.Namespace, report: harness.Report) -> None:
    plan = Plan(given.faulted, given.kills, 900.0)
    streaming = setting.made(client, setting.store(kind), max_workers=plan.workers, idle_s=1.0)
    now = time.time()
    late = [spec.late_s for spec in streaming.specs.values()]
    events = Events(plan.records, given.cards, now - 1800, now + 30.0, late_s=(late[0], late[1]), odd=0.01)
    chaos = StreamingChaos(streaming, events, plan, setting.kafka)
    outcome = chaos.run()
    setting.engine.remove(streaming.name)  # one function at a time may have the views
    print(f"{client}, {kind}: {outcome.line()}; {chaos.expected}")
    counts = {name: len(found) for name, found in vars(outcome.faults).items()}
    report.rounds[f"{client} {kind}"] = [{**vars(outcome), "faults": counts, "line": outcome.line()}]
    for name, count in counts.items():
        report.goals.append(_most(f"streaming-{client}-{kind}-{name}", 0.0, count))
    killed = float(outcome.kills)
    wanted = min(20.0, plan.kills)
    report.goals.append(harness.Goal(f"streaming-{client}-{kind}-kills", wanted, killed, killed, killed))


def _least(id: str, goal: float, low: float, middle: float) -> harness.Goal:
    return harness.Goal(id, goal, middle, low, middle)


def _most(id: str, goal: float, value: float, low: float | None = None, high: float | None = None) -> harness.Goal:
    ends = (value if low is None else low, value if high is None else high)
    return harness.Goal(id, goal, value, *ends, least=False)


if __name__ == "__main__":
    sys.exit(main())
