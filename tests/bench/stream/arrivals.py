"""What comes out of a topic and when, as a read_committed consumer sees it; and records at fixed times, into one."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

PATIENCE_SECONDS = 60.0  # for a first record, and for the rest of them


class Arrived(NamedTuple):
    """A committed record, and when it was seen: `time.perf_counter()` seconds."""

    key: bytes
    value: bytes
    at: float


class Arrivals:
    """Reads one topic from its first record on, committed ones only. In no group."""

    def __init__(self, servers: str, topic: str) -> None:
        settings = {"group.id": "arrivals", "enable.auto.commit": False, "isolation.level": "read_committed"}
        self._consumer = Consumer({"bootstrap.servers": servers, "fetch.wait.max.ms": 50, **settings})
        self._topic = topic
        known = self._consumer.list_topics(topic, 10).topics[topic].partitions
        self._consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in known])

    def __repr__(self) -> str:
        return f"Arrivals({self._topic})"

    def take(self, seconds: float) -> list[Arrived]:
        """What has come; waits up to `seconds` for some. Raises RuntimeError for what is no record."""
        messages = self._consumer.consume(1000, seconds)
        at = time.perf_counter()
        for message in messages:
            if message.error() is not None:
                raise RuntimeError(f"reading {self._topic}: {message.error()}")
        return [Arrived(message.key() or b"", message.value() or b"", at) for message in messages]

    def close(self) -> None:
        self._consumer.close()


def collect(
    arrivals: Arrivals, count: int, seconds: float, alive: Callable[[], str], patience: float = PATIENCE_SECONDS
) -> list[Arrived]:
    """All `count` records, or what comes up to the first that is seen `seconds` after the first of all.

    `alive` raises when nobody writes any more, or says how they are. Raises TimeoutError when none comes for as long as
    `patience`.
    """
    found: list[Arrived] = []
    last = time.perf_counter()
    while len(found) < count and (not found or last < found[0].at + seconds):
        more = arrivals.take(0.02)
        found += more
        if more:
            last = more[-1].at
        else:
            said = alive()
            if time.perf_counter() > last + patience:
                raise TimeoutError(f"{arrivals!r}: {len(found)} of {count} records, none for {patience:g} s: {said}")
    return found


def per_second(found: Sequence[Arrived]) -> float:
    """Records a second from the first that was seen up to the last: those seen with the last do not count, for who
    writes many at a time has made those of the first time before it. At least two times."""
    first, last = found[0].at, found[-1].at
    return sum(one.at < last for one in found) / (last - first)


class Latency(NamedTuple):
    """Milliseconds from when a record was due to when its prediction was seen; `lost` records have none."""

    p50_ms: float
    p99_ms: float
    lost: int
    late_ms: float  # the generator's own lateness, at the 99th percentile


def latency(due: Sequence[float], found: Sequence[Arrived], late: Sequence[float], skip: int) -> Latency:
    """Of records with keys b"0", b"1", ... that were due at `due[i]`, sent `late[i]` s later, without `skip` first."""
    seen: dict[int, float] = {}
    for one in found:
        seen.setdefault(int(one.key), one.at)
    took = [1000 * (seen[i] - due[i]) for i in range(skip, len(due)) if i in seen]
    lost = len(due) - skip - len(took)
    took = sorted(took) + [float("inf")] * lost
    return Latency(
        statistics.median(took), took[int(0.99 * len(took))], lost, 1000 * sorted(late)[int(0.99 * len(late))]
    )


def open_loop(
    servers: str, topic: str, values: Sequence[bytes], arrivals: Arrivals, *, rate: float, seconds: float
) -> tuple[list[float], list[float], list[Arrived]]:
    """Write records at fixed times, whatever becomes of them, and read what comes out meanwhile: when each was due, how
    late it was sent, and what arrived, until all are there or PATIENCE_SECONDS / 6 after the last."""
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 0})
    count = int(rate * seconds)
    begun = time.perf_counter() + 0.01
    due = [begun + number / rate for number in range(count)]
    late: list[float] = []
    found: list[Arrived] = []
    while len(found) < count and time.perf_counter() < due[-1] + PATIENCE_SECONDS / 6:
        while len(late) < count and due[len(late)] <= time.perf_counter():
            number = len(late)
            late.append(time.perf_counter() - due[number])
            producer.produce(topic, values[number % len(values)], str(number).encode())
        producer.poll(0)
        found += arrivals.take(0.001)
    producer.flush(10)
    return due, late, found


def fill(servers: str, topic: str, values: Sequence[bytes], count: int) -> None:
    """Write `count` records, the values in turn, with their number as key. Raises RuntimeError when one is refused."""
    failed: list[Any] = []
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 20, "queue.buffering.max.messages": 1_000_000})
    for number in range(count):
        producer.produce(
            topic,
            values[number % len(values)],
            str(number).encode(),
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )
        producer.poll(0)
    if producer.flush(PATIENCE_SECONDS) or failed:
        raise RuntimeError(f"{topic} was not filled: {failed[:1]}")
