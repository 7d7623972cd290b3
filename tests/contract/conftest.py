"""Fixtures shared by this folder."""

from tests.kafka_fixture import kafka, kafka_server
from tests.redis_fixture import redis_server, redis_url

__all__ = ["kafka", "kafka_server", "redis_server", "redis_url"]
