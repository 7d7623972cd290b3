"""Floor: a topic consumed, and nothing done with it.

Arguments: CLIENT SERVERS TOPIC COUNT WAY. WAY "raw": batches are taken and counted; "json": every record is decoded,
too. Prints records/s from the first batch to the last of COUNT records, the first not counted: who fetches ahead has
made it before it was looked for.
"""

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

BATCH = 1000


def confluent(servers: str, topic: str) -> Iterator[list[Any]]:
    """Values of batches, without end."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition  # this or the other one

    settings = {"group.id": "floor", "enable.auto.commit": False, "isolation.level": "read_committed"}
    consumer = Consumer({"bootstrap.servers": servers, **settings})
    partitions = consumer.list_topics(topic, 10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
    while True:
        yield consumer.consume(BATCH, 0.2)


def kafka_python(servers: str, topic: str) -> Iterator[list[Any]]:
    """The same."""
    from kafka import KafkaConsumer, TopicPartition  # this or the other one

    consumer = KafkaConsumer(
        bootstrap_servers=servers,
        enable_auto_commit=False,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        max_poll_records=BATCH,
        fetch_max_bytes=16 * 1024**2,
        metrics_enabled=False,
    )
    consumer.assign([TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()])
    while True:
        found = consumer.poll(timeout_ms=200, max_records=BATCH)
        yield [record for several in found.values() for record in several]


def main() -> None:
    client, servers, topic, count, way = sys.argv[1:]
    batches = confluent(servers, topic) if client == "confluent-kafka" else kafka_python(servers, topic)
    value: Callable[[Any], bytes] = (lambda m: m.value()) if client == "confluent-kafka" else (lambda m: m.value)
    decode, first, done = msgspec.json.Decoder().decode, None, 0
    for batch in batches:
        if way == "json":
            for message in batch:
                decode(value(message))
        done += len(batch)
        if batch and first is None:
            first = time.perf_counter(), done
        if done >= int(count):
            break
    assert first is not None
    print((done - first[1]) / (time.perf_counter() - first[0]))


if __name__ == "__main__":
    main()
