"""Payments into a topic, scores out of another one, and how long that takes: what programs around a function do.

infra/kafka.sh run /tmp/kafka 9092 &           # or any Kafka you have; or none: then it is the embedded log
export KAFKA_BOOTSTRAP=127.0.0.1:9092
python -m functions.fraud.train                # once; `make demo` has done it
platform deploy fraud@champion                 # its [stream] says env:KAFKA_BOOTSTRAP or embedded, and names the topics
python examples/kafka_roundtrip.py             # --count 200, --bootstrap 127.0.0.1:9092
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from sunup.settings import find_project
from sunup.stream.embedded import Log

INPUT, OUTPUTS = "transactions", ("fraud-scores", "fraud-dead")
WAIT_SECONDS_MAX = 30.0
PAYMENT = {"card_id": 7, "customer_id": 5, "merchant_id": 12, "amount": 24.9, "hour": 13.5, "km_from_home": 3.2}


class Came(NamedTuple):
    """A record of an output topic."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]

    @property
    def source(self) -> str:
        """Which record it is of. A score says so in ce_id; a dead letter is that record again, with the reason."""
        said = {name: value.decode() for name, value in self.headers}
        parts = (said.get(f"sunup_{part}", "") for part in ("topic", "partition", "offset"))
        return said.get("ce_id") or "-".join(parts)


class Topics(Protocol):
    """Writes a record, and reads what comes out from when it was opened on."""

    def send(self, key: bytes, value: bytes) -> str: ...
    def take(self) -> list[Came]: ...
    def close(self) -> None: ...


class OnKafka:
    """With kafka-python; any other client does as well. Makes topics that are missing."""

    def __init__(self, servers: str) -> None:
        with KafkaAdminClient(bootstrap_servers=servers) as admin:
            if missing := {INPUT, *OUTPUTS} - set(admin.list_topics()):
                admin.create_topics({topic: {"num_partitions": 4} for topic in missing}, wait_for_metadata=True)
        # read_committed: what a transaction wrote that was given up is no score.
        self._consumer = KafkaConsumer(bootstrap_servers=servers, isolation_level="read_committed")
        numbers = {topic: self._consumer.partitions_for_topic(topic) or () for topic in OUTPUTS}
        self._consumer.assign([TopicPartition(topic, number) for topic in OUTPUTS for number in numbers[topic]])
        self._consumer.seek_to_end()
        for partition in self._consumer.assignment():
            self._consumer.position(partition)  # the end as it is now, before anything is sent
        self._producer = KafkaProducer(bootstrap_servers=servers)

    def send(self, key: bytes, value: bytes) -> str:
        at = self._producer.send(INPUT, key=key, value=value).get(timeout=WAIT_SECONDS_MAX)
        return f"{at.topic}-{at.partition}-{at.offset}"

    def take(self) -> list[Came]:
        polled = self._consumer.poll(timeout_ms=500).values()
        return [Came(one.topic, one.key, one.value, one.headers) for records in polled for one in records]

    def close(self) -> None:
        self._producer.close()
        self._consumer.close()


class OnLog:
    """The embedded log of the project here."""

    def __init__(self, path: Path) -> None:
        self._log = Log(path)
        for topic in OUTPUTS:
            self._log.create(topic)
        self._next = {(topic, number): end for topic in OUTPUTS for number, end in self._log.end(topic).items()}

    def send(self, key: bytes, value: bytes) -> str:
        ((partition, offset),) = self._log.append(INPUT, [(key, value, [])])
        return f"{INPUT}-{partition}-{offset}"

    def take(self) -> list[Came]:
        found = []
        for (topic, partition), offset in self._next.items():
            for record in self._log.read(topic, partition, offset, 1000):
                self._next[topic, partition] = record.offset + 1
                found.append(Came(topic, record.key, record.value, record.headers))
        time.sleep(0 if found else 0.001)  # SQLite has no way to wait for another process
        return found

    def close(self) -> None:
        self._log.close()


def round_trip(topics: Topics, key: bytes, value: bytes) -> tuple[Came, float]:
    """Send one record and wait for what becomes of it; seconds that took."""
    begun = time.perf_counter()
    source = topics.send(key, value)
    while time.perf_counter() - begun < WAIT_SECONDS_MAX:
        for came in topics.take():
            if came.source == source:
                return came, time.perf_counter() - begun
    sys.exit(f"Nothing came of {source}; see: platform stream status fraud")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bootstrap", default=os.environ.get("KAFKA_BOOTSTRAP"), help="host:port of Kafka")
    parser.add_argument("--count", type=int, default=50, help="payments to send, one after the other")
    asked = parser.parse_args()
    topics: Topics = OnKafka(asked.bootstrap) if asked.bootstrap else OnLog(find_project(Path.cwd()).embedded_log)
    print(f"on {f'Kafka at {asked.bootstrap}' if asked.bootstrap else 'the embedded log'}")
    seconds = []
    for card in range(asked.count):
        came, took = round_trip(topics, b"card-%d" % card, json.dumps({**PAYMENT, "card_id": card}).encode())
        seconds.append(took)
        if card < 5:
            show(came)
    show(round_trip(topics, b"card-bad", b'{"card_id": "seven"}')[0])
    topics.close()
    print(f"the first, which may have had to wake the function: {1000 * seconds[0]:.0f} ms")
    if len(rest := seconds[1:]) > 1:
        cuts = statistics.quantiles(rest, n=100, method="inclusive")
        p50, p99 = 1000 * cuts[49], 1000 * cuts[98]
        print(f"sent -> score read, the other {len(rest)}: p50 {p50:.1f} ms, p99 {p99:.1f} ms")


def show(came: Came) -> None:
    """One line of what it is, and its headers."""
    headers = {name: value.decode() for name, value in came.headers}
    print(came.topic, (came.key or b"").decode(), (came.value or b"").decode(), json.dumps(headers, indent=2))


if __name__ == "__main__":
    main()
