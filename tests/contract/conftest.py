"""Fixtures shared by this folder."""

from tests.redis_fixture import redis_server, redis_url

__all__ = ["redis_server", "redis_url"]
