"""Readers that are known to be dead are not waited for, and what they left half done is ended."""

import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.structs import OffsetAndMetadata
from tests.contract.test_brokers import copied, numbered, polled
from tests.contract.test_kafka_broker import make_topics
from tests.kafka_fixture import KafkaServer, produce, read_all

from sunup.settings import CONFLUENT, KAFKA_PYTHON
from sunup.stream.broker import Reader, Stream
from sunup.stream.kafka.clients import READER
from sunup.stream.kafka.confluent.broker import ConfluentBroker
from sunup.stream.kafka.onlooker import KafkaWatch
from sunup.stream.kafka.python import KafkaBroker

# kafka-python closes no socket that did not get to connect; they are closed when they are collected.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
DEAD, LIVING = "dead", "living"
SOON = 5.0  # s; the dead one's session would last for half a minute, its transaction for a minute


@pytest.fixture
def watch(kafka: KafkaServer) -> Iterator[KafkaWatch]:
    with closing(KafkaWatch(kafka.servers)) as watch:
        yield watch


def test_a_dead_reader_is_forgotten_with_what_it_left_half_done(
    kafka: KafkaServer, stream: Stream, watch: KafkaWatch
) -> None:
    make_topics(kafka, stream)
    produce(kafka.servers, stream.input, numbered(400))
    producer = _half_done(kafka, stream)
    broker = KafkaBroker(kafka.servers, stream, Reader(LIVING))
    try:
        broker.join(0, 1)
        assert not broker.poll(1.0), "the group waits for the dead one"
        start = time.monotonic()
        assert list(watch.dismiss(stream, lambda name: name == DEAD)) == [DEAD]
        records = polled(broker, 400)
        took = time.monotonic() - start
        print(f"read {took:.2f} s after it was dismissed")
        assert took < SOON
        broker.commit(copied(stream, records))
        assert not watch.dismiss(stream, lambda name: name == DEAD), "it is not there any more"
        produce(kafka.servers, stream.input, numbered(10, start=400))
        broker.commit(copied(stream, polled(broker, 10)))  # whoever lives was not taken for dead
    finally:
        broker.close()
        producer.close(0)
    assert sorted(int(record.value) for record in read_all(kafka.servers, stream.output)) == list(range(410))


@pytest.mark.parametrize("client", [KAFKA_PYTHON, CONFLUENT])
def test_a_reader_that_left_is_not_found(kafka: KafkaServer, stream: Stream, watch: KafkaWatch, client: str) -> None:
    assert not watch.dismiss(stream, lambda _: True), "nobody ever joined"
    make_topics(kafka, stream)
    produce(kafka.servers, stream.input, numbered(10))
    broker = (ConfluentBroker if client == CONFLUENT else KafkaBroker)(kafka.servers, stream, Reader(LIVING))
    with closing(broker):
        broker.join(0, 1)
        broker.commit(copied(stream, polled(broker, 10)))
        assert not watch.dismiss(stream, lambda name: name != LIVING)
    assert not watch.dismiss(stream, lambda _: True)


def _half_done(kafka: KafkaServer, stream: Stream) -> KafkaProducer:
    """The place of a member that had all partitions, and its transaction with a record and a position, left open."""
    settings = {**READER, "session_timeout_ms": 30_000, "group_instance_id": DEAD}
    consumer = KafkaConsumer(stream.input, bootstrap_servers=kafka.servers, group_id=stream.group, **settings)
    producer = KafkaProducer(
        bootstrap_servers=kafka.servers, transactional_id=f"{stream.group}-{DEAD}", transaction_timeout_ms=60_000
    )
    found: dict[object, list[object]] = {}
    deadline = time.monotonic() + 20.0
    while not found:
        assert time.monotonic() < deadline
        found = consumer.poll(timeout_ms=200)
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(stream.output, b"-1")
    positions = {place: OffsetAndMetadata(consumer.position(place), "", -1) for place in consumer.assignment()}
    producer.send_offsets_to_transaction(positions, consumer.group_metadata())
    producer.flush()
    consumer.close(autocommit=False)  # which leaves no place of a fixed name
    return producer
