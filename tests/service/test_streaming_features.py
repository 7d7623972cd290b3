"""Stream feature views are what a batch computation of the topic gives, whatever is killed while they are made."""

import logging
import time
from pathlib import Path

import pytest
from tests.engine_fixture import Engine
from tests.exactly_once.chaos import Plan
from tests.kafka_fixture import KafkaServer
from tests.redis_fixture import RedisServer
from tests.streaming.chaos import StreamingChaos
from tests.streaming.events import Events
from tests.streaming.function import Streaming
from tests.streaming.stores import RedisStore, SqliteStore
from tests.topics import EmbeddedTopics, KafkaTopics

from sunup.settings import CONFLUENT, KAFKA_PYTHON, STREAM_CLIENT

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),  # see collect_sockets
]

PLAN = Plan(records=24_000, kills=6, seconds_max=150.0, calm=(0.7, 1.4), moment=(0.0, 0.3), head=0.5, partitions=4)
CARDS = 1500
SPAN_SECONDS = 1800.0


@pytest.fixture(autouse=True)
def no_records_of_errors(caplog: pytest.LogCaptureFixture) -> None:
    """What pytest keeps of kafka-python's log holds on to the sockets that did not get to connect."""
    caplog.set_level(logging.CRITICAL, logger="kafka")


def test_on_the_embedded_log_and_sqlite(engine: Engine, tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "online.db")
    check(Streaming(engine, EmbeddedTopics(engine.project.embedded_log), store))


@pytest.mark.parametrize("client", [CONFLUENT, KAFKA_PYTHON])
def test_on_kafka_and_redis(engine: Engine, kafka_server: KafkaServer, redis_server: RedisServer, client: str) -> None:
    store = RedisStore(redis_server.url)
    streaming = Streaming(engine, KafkaTopics(kafka_server), store, settings={STREAM_CLIENT: client})
    check(streaming, kafka_server)
    store.close()


def check(streaming: Streaming, server: KafkaServer | None = None) -> None:
    now = time.time()
    late = tuple(spec.late_s for spec in streaming.specs.values())
    events = Events(PLAN.records, CARDS, now - SPAN_SECONDS, now + 5.0, late_s=(late[0], late[1]), odd=0.02)
    chaos = StreamingChaos(streaming, events, PLAN, server)
    outcome = chaos.run()
    print(outcome.line(), chaos.expected)
    assert not outcome.faults, f"{outcome.faults}\n{chaos.account()}"
    assert outcome.kills >= PLAN.kills
    assert len(outcome.revisions) == 2
    assert chaos.expected is not None
    for batch in chaos.expected.batches.values():  # there was something to see
        counts = batch.counts()
        assert min(counts.values()) > 50, counts
