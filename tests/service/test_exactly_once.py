"""Every record of a topic is scored exactly once, whatever is killed meanwhile, and bad ones are dead letters once."""

import logging

import pytest
from tests.engine_fixture import Engine
from tests.exactly_once.chaos import Chaos, Plan
from tests.kafka_fixture import KafkaServer
from tests.topics import EmbeddedTopics, KafkaTopics, Scored

from sunup.settings import CONFLUENT, KAFKA_PYTHON, STREAM_CLIENT

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),  # see collect_sockets
]

SMALL = Plan(
    records=90_000, kills=8, seconds_max=90.0, calm=(0.3, 0.8), moment=(0.0, 0.2), bad=0.01, head=0.6, partitions=4
)
LARGE = Plan(records=100_000, kills=9, seconds_max=240.0, calm=(0.7, 1.4), bad=0.01)


@pytest.fixture(autouse=True)
def no_records_of_errors(caplog: pytest.LogCaptureFixture) -> None:
    """What pytest keeps of kafka-python's log holds on to the sockets that did not get to connect."""
    caplog.set_level(logging.CRITICAL, logger="kafka")


def test_on_the_embedded_log(engine: Engine) -> None:
    scored = Scored(engine, EmbeddedTopics(engine.project.embedded_log), guarantee="exactly-once")
    check(Chaos(scored, SMALL))


@pytest.mark.parametrize("client", [KAFKA_PYTHON, CONFLUENT])
def test_on_kafka(engine: Engine, kafka_server: KafkaServer, client: str) -> None:
    topics, settings = KafkaTopics(kafka_server), {STREAM_CLIENT: client}
    scored = Scored(engine, topics, guarantee="exactly-once", max_workers=LARGE.workers, settings=settings)
    check(Chaos(scored, LARGE, kafka_server))


def check(chaos: Chaos) -> None:
    outcome = chaos.run()
    print(outcome.line())
    assert not outcome.faults, f"{outcome.faults}\n{chaos.account()}"
    assert outcome.kills >= chaos.plan.kills
    assert len(outcome.revisions) == 2
    assert outcome.letters == chaos.plan.bad * chaos.plan.records
