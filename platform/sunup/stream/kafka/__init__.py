"""Kafka as the broker of a stream: a file for each client, one contract."""
