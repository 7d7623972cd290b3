"""Fixtures shared by this folder."""

from tests.moderate_fixture import moderate, moderate_pictures
from tests.redis_fixture import redis_server, redis_url

__all__ = ["moderate", "moderate_pictures", "redis_server", "redis_url"]
