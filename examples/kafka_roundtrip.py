"""Payments into a Kafka topic, scores out of another one: what programs around a function do, with any Kafka client.

infra/kafka.sh run /tmp/kafka 9092 &           # or any Kafka you have
export KAFKA_BOOTSTRAP=127.0.0.1:9092
python -m functions.fraud.train                # once; `make demo` has done it
platform deploy fraud@champion                 # its [stream] says env:KAFKA_BOOTSTRAP, and names the topics
python examples/kafka_roundtrip.py
"""

import json
import os
import sys
import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

servers = os.environ.get("KAFKA_BOOTSTRAP") or sys.exit("Set KAFKA_BOOTSTRAP to host:port of a Kafka broker.")
with KafkaAdminClient(bootstrap_servers=servers) as admin:
    if missing := {"transactions", "fraud-scores", "fraud-dead"} - set(admin.list_topics()):
        admin.create_topics({topic: {"num_partitions": 4} for topic in missing}, wait_for_metadata=True)

consumer = KafkaConsumer(bootstrap_servers=servers)
outputs = ["fraud-scores", "fraud-dead"]
consumer.assign([TopicPartition(topic, n) for topic in outputs for n in consumer.partitions_for_topic(topic)])
consumer.seek_to_end()
for partition in consumer.assignment():
    consumer.position(partition)  # the end as it is now, before anything is sent

payment = {"card_id": 7, "customer_id": 5, "merchant_id": 12, "amount": 24.9, "hour": 13.5, "km_from_home": 3.2}
values = [json.dumps({**payment, "card_id": card}).encode() for card in range(5)] + [b'{"card_id": "seven"}']
producer = KafkaProducer(bootstrap_servers=servers)
sent = [producer.send("transactions", key=b"card-%d" % n, value=value) for n, value in enumerate(values)]
waiting = {f"{at.topic}-{at.partition}-{at.offset}" for at in (future.get(timeout=10) for future in sent)}

deadline = time.monotonic() + 30
while waiting and time.monotonic() < deadline:
    for record in (record for batch in consumer.poll(timeout_ms=500).values() for record in batch):
        headers = {name: value.decode() for name, value in record.headers}
        # A score says which record it is of; a dead letter is that record again, with the reason in its headers.
        id = headers.get("ce_id") or "-".join(headers[f"sunup_{part}"] for part in ("topic", "partition", "offset"))
        if id in waiting:
            waiting.remove(id)
            print(record.topic, record.key.decode(), record.value.decode(), json.dumps(headers, indent=2))
producer.close()
consumer.close()
sys.exit(f"No score came for {sorted(waiting)}; see: platform stream status fraud" if waiting else 0)
