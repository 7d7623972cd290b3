"""What every broker promises its stream, on the embedded log and, with each client, on a real Kafka."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest
from tests.kafka_fixture import KafkaServer, Message, produce, read_marked
from tests.ports import free_port
from tests.topics import somebody

from sunup.limits import EMBEDDED_PARTITIONS, STREAM_BATCH_RECORDS_MAX
from sunup.settings import CONFLUENT, EMBEDDED, KAFKA_PYTHON, STREAM_BROKER, STREAM_CLIENT
from sunup.stream.broker import Broker, Lag, Output, Record, Stream
from sunup.stream.embedded import Log
from sunup.stream.open import open_broker

# kafka-python closes no socket that did not get to connect; they are closed when they are collected.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
SOON = 20.0  # s until something that has to come counts as lost
SLACK = 1.0  # s a loaded machine may add to what is measured


class Place(Protocol):
    """A broker of one kind, as those who write records and read predictions see it. `settings`: a revision's."""

    url: str
    settings: dict[str, str]

    def write(self, topic: str, messages: Sequence[Message]) -> None: ...
    def read(self, topic: str) -> list[Any]: ...


class Embedded:
    def __init__(self, path: Path) -> None:
        self.url = EMBEDDED
        self.settings = {STREAM_BROKER: self.url}
        self._log = Log(path)

    def write(self, topic: str, messages: Sequence[Message]) -> None:
        self._log.append(topic, messages)

    def read(self, topic: str) -> list[Any]:
        return [each for number, end in self._log.end(topic).items() for each in self._log.read(topic, number, 0, end)]


class Kafka:
    def __init__(self, server: KafkaServer, client: str) -> None:
        self.url = server.servers
        self.settings = {STREAM_BROKER: self.url, STREAM_CLIENT: client}

    def write(self, topic: str, messages: Sequence[Message]) -> None:
        produce(self.url, topic, messages)

    def read(self, topic: str) -> list[Any]:
        return read_marked(self.url, topic)


@pytest.fixture(params=[EMBEDDED, KAFKA_PYTHON, CONFLUENT])
def place(request: pytest.FixtureRequest, tmp_path: Path, stream: Stream) -> Place:
    if request.param == EMBEDDED:
        return Embedded(tmp_path / "log" / "stream.db")
    server: KafkaServer = request.getfixturevalue("kafka")
    for topic in stream[1:]:
        server.create(topic, EMBEDDED_PARTITIONS)
    return Kafka(server, request.param)


@pytest.fixture
def opened(place: Place, stream: Stream, tmp_path: Path, exactly_once: bool) -> Iterator[Callable[[], Broker]]:
    """Another object for the same stream; all are closed at the end."""
    brokers: list[Broker] = []

    def another() -> Broker:
        who = somebody(exactly_once=exactly_once)
        brokers.append(open_broker(place.settings, stream, tmp_path / "log" / "stream.db", who))
        return brokers[-1]

    yield another
    for broker in brokers:
        broker.close()


def polled(broker: Broker, count: int, records_max: int = STREAM_BATCH_RECORDS_MAX) -> list[Record]:
    """Poll until so many records have come."""
    found: list[Record] = []
    deadline = time.monotonic() + SOON
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} records came"
        found += broker.poll(0.2, records_max)
    assert len(found) == count
    return found


def copied(stream: Stream, records: Sequence[Record]) -> list[Output]:
    return [Output(stream.output, record.key, record.value, record.headers) for record in records]


def of_key(records: Sequence[Any], key: bytes) -> list[bytes | None]:
    return [record.value for record in records if record.key == key]


def numbered(count: int, start: int = 0, keys: int = 10) -> list[Message]:
    return [(b"key %d" % (number % keys), b"%d" % number, []) for number in range(start, start + count)]


def test_records_come_as_they_were_written(place: Place, stream: Stream, opened: Callable[[], Broker]) -> None:
    headers = [("trace", b"\x00\xff"), ("käse", b""), ("trace", b"again")]
    messages: list[Message] = [
        (b"a", b"1", headers),
        (b"a", b"2", []),
        (b"a", None, []),
        (None, b"no key", []),
        (b"b", b"", []),
    ]
    before = time.time()
    place.write(stream.input, messages)
    broker = opened()
    broker.join(0, 1)
    records = polled(broker, len(messages))
    assert of_key(records, b"a") == [b"1", b"2", None]
    assert of_key(records, b"b") == [b""]
    assert [record.value for record in records if record.key is None] == [b"no key"]
    assert [list(record.headers) for record in records if record.headers] == [headers]
    assert {record.topic for record in records} == {stream.input}
    assert all(before - SLACK <= record.timestamp <= time.time() + SLACK for record in records)
    assert sorted(record.offset for record in records if record.key == b"a") == [0, 1, 2]


def test_order_holds_within_a_partition(place: Place, stream: Stream, opened: Callable[[], Broker]) -> None:
    for start in range(0, 3000, 1000):
        place.write(stream.input, numbered(3000)[start : start + 1000])
    broker = opened()
    broker.join(0, 1)
    records: list[Record] = []
    while len(records) < 3000:
        batch = broker.poll(SOON)
        assert batch
        broker.commit(copied(stream, batch))
        records += batch
    for key in range(10):
        in_order = [b"%d" % number for number in range(key, 3000, 10)]
        assert of_key(records, b"key %d" % key) == in_order
        assert of_key(place.read(stream.output), b"key %d" % key) == in_order
    for partition in range(EMBEDDED_PARTITIONS):
        offsets = [record.offset for record in records if record.partition == partition]
        assert offsets == list(range(len(offsets)))


def test_what_is_not_committed_comes_again(place: Place, stream: Stream, opened: Callable[[], Broker]) -> None:
    place.write(stream.input, numbered(20))
    first = opened()
    first.join(0, 1)
    records = polled(first, 20)
    assert not first.poll(0.3)
    first.close()
    second = opened()
    second.join(0, 1)
    again = polled(second, 20)
    assert sorted(again) == sorted(records)
    assert not place.read(stream.output)


def test_a_commit_writes_and_moves(place: Place, stream: Stream, opened: Callable[[], Broker]) -> None:
    place.write(stream.input, [(b"k", b"one", [])])
    broker = opened()
    broker.join(0, 1)
    polled(broker, 1)
    scores = [(b"k", b"score", [("id", b"1")]), (b"k", None, []), (None, b"no key", [])]
    dead = Output(stream.dead_letter, None, None, [("sunup_error_code", b"bad")])
    broker.commit([Output(stream.output, *scores[0]), dead, *(Output(stream.output, *each) for each in scores[1:])])
    written = place.read(stream.output)
    assert of_key(written, b"k") == [b"score", None]
    assert [list(record.headers) for record in written if record.headers] == [[("id", b"1")]]
    (letter,) = place.read(stream.dead_letter)
    assert Output(stream.dead_letter, letter.key, letter.value, list(letter.headers)) == dead
    assert not broker.poll(0.3)
    broker.close()
    place.write(stream.input, [(b"k", b"two", [])])
    later = opened()
    later.join(0, 1)
    assert [record.value for record in polled(later, 1)] == [b"two"]


def test_lag_counts_and_ends_at_nothing(place: Place, stream: Stream, opened: Callable[[], Broker]) -> None:
    watcher, reader = opened(), opened()
    assert watcher.lag() == dict.fromkeys(range(EMBEDDED_PARTITIONS), Lag(0, 0))
    place.write(stream.input, numbered(100))
    assert sum(lag.records for lag in watcher.lag().values()) == 100
    reader.join(0, 1)
    assert len(polled(reader, 100)) == 100  # whoever looks at the lag takes no partition away
    assert sum(lag.records for lag in watcher.lag().values()) == 100
    reader.commit([])
    deadline = time.monotonic() + SOON  # a transaction's positions are seen from outside once its markers are written
    while sum(lag.records for lag in watcher.lag().values()):
        assert time.monotonic() < deadline
    place.write(stream.input, numbered(7))
    assert sum(lag.records for lag in watcher.lag().values()) == 7
    assert sum(lag.end for lag in watcher.lag().values()) == 107
    assert watcher.lag() == reader.lag()


def test_two_readers_share(place: Place, stream: Stream, opened: Callable[[], Broker]) -> None:
    place.write(stream.input, numbered(4000, keys=40))
    readers = [opened(), opened()]
    found: list[list[Record]] = [[], []]

    def read(index: int) -> None:
        broker = readers[index]
        broker.join(index, 2)
        deadline = time.monotonic() + SOON
        while sum(map(len, found)) < 4000 and time.monotonic() < deadline:
            if records := broker.poll(0.1):
                broker.commit(copied(stream, records))
                found[index] += records

    threads = [threading.Thread(target=read, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    places = [(record.partition, record.offset) for one in found for record in one]
    assert len(places) == len(set(places)) == 4000
    assert sorted(int(record.value) for record in place.read(stream.output)) == list(range(4000))
    deadline = time.monotonic() + SOON
    while sum(lag.records for lag in readers[0].lag().values()):
        assert time.monotonic() < deadline


def test_a_batch_is_bounded(place: Place, stream: Stream, opened: Callable[[], Broker]) -> None:
    place.write(stream.input, numbered(2 * STREAM_BATCH_RECORDS_MAX + 1))
    broker = opened()
    broker.join(0, 1)
    sizes: list[int] = []
    while sum(sizes) < 2 * STREAM_BATCH_RECORDS_MAX + 1:
        sizes.append(len(broker.poll(SOON)))
        broker.commit([])
    assert max(sizes) <= STREAM_BATCH_RECORDS_MAX


def test_poll_waits_as_long_as_it_was_told(place: Place, stream: Stream, opened: Callable[[], Broker]) -> None:
    place.write(stream.input, numbered(1))
    broker = opened()
    broker.join(0, 1)
    polled(broker, 1)
    broker.commit([])
    for seconds in (0.0, 0.3):
        start = time.monotonic()
        assert not broker.poll(seconds)
        assert seconds - 0.01 <= time.monotonic() - start <= seconds + SLACK
    writing = threading.Timer(0.1, place.write, (stream.input, numbered(1)))
    writing.start()
    start = time.monotonic()
    assert polled(broker, 1)
    assert time.monotonic() - start < SOON / 4
    writing.join()


def test_closing_is_always_possible(place: Place, stream: Stream, opened: Callable[[], Broker], tmp_path: Path) -> None:
    place.write(stream.input, numbered(3))
    broker = opened()
    broker.join(0, 1)
    polled(broker, 3)
    broker.close()
    broker.close()
    opened().close()
    url = EMBEDDED if isinstance(place, Embedded) else f"127.0.0.1:{free_port()}"
    open_broker({**place.settings, STREAM_BROKER: url}, stream, tmp_path / "none" / "stream.db").close()
    assert not (tmp_path / "none").exists()  # making an object connects to nothing


def test_any_thread_may_use_it(place: Place, stream: Stream, opened: Callable[[], Broker]) -> None:
    place.write(stream.input, numbered(5))
    broker = opened()
    found: list[Record] = []
    steps: list[Callable[[], object]] = [
        lambda: broker.join(0, 1),
        lambda: found.extend(polled(broker, 5)),
        lambda: broker.commit(copied(stream, found)),
        broker.lag,
        broker.close,
    ]
    for step in steps:
        thread = threading.Thread(target=step)
        thread.start()
        thread.join()
    assert len(place.read(stream.output)) == 5


def test_a_large_value(place: Place, stream: Stream, opened: Callable[[], Broker]) -> None:
    value = bytes(range(250)) * 2000
    place.write(stream.input, [(b"k", value, [])] * 3)
    broker = opened()
    broker.join(0, 1)
    records = polled(broker, 3)
    assert [record.value for record in records] == [value] * 3
    broker.commit(copied(stream, records))
    assert of_key(place.read(stream.output), b"k") == [value] * 3
