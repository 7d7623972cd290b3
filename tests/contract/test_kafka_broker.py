"""What only Kafka does: groups whose readers come, go and die, and transactions of those who write."""

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import MemberToRemove
from tests.contract.test_brokers import copied, numbered, polled
from tests.kafka_fixture import KafkaServer, produce, read_all
from tests.topics import somebody

from sunup.stream.broker import BrokerError, Stream, Trouble
from sunup.stream.kafka.python import KafkaBroker

# kafka-python closes no socket that did not get to connect; they are closed when they are collected.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
SOON = 30.0  # s until something that has to come counts as lost
SLACK = 2.0  # s a loaded machine may add to what is measured


@pytest.fixture(autouse=True, scope="module")
def collected() -> Iterator[None]:
    """What is not closed is collected here, so that no other module's tests are blamed."""
    yield
    gc.collect()


def make_topics(server: KafkaServer, stream: Stream) -> None:
    for topic in stream[1:]:
        server.create(topic)


class Reader:
    """Copies from input to output in a thread until it is told to stop; then it leaves the group."""

    def __init__(self, servers: str, stream: Stream, *, exactly_once: bool = True) -> None:
        self.count = 0
        self._broker = KafkaBroker(servers, stream, somebody(exactly_once=exactly_once))
        self._stream = stream
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self._broker.join(0, 1)
        while not self._stop.is_set():
            records = self._broker.poll(0.1)
            if records:
                self._broker.commit(copied(self._stream, records))
                self.count += len(records)
        self._broker.close()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(SOON)


def wait_for(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_readers_come_and_go_and_nothing_is_lost_or_doubled(
    kafka: KafkaServer, stream: Stream, exactly_once: bool
) -> None:
    make_topics(kafka, stream)
    written, both_read = 0, threading.Event()

    def write() -> None:
        nonlocal written
        while written < 20_000 or not both_read.is_set():  # the second one joins while there is something to read
            produce(kafka.servers, stream.input, numbered(1000, start=written, keys=50))
            written += 1000

    writing = threading.Thread(target=write)
    writing.start()
    try:
        first = Reader(kafka.servers, stream, exactly_once=exactly_once)
        wait_for(lambda: first.count > 0)
        second = Reader(kafka.servers, stream, exactly_once=exactly_once)
        wait_for(lambda: second.count > 0)
    finally:
        both_read.set()
        writing.join()
    before = second.count
    first.stop()
    produce(kafka.servers, stream.input, numbered(1000, start=written, keys=50))
    watcher = KafkaBroker(kafka.servers, stream, somebody())
    wait_for(lambda: not sum(lag.records for lag in watcher.lag().values()))
    second.stop()
    watcher.close()
    assert second.count > before
    count = written + 1000
    assert first.count + second.count == count
    copies = read_all(kafka.servers, stream.output)
    for key in range(50):
        mine = [int(record.value) for record in copies if record.key == b"key %d" % key]
        assert mine == list(range(key, count, 50))


def test_a_killed_reader_is_followed_when_its_session_ends(
    kafka: KafkaServer, stream: Stream, opened: Callable[[str], KafkaBroker], tmp_path: Path
) -> None:
    make_topics(kafka, stream)
    produce(kafka.servers, stream.input, numbered(5000))
    command = [sys.executable, "-m", "tests.stream_reader", kafka.servers, str(tmp_path), "100", *stream]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "joined\n"
        assert process.stdout.readline()
        process.kill()
    broker, done = opened(kafka.servers), 0
    broker.join(0, 1)
    start = time.monotonic()
    while sum(lag.records for lag in broker.lag().values()):
        assert time.monotonic() < start + SOON
        records = broker.poll(0.2)
        broker.commit(copied(stream, records))
        done += len(records)
    assert 0 < done < 5000
    copies = [int(record.value) for record in read_all(kafka.servers, stream.output)]
    assert set(copies) == set(range(5000))
    assert len(copies) <= 5100  # at least once: one batch may be there twice


def test_a_closed_reader_is_followed_at_once(
    kafka: KafkaServer, stream: Stream, opened: Callable[[str], KafkaBroker]
) -> None:
    make_topics(kafka, stream)
    produce(kafka.servers, stream.input, numbered(10))
    first, second = opened(kafka.servers), opened(kafka.servers)
    first.join(0, 1)
    assert len(polled(first, 10)) == 10
    start = time.monotonic()
    first.close()
    second.join(0, 1)
    assert len(polled(second, 10)) == 10  # nothing was committed
    assert time.monotonic() < start + SLACK


def test_partitions_that_are_added_are_read(
    kafka: KafkaServer, stream: Stream, opened: Callable[[str], KafkaBroker]
) -> None:
    """Also by polls so short that each ends while the reader is still joining again."""
    make_topics(kafka, stream)
    broker = opened(kafka.servers)
    broker.join(0, 1)
    produce(kafka.servers, stream.input, numbered(10))
    broker.commit(copied(stream, polled(broker, 10)))
    with KafkaAdminClient(bootstrap_servers=kafka.servers) as admin:
        admin.create_partitions({stream.input: 12})
    produce(kafka.servers, stream.input, numbered(100, keys=100))
    broker._reader._cluster.request_update()  # which it does by itself, once a minute
    deadline = time.monotonic() + SOON
    found: set[int] = set()
    while len(found) < 12:
        assert time.monotonic() < deadline, f"only {found} are read"
        found |= {record.partition for record in broker.poll(0.001)}


def test_a_reader_that_the_group_has_let_go_is_fenced(
    kafka: KafkaServer, stream: Stream, opened: Callable[[str], KafkaBroker]
) -> None:
    make_topics(kafka, stream)
    produce(kafka.servers, stream.input, numbered(10))
    broker = opened(kafka.servers)
    broker.join(0, 1)
    polled(broker, 10)
    with KafkaAdminClient(bootstrap_servers=kafka.servers) as admin:
        (member,) = admin.describe_groups([stream.group])[stream.group]["members"]
        admin.remove_group_members(stream.group, [MemberToRemove(member["member_id"])])
    with pytest.raises(BrokerError, match=stream.group) as caught:
        broker.commit([])
    assert caught.value.trouble is Trouble.FENCED


def test_markers_of_transactions_are_no_lag(
    kafka: KafkaServer, stream: Stream, opened: Callable[[str], KafkaBroker]
) -> None:
    """Each takes an offset without being a record; a position after the last record would leave a lag for ever."""
    make_topics(kafka, stream)
    producer = KafkaProducer(bootstrap_servers=kafka.servers, transactional_id=stream.group, retry_backoff_ms=10)
    producer.init_transactions()
    for number in range(4):
        producer.begin_transaction()
        for partition in range(4):
            producer.send(stream.input, b"%d" % number, partition=partition)
        producer.flush()
        if number == 3:
            producer.abort_transaction()
        else:
            producer.commit_transaction()
    producer.close()
    broker, watcher = opened(kafka.servers), opened(kafka.servers)
    broker.join(0, 1)
    records = polled(broker, 12)
    assert {record.value for record in records} == {b"0", b"1", b"2"}
    broker.commit(copied(stream, records))
    deadline = time.monotonic() + SOON
    while sum(lag.records for lag in watcher.lag().values()):
        assert time.monotonic() < deadline
        assert not broker.poll(0.2)
