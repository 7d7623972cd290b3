"""What goes wrong with Kafka, and is said: brokers that die, missing topics and permissions, large records."""

import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from tests.contract.test_brokers import copied, numbered, polled
from tests.contract.test_kafka_broker import make_topics
from tests.kafka_fixture import KafkaServer, produce, read_all
from tests.topics import somebody

from sunup import limits
from sunup.limits import STREAM_BROKER_SECONDS_MAX
from sunup.stream.broker import Broker, BrokerError, Output, Reader, Stream, Trouble

# kafka-python closes no socket that did not get to connect; they are closed when they are collected.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
SOON = 30.0  # s until something that has to come counts as lost
SLACK = 2.0  # s a loaded machine may add to what is measured


@pytest.fixture(autouse=True)
def collected(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What is not closed is collected here, so that no other test is blamed."""
    caplog.set_level(logging.CRITICAL, "kafka")  # what pytest keeps of an error keeps the sockets it happened to
    yield
    gc.collect()


def troubles(*acts: Callable[[], object]) -> list[tuple[Trouble, str]]:
    """The error that comes of each, sooner or later; all are tried at the same time."""
    found: dict[int, tuple[Trouble, str]] = {}

    def repeat(number: int) -> None:
        deadline = time.monotonic() + SOON
        while number not in found and time.monotonic() < deadline:
            try:
                acts[number]()
            except BrokerError as error:
                found[number] = (error.trouble, error.message)

    threads = [threading.Thread(target=repeat, args=(number,)) for number in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[number] for number in range(len(acts))]


def test_a_broker_that_dies_is_noticed_and_found_again(
    kafka_server: KafkaServer, stream: Stream, exactly_once: bool, client: Callable[[str, Stream, Reader], Broker]
) -> None:
    servers, output = kafka_server.servers, [Output(stream.output, b"k", b"v", [])]
    make_topics(kafka_server, stream)
    produce(servers, stream.input, numbered(100))
    gc.collect()
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    brokers = [
        client(servers, stream._replace(group=group), somebody(exactly_once=exactly_once))
        for group in ("idle", "busy", "looks", "new", "newer")
    ]
    idle, busy, looks, new, newer = brokers
    idle.join(0, 1)
    busy.join(0, 1)
    idle.commit(copied(stream, polled(idle, 100)))
    busy.commit(output)
    assert sum(lag.records for lag in looks.lag().values()) == 100
    kafka_server.kill()
    start = time.monotonic()
    found = troubles(lambda: idle.poll(0.2), lambda: busy.commit(output), looks.lag, new.lag, lambda: newer.join(0, 1))
    assert time.monotonic() - start < STREAM_BROKER_SECONDS_MAX + SLACK
    for what, message in found:
        assert what is Trouble.UNREACHABLE
        assert servers in message
    start = time.monotonic()
    for broker in brokers:
        broker.close()
    assert time.monotonic() - start < STREAM_BROKER_SECONDS_MAX
    gc.collect()
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before

    kafka_server.start()
    produce(servers, stream.input, numbered(10, start=100))
    again = client(servers, stream._replace(group="idle"), somebody(exactly_once=exactly_once))
    assert sum(lag.records for lag in again.lag().values()) == 10
    again.close()
    again = client(
        servers, stream._replace(group="later"), somebody(exactly_once=exactly_once)
    )  # whose session need not end first
    again.join(0, 1)
    again.commit(copied(stream, polled(again, 110)))
    again.close()
    values = [record.value for record in read_all(servers, stream.output) if record.value != b"v"]
    assert sorted(map(int, values)) == sorted([*range(100), *range(110)])


def test_a_missing_topic_is_said_until_it_is_made(
    kafka: KafkaServer, stream: Stream, opened: Callable[[str], Broker]
) -> None:
    servers = kafka.servers
    watcher, reader, writer = opened(servers), opened(servers), opened(servers)
    create = f"kafka-topics.sh --bootstrap-server {servers} --create --topic {stream.input} --partitions 4"
    message = f"topic {stream.input} does not exist at {servers}; create it, for example: {create}"
    output = [Output(stream.output, b"k", b"v", [])]
    acts: list[Callable[[], object]] = [watcher.lag, lambda: reader.poll(0.2), lambda: writer.commit(output)]
    assert troubles(*acts) == [(Trouble.TOPIC_MISSING, message)] * 3
    with KafkaAdminClient(bootstrap_servers=servers) as admin:
        assert not set(stream) & set(admin.list_topics())  # looking for them has not made them
    reader.close()
    make_topics(kafka, stream)
    assert len(watcher.lag()) == 4
    later = opened(servers)
    later.join(0, 1)
    produce(servers, stream.input, numbered(10))
    later.commit(copied(stream, polled(later, 10)))
    kafka.delete(stream.input)
    assert troubles(watcher.lag, lambda: later.poll(0.2)) == [(Trouble.TOPIC_MISSING, message)] * 2


def test_a_record_too_large_for_its_topic_is_said(
    kafka: KafkaServer, stream: Stream, opened: Callable[[str], Broker]
) -> None:
    make_topics(kafka, stream)
    broker = opened(kafka.servers)
    with pytest.raises(BrokerError, match=r"max\.message\.bytes") as caught:
        broker.commit([Output(stream.output, b"k", bytes(2_000_000), [])])
    assert caught.value.trouble is Trouble.FAILED


def test_what_is_not_permitted_is_said_with_what_to_grant(
    guarded_kafka: KafkaServer, stream: Stream, opened: Callable[[str], Broker]
) -> None:
    make_topics(guarded_kafka, stream)
    produce(guarded_kafka.servers, stream.input, numbered(10))
    guarded_kafka.deny("WRITE", stream.output)
    writer = opened(guarded_kafka.servers)
    writer.join(0, 1)
    outputs = polled(writer, 10)
    with pytest.raises(BrokerError, match=f"grant WRITE on topic {stream.output}") as caught:
        writer.commit(copied(stream, outputs))
    assert caught.value.trouble is Trouble.NOT_PERMITTED
    writer.close()
    guarded_kafka.allow("WRITE", stream.output)
    again = opened(guarded_kafka.servers)
    again.join(0, 1)
    again.commit(copied(stream, polled(again, 10)))
    again.close()
    guarded_kafka.deny("READ", stream.input)
    reader = opened(guarded_kafka.servers)
    guarded_kafka.deny("DESCRIBE", stream.dead_letter)
    watcher = opened(guarded_kafka.servers)
    read, write = troubles(lambda: reader.poll(0.2), watcher.lag)
    assert read == (
        Trouble.NOT_PERMITTED,
        f"not permitted at {guarded_kafka.servers}: grant READ on topic {stream.input}",
    )
    assert write[0] is Trouble.NOT_PERMITTED
    assert write[1].endswith(f"grant WRITE on topic {stream.dead_letter}")


def test_a_transaction_that_nobody_ends_is_told(
    kafka: KafkaServer, stream: Stream, opened: Callable[[str], Broker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whoever looks, and by the reader; only where nothing else is to be read, and not before its time."""
    make_topics(kafka, stream)
    somebody_else = KafkaProducer(bootstrap_servers=kafka.servers, transactional_id=stream.input, retry_backoff_ms=10)
    somebody_else.init_transactions()
    somebody_else.begin_transaction()
    somebody_else.send(stream.input, b"never", partition=2).get(SOON)
    produce(kafka.servers, stream.input, numbered(10, keys=40))
    watcher, reader = opened(kafka.servers), opened(kafka.servers)
    reader.join(0, 1)
    assert watcher.lag()[2].end == 0
    readable = sum(lag.records for lag in watcher.lag().values())
    reader.commit(copied(stream, polled(reader, readable)))
    assert not reader.poll(3.0)  # it may still be ended
    monkeypatch.setattr(limits, "STREAM_HELD_UP_SECONDS", 1.0)
    for what, message in troubles(watcher.lag, lambda: reader.poll(0.2)):
        assert what is Trouble.FAILED
        assert f"{stream.input}-2 cannot be read from offset 0 on" in message
        assert "a transaction that was never ended holds it up" in message
        assert "kafka-transactions.sh" in message
    reader.close()
    somebody_else.abort_transaction()
    somebody_else.close()
    again = opened(kafka.servers)
    again.join(0, 1)
    again.commit(copied(stream, polled(again, 10 - readable)))
    deadline = time.monotonic() + SOON
    while sum(lag.records for lag in watcher.lag().values()):  # with the markers
        assert time.monotonic() < deadline
        again.poll(0.2)
