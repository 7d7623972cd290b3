"""Topics for tests of streams: the same few calls on the embedded log and on a real Kafka broker."""

import json
import random
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
from kafka import KafkaConsumer, TopicPartition
from tests.engine_fixture import Engine, until
from tests.kafka_fixture import KafkaServer, committed, produce, producing, scan, settled

from sunup.bundle.manifest import Scale, StreamSpec
from sunup.stream.broker import Headers, Reader, Record, Stream
from sunup.stream.embedded import EmbeddedBroker, Log

Entry = tuple[bytes | None, bytes | None, Headers]
PARTITIONS = 4


def somebody(*, exactly_once: bool = False) -> Reader:
    """A reader whose name no other one has."""
    return Reader(uuid.uuid4().hex, exactly_once)


class Topics(Protocol):
    """Where a test's topics are. `broker` is what function.toml would say."""

    broker: str

    def create(self, topic: str, partitions: int = PARTITIONS) -> None: ...
    def send(self, topic: str, entries: Iterable[Entry]) -> None: ...
    def sending(self, topic: str) -> AbstractContextManager[Callable[[Iterable[Entry]], None]]:
        """To send again and again, from one thread, also while the broker is away for a while."""
        ...

    def read(self, topic: str) -> list[Record]: ...
    def scan(self, topic: str) -> Iterator[Record]:
        """What `read` gives, each partition's in order, without holding all of it."""
        ...

    def positions(self, group: str, topic: str) -> dict[int, tuple[int, int]]:
        """Partition -> the group's position, as the broker keeps it, and the offset the next record will get."""
        ...

    def counting(self, topic: str) -> AbstractContextManager[Callable[[], int]]:
        """How many records there are, cheap enough to be asked again and again."""
        ...


class EmbeddedTopics:
    """Of an engine's own log."""

    broker = "embedded"

    def __init__(self, path: Path) -> None:
        self._log = Log(path)

    def create(self, topic: str, partitions: int = PARTITIONS) -> None:
        self._log.create(topic, partitions)

    def send(self, topic: str, entries: Iterable[Entry]) -> None:
        self._log.append(topic, entries)

    @contextmanager
    def sending(self, topic: str) -> Iterator[Callable[[Iterable[Entry]], None]]:
        yield lambda entries: self.send(topic, entries)

    def read(self, topic: str) -> list[Record]:
        return list(self.scan(topic))

    def scan(self, topic: str) -> Iterator[Record]:
        for partition, end in self._log.end(topic).items():
            at = 0
            while at < end and (more := self._log.read(topic, partition, at, 10_000)):
                yield from more
                at = more[-1].offset + 1

    def positions(self, group: str, topic: str) -> dict[int, tuple[int, int]]:
        with closing(EmbeddedBroker(self._log.file.path, Stream(group, topic, topic, topic))) as broker:
            return {number: (lag.position, lag.end) for number, lag in broker.lag().items()}

    @contextmanager
    def counting(self, topic: str) -> Iterator[Callable[[], int]]:
        yield lambda: sum(self._log.end(topic).values())


class KafkaTopics:
    """Of a Kafka broker."""

    def __init__(self, server: KafkaServer) -> None:
        self._server = server
        self.broker = server.servers

    def create(self, topic: str, partitions: int = PARTITIONS) -> None:
        self._server.create(topic, partitions)

    def send(self, topic: str, entries: Iterable[Entry]) -> None:
        produce(self.broker, topic, entries)

    @contextmanager
    def sending(self, topic: str) -> Iterator[Callable[[Iterable[Entry]], None]]:
        with producing(self.broker) as send:
            yield lambda entries: send(topic, entries)

    def read(self, topic: str) -> list[Record]:
        return list(self.scan(topic))

    def scan(self, topic: str) -> Iterator[Record]:
        for r in scan(self.broker, topic):
            yield Record(r.topic, r.partition, r.offset, r.key, r.value, r.headers, r.timestamp / 1000)

    def positions(self, group: str, topic: str) -> dict[int, tuple[int, int]]:
        at = committed(self.broker, group, topic)
        return {number: (at.get(number, 0), end) for number, (_, end) in settled(self.broker, topic).items()}

    @contextmanager
    def counting(self, topic: str) -> Iterator[Callable[[], int]]:
        """Of committed records: offsets would count the ends of transactions, too."""
        found = 0

        def count() -> int:
            nonlocal found
            found += sum(map(len, consumer.poll(timeout_ms=1, max_records=100_000).values()))
            return found

        options = {"isolation_level": "read_committed", "auto_offset_reset": "earliest", "retry_backoff_ms": 10}
        with closing(KafkaConsumer(bootstrap_servers=self.broker, **options)) as consumer:
            consumer.assign([TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()])
            yield count


class Scored:
    """A function y = x * factor with a stream of its own, and what came out of it. `settings`: of its revisions, beside
    the address of its broker. `more`: the stream's, and `idle_s`."""

    def __init__(
        self,
        engine: Engine,
        topics: Topics,
        *,
        factor: float = 2.0,
        settings: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        self.engine = engine
        self.topics = topics
        name = f"f{uuid.uuid4().hex[:8]}"
        self.name = name
        self.scale = Scale(idle_s=more.pop("idle_s", 1.0))
        self.stream = StreamSpec(
            broker=topics.broker,
            output=f"{name}-out",
            dead_letter=f"{name}-dead",
            group=f"{name}-group",
            **{"input": f"{name}-in", **more},
        )
        self.settings = settings or {}
        self.factor = factor
        self.sent = 0

    def create(self, partitions: int = PARTITIONS) -> None:
        for topic in (self.stream.input, self.stream.output, self.stream.dead_letter):
            self.topics.create(topic, partitions)

    def deploy(self, factor: float | None = None, **more: Any) -> None:
        self.factor = factor or self.factor
        given: dict[str, Any] = {"stream": self.stream, "scale": self.scale, "settings": self.settings} | more
        self.revision: int = self.engine.serve(self.name, self.factor, **given)["revision"]

    def send(self, numbers: Sequence[int]) -> None:
        """One record for each number, as x and as key."""
        self.send_entries([entry(number) for number in numbers])

    def send_entries(self, entries: Sequence[Entry]) -> None:
        self.topics.send(self.stream.input, entries)
        self.sent += len(entries)

    @property
    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = self.engine.status(self.name)["functions"][0]["stream"]
        return facts

    @property
    def workers(self) -> list[int]:
        """Process ids of the living stream workers."""
        return list(self.slots.values())

    @property
    def slots(self) -> dict[int, int]:
        """Of the living stream workers: slot -> process id. One that is not born yet has none."""
        listed = self.engine.status(self.name)["functions"][0]["workers"]
        return {one["slot"]: one["pid"] for one in listed if one["role"] == "stream" and one["pid"]}

    def is_read(self) -> bool:
        """Whether everything sent was read, as the broker says."""
        partitions = self.facts["partitions"]
        return sum(one["end"] for one in partitions) == self.sent and not any(one["lag"] for one in partitions)

    def wait_for_zero(self, seconds: float = 60.0) -> None:
        """Until everything sent was read and no stream worker is left."""
        until(lambda: self.is_read() and not self.facts["workers"], f"zero workers, not {self.facts}", seconds)

    def outputs(self) -> list[Record]:
        return self.topics.read(self.stream.output)

    def dead(self) -> list[Record]:
        return self.topics.read(self.stream.dead_letter)


@pytest.fixture(params=["embedded", "kafka"])
def topics(request: pytest.FixtureRequest, engine: Engine) -> Topics:
    """Of the test's engine, and of a Kafka broker."""
    if request.param == "embedded":
        return EmbeddedTopics(engine.project.embedded_log)
    return KafkaTopics(request.getfixturevalue("kafka"))


@pytest.fixture
def scored(engine: Engine, topics: Topics) -> Scored:
    """A function that is deployed, its topics there and empty."""
    scored = Scored(engine, topics)
    scored.create()
    scored.deploy()
    return scored


def entry(number: int) -> Entry:
    return str(number).encode(), json.dumps({"x": number}).encode(), []


def sources(records: Iterable[Record]) -> list[str]:
    """The input record each output was made of, as its ce_id says."""
    return [dict(record.headers)["ce_id"].decode() for record in records]


def malformed(seed: int = 5) -> list[tuple[str, Entry]]:
    """Fifty bad records of ten kinds, each with the error code it must get."""
    draw = random.Random(seed)
    ce = [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/s"), ("ce_type", b"t")]
    structured = [("content-type", b"application/cloudevents+json")]
    kinds: list[tuple[str, bytes | None, Headers]] = [
        ("empty_value", b"", []),
        ("invalid_json", b'{"x": ', []),
        ("invalid_json", b"\xff\xfe\x00", []),
        ("wrong_type", b"[1, 2]", []),
        ("wrong_type", b'{"x": "one"}', []),
        ("missing_field", b"{}", []),
        ("unknown_field", b'{"x": 1, "z": 2}', []),
        ("missing_attribute", b'{"x": 1}', ce[:2]),
        ("unsupported_media_type", b'{"x": 1}', [*ce, ("content-type", b"text/csv")]),
        ("empty_value", b'{"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}', structured),
    ]
    bad: list[tuple[str, Entry]] = [
        (code, (f"bad-{n}".encode(), value, headers)) for n in range(5) for code, value, headers in kinds
    ]
    draw.shuffle(bad)
    return bad
