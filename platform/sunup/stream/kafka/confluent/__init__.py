"""Kafka with confluent-kafka, which is librdkafka: several times as fast as kafka-python, and with traps of its own."""
