"""Floor: a stream scored by hand with kafka-python: poll a batch, read its features, run the model, write, commit.

Arguments: MODEL REDIS_URL SERVERS INPUT OUTPUT GROUP FORM. FORM "same": outputs are what Sunup's are, headers included;
"bare": key and value only. At least once; no error is handled, no record set aside, no rebalance noticed.
"""

import gc
import sys

from kafka import KafkaConsumer, KafkaProducer
from kafka.structs import OffsetAndMetadata
from tests.bench.floor.stream_headers import headers, stamp
from tests.bench.floor.stream_scoring import Scorer

BATCH = 1000


def main() -> None:
    model, redis_url, servers, source, target, group, form = sys.argv[1:]
    scorer = Scorer(model, redis_url)
    consumer = KafkaConsumer(
        source,
        bootstrap_servers=servers,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        max_poll_records=BATCH,
        fetch_max_bytes=16 * 1024**2,
        retry_backoff_ms=10,
        metrics_enabled=False,
    )
    producer = KafkaProducer(
        bootstrap_servers=servers,
        acks="all",
        batch_size=128 * 1024,
        linger_ms=100,  # a flush ends it
        retry_backoff_ms=10,
        metrics_enabled=False,
    )
    gc.freeze()
    while True:
        found = consumer.poll(timeout_ms=200, max_records=BATCH)
        records = [record for several in found.values() for record in several]
        if not records:
            continue
        values, time = scorer.score([record.value for record in records]), stamp()
        if form == "same":
            sent = [
                producer.send(target, value, r.key, headers(source, r.partition, r.offset, time))
                for r, value in zip(records, values, strict=True)
            ]
        else:
            sent = [producer.send(target, value, r.key) for r, value in zip(records, values, strict=True)]
        producer.flush()
        for future in sent:
            future.get(10)
        consumer.commit({place: OffsetAndMetadata(consumer.position(place), "", -1) for place in found})


if __name__ == "__main__":
    main()
