"""Readers of one group on Kafka: names that are taken over, and partitions that are kept while others come and go."""

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from tests.contract.test_brokers import copied, numbered, polled
from tests.contract.test_kafka_broker import SLACK, SOON, make_topics, wait_for
from tests.kafka_fixture import KafkaServer, produce, read_all
from tests.topics import somebody

from sunup.stream.broker import Broker, BrokerError, Reader, Record, Stream, Trouble
from sunup.stream.kafka.python import KafkaBroker

# kafka-python closes no socket that did not get to connect; they are closed when they are collected.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
SLOT = "reader"  # the name of tests.stream_reader's


@pytest.fixture(autouse=True, scope="module")
def collected() -> Iterator[None]:
    """What is not closed is collected here, so that no other module's tests are blamed."""
    yield
    gc.collect()


@pytest.fixture
def named(stream: Stream, client: Callable[[str, Stream, Reader], Broker]) -> Iterator[Callable[[str, str], Broker]]:
    """A reader of the name, exactly once; all are closed at the end."""
    brokers: list[Broker] = []

    def another(servers: str, name: str) -> Broker:
        brokers.append(client(servers, stream, Reader(name)))
        return brokers[-1]

    yield another
    for broker in brokers:
        broker.close()


def values(server: KafkaServer, stream: Stream) -> list[int]:
    return sorted(int(record.value) for record in read_all(server.servers, stream.output))


def test_whoever_replaces_a_killed_reader_goes_on_at_once(
    kafka: KafkaServer, stream: Stream, named: Callable[[str, str], Broker], tmp_path: Path
) -> None:
    """Long before the session of the dead one ends, and whatever it left half done; the output has everything once."""
    make_topics(kafka, stream)
    produce(kafka.servers, stream.input, numbered(5000))
    command = [sys.executable, "-m", "tests.stream_reader", kafka.servers, str(tmp_path), "100", *stream]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "100\n":
            assert process.poll() is None
        process.kill()
    start = time.monotonic()
    broker = named(kafka.servers, SLOT)
    broker.join(0, 1)
    records = broker.poll(SOON)
    assert records
    assert time.monotonic() < start + SLACK
    while records:
        broker.commit(copied(stream, records))
        records = broker.poll(1.0)
    assert values(kafka, stream) == list(range(5000))


def test_the_older_of_two_readers_of_one_name_is_fenced(
    kafka: KafkaServer, stream: Stream, named: Callable[[str, str], Broker]
) -> None:
    make_topics(kafka, stream)
    produce(kafka.servers, stream.input, numbered(100))
    older, newer = named(kafka.servers, "one"), named(kafka.servers, "one")
    older.join(0, 1)
    records = polled(older, 100)
    newer.join(0, 1)
    again = polled(newer, 100)
    with pytest.raises(BrokerError, match=stream.group) as caught:
        older.commit(copied(stream, records))
    assert caught.value.trouble is Trouble.FENCED
    older.close()  # takes nothing away from the newer one
    newer.commit(copied(stream, again))
    produce(kafka.servers, stream.input, numbered(10, start=100))
    newer.commit(copied(stream, polled(newer, 10)))
    assert values(kafka, stream) == list(range(110))


def test_a_reader_goes_on_while_others_come_and_go(
    kafka: KafkaServer, stream: Stream, named: Callable[[str, str], Broker]
) -> None:
    """Also while one of them does not answer the group: it has joined and does not poll, as in a long batch."""
    make_topics(kafka, stream)
    first, second = named(kafka.servers, "first"), named(kafka.servers, "second")
    found: list[Record] = []
    longest, stop = 0.0, threading.Event()

    def read() -> None:
        nonlocal longest
        last = time.monotonic()
        while not stop.is_set():
            if records := first.poll(0.1):
                first.commit(copied(stream, records))
                found.extend(records)
                longest, last = max(longest, time.monotonic() - last), time.monotonic()

    def write() -> None:
        written = 0
        while not stop.is_set():
            produce(kafka.servers, stream.input, numbered(40, start=written, keys=40))
            written += 40

    first.join(0, 1)
    produce(kafka.servers, stream.input, numbered(40))
    first.commit(copied(stream, polled(first, 40)))
    threads = [threading.Thread(target=act) for act in (read, write)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(found) > 100)
    second.join(0, 2)
    wait_for(lambda: bool(second.poll(0.1)))  # it has partitions, and a batch
    third = named(kafka.servers, "third")
    third.join(0, 3)
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:  # the second one does nothing; the group waits for it
        third.poll(0.1)
    third.close()
    second.close()
    wait_for(lambda: {record.partition for record in found[-200:]} == {0, 1, 2, 3})
    stop.set()
    for thread in threads:
        thread.join()
    assert longest < 2.5, f"the first reader had nothing for {longest:.1f} s"


def test_a_batch_in_hand_is_committed_whatever_the_group_does(
    kafka: KafkaServer, stream: Stream, exactly_once: bool
) -> None:
    """Another reader joins while a batch is scored: it is not refused, and not read twice."""
    make_topics(kafka, stream)
    produce(kafka.servers, stream.input, numbered(8000, keys=40))
    first = KafkaBroker(kafka.servers, stream, somebody(exactly_once=exactly_once))
    second = KafkaBroker(kafka.servers, stream, somebody(exactly_once=exactly_once))
    first.join(0, 1)
    records: Sequence[Record] = polled(first, 400, 400)
    second.join(0, 2)
    stop, others = threading.Event(), list[Record]()

    def read() -> None:
        while not stop.is_set():
            if more := second.poll(0.1):
                second.commit(copied(stream, more))
                others.extend(more)

    joining = threading.Thread(target=read)
    joining.start()
    done, until = 400, time.monotonic() + SOON
    while not first._member.is_joining:  # a heartbeat tells it, and the next poll joins
        assert time.monotonic() < until
        first.commit(copied(stream, records))
        records = first.poll(0.1, 50)
        done += len(records)
        time.sleep(0.05)
    assert records
    time.sleep(0.5)  # the group shares out, and has another generation than the batch in hand
    assert not others
    first.commit(copied(stream, records))
    while done + len(others) < 8000:
        assert time.monotonic() < until
        records = first.poll(0.1)
        first.commit(copied(stream, records))
        done += len(records)
    stop.set()
    joining.join()
    first.close()
    second.close()
    assert others
    assert values(kafka, stream) == list(range(8000))


def test_partitions_can_be_paused_and_are_read_later(
    kafka: KafkaServer, stream: Stream, opened: Callable[[str], KafkaBroker]
) -> None:
    make_topics(kafka, stream)
    produce(kafka.servers, stream.input, numbered(400, keys=40))
    broker = opened(kafka.servers)
    broker.join(0, 1, without=(1, 2))
    found: list[Record] = []
    while records := broker.poll(1.0 if found else SOON):
        broker.commit(copied(stream, records))
        found += records
    assert {record.partition for record in found} == {0, 3}
    other = opened(kafka.servers)  # whatever the group gives to whom, afterwards
    other.join(0, 2, without=(1, 2))
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline:
        assert not other.poll(0.1)
        assert not broker.poll(0.1)
    other.close()
    broker.join(0, 1, without=(0, 3))
    while len(found) < 400:
        assert time.monotonic() < deadline + SOON
        records = broker.poll(0.2)
        assert {record.partition for record in records} <= {1, 2}
        broker.commit(copied(stream, records))
        found += records
    assert values(kafka, stream) == list(range(400))


def test_a_reader_that_keeps_its_place_loses_nothing(
    kafka: KafkaServer, stream: Stream, opened: Callable[[str], KafkaBroker]
) -> None:
    """Longer than its session, while the group wants to share out anew; and of what was fetched before."""
    make_topics(kafka, stream)
    broker, other = opened(kafka.servers), opened(kafka.servers)
    broker.join(0, 2)
    other.join(1, 2)
    wait_for(lambda: _is_shared(broker, other))
    produce(kafka.servers, stream.input, numbered(2000, keys=40))
    records = list(broker.poll(SOON, 100))
    assert records
    until = time.monotonic() + 7.0
    other.close()
    while time.monotonic() < until:
        broker.keep()
        time.sleep(0.5)
    broker.commit(copied(stream, records))
    found = len(records)
    while found < 2000:
        assert time.monotonic() < until + SOON
        more = broker.poll(0.5)
        broker.commit(copied(stream, more))
        found += len(more)
    assert values(kafka, stream) == list(range(2000))


def _is_shared(*brokers: KafkaBroker) -> bool:
    for broker in brokers:
        assert not broker.poll(0.05)
    return all(len(broker._reader.assignment()) == 2 for broker in brokers)
