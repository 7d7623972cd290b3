"""Floor: a stream scored by hand with confluent-kafka: take a batch, read its features, run the model, write, commit.

Arguments: MODEL REDIS_URL SERVERS INPUT OUTPUT GROUP FORM. FORM "same": outputs are what Sunup's are, headers included;
"bare": key and value only. At least once; no error is handled, no record set aside, no rebalance noticed.
"""

import gc
import sys
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from tests.bench.floor.stream_headers import headers, stamp
from tests.bench.floor.stream_scoring import Scorer

BATCH = 1000


def main() -> None:
    model, redis_url, servers, source, target, group, form = sys.argv[1:]
    scorer = Scorer(model, redis_url)
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "retry.backoff.ms": 10,
        }
    )
    producer = Producer(
        {"bootstrap.servers": servers, "enable.idempotence": True, "linger.ms": 5, "retry.backoff.ms": 10}
    )
    consumer.subscribe([source])
    failed: list[Any] = []
    told = lambda error, _: failed.append(error) if error else None  # noqa: E731
    gc.freeze()
    while True:
        messages = consumer.consume(BATCH, 0.02)
        if not messages:
            continue
        values, time = scorer.score([message.value() for message in messages]), stamp()
        ends: dict[int, int] = {}
        produce = producer.produce
        for message, value in zip(messages, values, strict=True):
            partition, offset = message.partition(), message.offset()
            ends[partition] = offset + 1
            if form == "same":
                produce(
                    target, value, message.key(), on_delivery=told, headers=headers(source, partition, offset, time)
                )
            else:
                produce(target, value, message.key(), on_delivery=told)
        producer.flush()
        if failed:
            raise RuntimeError(failed[0])
        places = [TopicPartition(source, partition, end) for partition, end in ends.items()]
        consumer.commit(offsets=places, asynchronous=False)


if __name__ == "__main__":
    main()
