"""Fixtures shared by this folder."""

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from tests.postgres_fixture import postgres, postgres_server
from tests.redis_fixture import redis_server, redis_url
from tests.redis_topologies import redis_cluster, redis_secured, redis_sentinels
from tests.topics import somebody

from sunup.stream.broker import Broker, Reader, Stream
from sunup.stream.kafka.python import KafkaBroker

__all__ = [
    "postgres",
    "postgres_server",
    "redis_cluster",
    "redis_secured",
    "redis_sentinels",
    "redis_server",
    "redis_url",
]


@pytest.fixture
def stream() -> Stream:
    name = uuid4().hex[:8]
    return Stream(f"group-{name}", f"in-{name}", f"out-{name}", f"dead-{name}")


@pytest.fixture(params=[True, False], ids=["exactly-once", "at-least-once"])
def exactly_once(request: pytest.FixtureRequest) -> bool:
    once: bool = request.param
    return once


@pytest.fixture
def client() -> Callable[[str, Stream, Reader], Broker]:
    """What makes a broker of Kafka. tests.contract.test_confluent has another one, and the same tests."""
    return KafkaBroker


@pytest.fixture
def opened(
    stream: Stream, exactly_once: bool, client: Callable[[str, Stream, Reader], Broker]
) -> Iterator[Callable[[str], Broker]]:
    """An object for the stream; all are closed at the end."""
    brokers: list[Broker] = []

    def another(servers: str) -> Broker:
        brokers.append(client(servers, stream, somebody(exactly_once=exactly_once)))
        return brokers[-1]

    yield another
    for broker in brokers:
        broker.close()
