"""The proof can fail: with positions outside of the transaction, the same ledger finds records doubled or lost."""

import json
import signal
import subprocess
import sys
import uuid

import pytest
from tests.exactly_once.ledger import Faults, Ledger, entries, tell
from tests.kafka_fixture import KafkaServer
from tests.topics import KafkaTopics

from sunup.settings import CONFLUENT, KAFKA_PYTHON, STREAM_BROKER, STREAM_CLIENT
from sunup.stream.broker import Stream

RECORDS = 3000
MOMENTS_MS = (0, 2, 4, 8)  # each a life that ends so long after its second commit began; one after them ends by itself
LIVES = len(MOMENTS_MS)
SECONDS_MAX = 60.0

pytestmark = pytest.mark.timeout(180)


def copied(server: KafkaServer, way: str, **more: str) -> Faults:
    """What came of some records that a reader of this way copied, which was killed and started again and again."""
    topics, settings = KafkaTopics(server), {STREAM_BROKER: server.servers, **more}
    name = uuid.uuid4().hex[:8]
    stream = Stream(f"{name}-group", f"{name}-in", f"{name}-out", f"{name}-dead")
    for topic in stream[1:]:
        topics.create(topic)
    topics.send(stream.input, (one for one, _ in entries(range(RECORDS))))
    for *dying, code in [*((2, after, -signal.SIGKILL) for after in MOMENTS_MS), (0, 0, 0)]:
        command = [sys.executable, "-m", "tests.exactly_once.reader", way, *map(str, dying), json.dumps(settings)]
        ran = subprocess.run([*command, *stream], check=False, timeout=SECONDS_MAX)
        assert ran.returncode == code, f"{way}, to die at {dying}"
    positions = topics.positions(stream.group, stream.input)
    assert all(position == end for position, end in positions.values()), positions
    return tell(Ledger({1: 1.0}), *(topics.scan(topic) for topic in stream[1:]))


def test_positions_after_the_transaction_double_records(kafka: KafkaServer) -> None:
    faults = copied(kafka, "after")
    print(faults)
    assert len(faults.doubled) >= LIVES
    assert not faults.lost


def test_positions_before_the_transaction_lose_records(kafka: KafkaServer) -> None:
    faults = copied(kafka, "before")
    print(faults)
    assert len(faults.lost) >= LIVES
    assert not faults.doubled


@pytest.mark.parametrize("client", [KAFKA_PYTHON, CONFLUENT])
def test_positions_in_the_transaction_do_neither(kafka: KafkaServer, client: str) -> None:
    assert not copied(kafka, "as-it-is", **{STREAM_CLIENT: client})
