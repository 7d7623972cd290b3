"""What the bench of stream feature views runs on: a broker and Redis on one core, an engine on the other."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from tests.bench import harness
from tests.engine_fixture import Engine, until
from tests.kafka_fixture import KafkaServer
from tests.redis_fixture import RedisServer
from tests.streaming.events import Events
from tests.streaming.function import Streaming
from tests.streaming.stores import OnlineStore, RedisStore, SqliteStore
from tests.topics import Entry, KafkaTopics

from sunup.settings import STREAM_CLIENT
from sunup.types import Aggregated, Aggregation

PARTITIONS = 4
HOP_S, LATE_S, DAY_S = 60, 600.0, 86_400  # as features/views.py has it
CHUNK = 50_000
PLATFORM = Path(sys.executable).with_name("platform")
SECONDS_MAX = 600.0


def velocity(topic: str) -> Aggregated:
    """The view card_velocity of functions/fraud: payments in the last hour, their amount in the last day."""
    wanted = (
        Aggregation("card_tx_count_1h", "count", "amount", 3600),
        Aggregation("card_amount_sum_24h", "sum", "amount", DAY_S),
    )
    return Aggregated(topic, "event_time", HOP_S, LATE_S, "transaction_id", wanted)


class Setting:
    """All of it, while it runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kafka = KafkaServer(folder)
        self.redis = RedisServer(folder)
        self.engine = Engine(folder / "p")
        self._numbers = itertools.count()

    def __enter__(self) -> "Setting":
        """Whoever calls this, and what is started here, stays on the load core, but for the engine."""
        os.sched_setaffinity(0, {harness.LOAD_CORE})
        self.kafka.start()
        self.redis.start()
        self.engine.up()
        harness.pin(self.engine.pids().values(), harness.SERVER_CORE)
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.down()
        self.redis.stop()
        self.kafka.kill()

    def store(self, kind: str) -> OnlineStore:
        """A fresh one: "redis" or "sqlite"."""
        if kind == "sqlite":
            return SqliteStore(self.folder / f"online-{next(self._numbers)}.db")
        with self.redis.client() as client:
            client.flushall()
        return RedisStore(self.redis.url)

    def made(self, client: str, store: OnlineStore, make: Mapping[str, Any] | None = None, **more: Any) -> Streaming:
        """A function that is not deployed yet, with the tests' own views unless `make` says which."""
        return Streaming(self.engine, KafkaTopics(self.kafka), store, make, settings={STREAM_CLIENT: client}, **more)

    @contextmanager
    def function(
        self, client: str, store: OnlineStore, make: Mapping[str, Any] | None = None, **more: Any
    ) -> Iterator[Streaming]:
        """A deployed one with at most one stream worker; it is gone at the end. `seek_end`: what its input
        holds before that counts as read."""
        given = {"max_workers": 1, "idle_s": 120.0, **more}
        at_end = given.pop("seek_end", False)
        streaming = self.made(client, store, make or {"velocity": velocity}, **given)
        own = (streaming.stream.output, streaming.stream.dead_letter)
        for topic in own if "input" in more else (*own, streaming.stream.input):
            streaming.topics.create(topic, PARTITIONS)
        if at_end:
            self._seek_end(streaming)
        try:
            streaming.deploy(1.0)
            yield streaming
        finally:
            self.engine.remove(streaming.name)
            until(lambda: "watcher" not in self.engine.pids(), "the workers to be gone")

    def fill(self, topic: str, events: Events) -> None:
        """All of them into a topic that is there."""
        for start in range(0, len(events), CHUNK):
            self.send(topic, events.entries(range(start, min(start + CHUNK, len(events)))))

    def send(self, topic: str, entries: list[Entry]) -> None:
        failed: list[Any] = []
        told = lambda error, _: failed.append(error) if error else None  # noqa: E731
        producer = Producer({"bootstrap.servers": self.kafka.servers, "queue.buffering.max.messages": 2 * CHUNK})
        for key, value, _ in entries:
            producer.produce(topic, value, key, on_delivery=told)
        if producer.flush(SECONDS_MAX) or failed:
            raise RuntimeError(f"{topic} was not filled: {failed[:1]}")

    def spread(self, topic: str, cards: int, each: int, end: float) -> None:
        """`each` events of every one of `cards` cards, all over the last day before `end`."""
        producer = Producer({"bootstrap.servers": self.kafka.servers, "queue.buffering.max.messages": 4 * CHUNK})
        begin, step = end - DAY_S + 3600, (DAY_S - 3600) / (cards * each)
        line = b'{"n":%d,"card_id":%d,"transaction_id":"s-%d","event_time":%.3f,"amount":%d.25,"fee":0.5}'
        for number in range(cards * each):
            card = number % cards
            producer.produce(topic, line % (number, card, number, begin + number * step, number % 900), b"%d" % card)
            if number % CHUNK == 0:
                producer.flush(SECONDS_MAX)
        if producer.flush(SECONDS_MAX):
            raise RuntimeError(f"{topic} was not filled")

    def replayed(self, streaming: Streaming) -> float:
        """Seconds that `platform stream replay --features` says it took, on the server core."""
        command = [str(PLATFORM), "stream", "replay", streaming.name]
        ran = subprocess.run(
            ["taskset", "-c", str(harness.SERVER_CORE), *command, "--features", "--yes", "--json"],
            cwd=self.engine.project.root,
            check=False,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
        )
        if ran.returncode:
            raise RuntimeError(f"the features were not made again: {ran.stderr or ran.stdout}")
        return float(json.loads(ran.stdout)["seconds"])

    def _seek_end(self, streaming: Streaming) -> None:
        """The group's positions behind all there is."""
        topic = streaming.stream.input
        consumer = Consumer({"bootstrap.servers": self.kafka.servers, "group.id": streaming.stream.group})
        places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        for place in places:
            place.offset = consumer.get_watermark_offsets(place, SECONDS_MAX)[1]
        consumer.commit(offsets=places, asynchronous=False)
        consumer.close()

    def log_bytes(self, topic: str) -> int:
        """What the broker keeps of a topic."""
        folders = self.kafka.folder.glob(f"data/{topic}-[0-9]*")
        return sum(file.stat().st_size for folder in folders for file in folder.glob("*.log"))


def pinned(streaming: Streaming) -> int:
    """The process id of the stream worker, which is on the server core from now on."""
    until(lambda: bool(streaming.workers), "a worker")
    (pid,) = streaming.workers
    harness.pin([pid], harness.SERVER_CORE)
    return pid


def pss_bytes(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
