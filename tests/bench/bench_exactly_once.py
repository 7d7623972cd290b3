"""exactly-once: what transactions cost, that they hold under kill -9, and that a stream always comes back to rest.

    python -m tests.bench exactly-once [--rounds 7] [--records 300000] [--chaos 1000000] [--kills 24] [--cycles 100]

One worker on one core, the broker on the other: in every round the same topic is scored at least once and exactly
once, by each client that is installed; the goal is the ratio of their records/s. Then, for each client, the run of
tests/exactly_once: workers killed every 2-6 s, once the broker, and a deploy in the middle. And load of a few hundred
records again and again, after each of which no record waits and no worker is left. 0 leaves a
part out. There are two result files: exactly-once, and exactly-once-faults for what is behind the ratio.
"""

import argparse
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench import harness
from tests.engine_fixture import Engine, until
from tests.exactly_once.chaos import Chaos, Plan
from tests.exactly_once.ledger import entries
from tests.kafka_fixture import KafkaServer
from tests.topics import KafkaTopics, Scored

from sunup.settings import CONFLUENT, KAFKA_PYTHON, STREAM_CLIENT

PACKAGES = ("confluent-kafka", "kafka-python", "msgspec", "numpy", "onnxruntime")
INSTALLED = (KAFKA_PYTHON, *([CONFLUENT] if importlib.util.find_spec("confluent_kafka") else ()))
PARTITIONS = 8
GOAL_RATIO = 0.9  # of our own at-least-once
LOAD = 300  # records of one cycle
SECONDS_MAX = 120.0  # of one scoring of the topic, and of one cycle
LOOK_SECONDS = 0.02  # between looks at what was scored
CHUNK = 50_000


def main() -> int:
    parser = argparse.ArgumentParser(description="exactly once: throughput, under faults, and to zero again")
    for name, default in (("rounds", 7), ("records", 300_000), ("chaos", 1_000_000), ("kills", 24), ("cycles", 100)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--clients", default=",".join(INSTALLED))
    given = parser.parse_args()
    clients = given.clients.split(",")
    facts = {name: getattr(given, name) for name in ("records", "chaos", "kills", "cycles", "seed", "clients")}
    codes = []
    if given.rounds:
        report = harness.Report("exactly-once", facts=facts)
        _throughput(clients, given.rounds, given.records, report)
        codes.append(report.finish(PACKAGES))
    if given.chaos or given.cycles:
        report = harness.Report("exactly-once-faults", facts=facts)
        for client in clients:
            if given.chaos:
                _chaos(client, Plan(given.chaos, given.kills, 900.0, seed=given.seed, bad=0.01), report)
            if given.cycles:
                _cycles(client, given.cycles, report)
        codes.append(report.finish(PACKAGES))
    return max(codes, default=0)


@contextmanager
def _running() -> Iterator[tuple[Engine, KafkaServer]]:
    """An engine and a broker, with nothing in them."""
    with tempfile.TemporaryDirectory() as folder, harness.local_engine(Path(folder) / "p") as engine:
        server = KafkaServer(Path(folder))
        server.start()
        try:
            yield engine, server
        finally:
            server.kill()


# --- What transactions cost -------------------------------------------------------------------------------------------


def _throughput(clients: list[str], rounds: int, records: int, report: harness.Report) -> None:
    subjects = [(client, guarantee) for client in clients for guarantee in ("at-least-once", "exactly-once")]
    rates: dict[tuple[str, str], list[float]] = {subject: [] for subject in subjects}
    with _running() as (engine, server):
        harness.pin([server.pid], harness.LOAD_CORE)
        topics = KafkaTopics(server)
        topics.create("load", PARTITIONS)
        with topics.sending("load") as send:
            for start in range(0, records, CHUNK):
                send(one for one, _ in entries(range(start, min(start + CHUNK, records))))
        for number in range(rounds + 1):  # the first one warms up
            for subject in subjects:
                rate = _rate(engine, topics, records, *subject)
                if number:
                    rates[subject].append(rate)
    for (client, guarantee), measured in rates.items():
        print(f"{client:16}{guarantee:16}{statistics.median(measured):12,.0f} records/s")
        report.rounds[f"{client} {guarantee}"] = measured
    for client in clients:
        ours, other = rates[client, "exactly-once"], rates[client, "at-least-once"]
        report.goals.append(harness.ratio_goal(f"exactly-once-{client}", GOAL_RATIO, ours, other))


def _rate(engine: Engine, topics: KafkaTopics, records: int, client: str, guarantee: str) -> float:
    """Records/s of one worker that reads the topic from its beginning, from its first commit to the last."""
    settings = {STREAM_CLIENT: client}
    scored = Scored(engine, topics, settings=settings, input="load", guarantee=guarantee, max_workers=1)
    for topic in (scored.stream.output, scored.stream.dead_letter):
        topics.create(topic, PARTITIONS)
    scored.deploy()
    until(lambda: any(scored.workers), "a worker")
    harness.pin(scored.workers, harness.SERVER_CORE)
    first = None
    end = time.monotonic() + SECONDS_MAX
    while (count := scored.facts["scored"]) < records:
        first = first or ((time.monotonic(), count) if count else None)
        if time.monotonic() > end:
            raise RuntimeError(f"{count:,} of {records:,} records scored: {scored.facts}")
        time.sleep(LOOK_SECONDS)
    if first is None:
        raise RuntimeError("too few records to measure a rate")
    rate: float = (records - first[1]) / (time.monotonic() - first[0])
    engine.remove(scored.name)
    until(lambda: "watcher" not in engine.pids(), "the workers to be gone")
    return rate


# --- Under faults, and to rest ----------------------------------------------------------------------------------------


def _chaos(client: str, plan: Plan, report: harness.Report) -> None:
    with _running() as (engine, server):
        outcome = Chaos(_exactly_once(engine, server, client, max_workers=plan.workers), plan, server).run()
    print(f"{client}: {outcome.line()}")
    faults = outcome.faults
    counts = {name: len(found) for name, found in vars(faults).items()}
    report.rounds[f"{client} under faults"] = [{**vars(outcome), "faults": counts, "line": outcome.line()}]
    for name, count in counts.items():
        report.goals.append(_exact(f"exactly-once-{client}-{name}", 0.0, count))
    report.goals.append(_exact(f"exactly-once-{client}-kills", min(20.0, plan.kills), outcome.kills, least=True))
    report.goals.append(_exact(f"exactly-once-{client}-seconds", plan.seconds_max, outcome.seconds))


def _cycles(client: str, cycles: int, report: harness.Report) -> None:
    to_scores, to_rest, stuck = list[float](), list[float](), 0
    with _running() as (engine, server):
        scored = _exactly_once(engine, server, client, idle_s=0.3)
        scored.create(PARTITIONS)
        scored.deploy()
        for number in range(cycles):
            begun = time.monotonic()
            scored.send(range(number * LOAD, (number + 1) * LOAD))
            try:
                until(scored.is_read, "no lag", SECONDS_MAX)
                to_scores.append(time.monotonic() - begun)
                scored.wait_for_zero(SECONDS_MAX)
                to_rest.append(time.monotonic() - begun)
            except AssertionError as error:
                print(f"cycle {number}: {error}: {scored.facts}")
                stuck += 1
    middle = [statistics.median(each) if each else float("nan") for each in (to_scores, to_rest)]
    print(
        f"{client}: {cycles} cycles; median {middle[0]:.2f} s to no lag, {middle[1]:.2f} s to no worker; {stuck} stuck"
    )
    report.rounds[f"{client} cycles"] = [{"to_no_lag_s": to_scores, "to_no_worker_s": to_rest}]
    report.goals.append(_exact(f"exactly-once-{client}-stuck", 0.0, stuck))


def _exactly_once(engine: Engine, server: KafkaServer, client: str, **more: Any) -> Scored:
    return Scored(engine, KafkaTopics(server), settings={STREAM_CLIENT: client}, guarantee="exactly-once", **more)


def _exact(id: str, goal: float, value: float, *, least: bool = False) -> harness.Goal:
    return harness.Goal(id, goal, value, value, value, least)


if __name__ == "__main__":
    sys.exit(main())
