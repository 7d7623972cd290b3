"""What goes wrong with a real broker is a state anybody can read, and passes by itself."""

import time
from pathlib import Path

import pytest
from tests.engine_fixture import Engine, until
from tests.kafka_fixture import KafkaServer
from tests.service.test_cli import platform
from tests.service.test_stream import Flow, check_nothing_lost
from tests.topics import KafkaTopics, Scored

RECOVERY_SECONDS = 60.0

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def scored(engine: Engine, kafka_server: KafkaServer) -> Scored:
    """A function whose topics are not there yet."""
    return Scored(engine, KafkaTopics(kafka_server))


def wait_for(scored: Scored, state: str) -> str:
    """Until the stream is in this state; the reason it gives."""
    until(lambda: scored.facts["state"] == state, f"{state}, not {scored.facts}", RECOVERY_SECONDS)
    reason: str = scored.facts.get("reason", "")
    return reason


def test_a_broker_that_is_down_at_first(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "kafka").mkdir()
    server = KafkaServer(tmp_path / "kafka")
    scored = Scored(engine, KafkaTopics(server))
    scored.deploy()
    assert server.servers in wait_for(scored, "unreachable")
    assert not scored.workers
    server.start()
    try:
        scored.create()
        wait_for(scored, "idle")
        scored.send(range(100))
        scored.wait_for_zero()
        assert check_nothing_lost(scored, 100) == 0
    finally:
        server.kill()


def test_a_broker_that_is_lost_in_the_middle(scored: Scored, kafka_server: KafkaServer) -> None:
    scored.create()
    scored.deploy()
    with Flow(scored) as flow:
        until(lambda: scored.facts["scored"] > 500, "records scored")
    kafka_server.kill()
    assert kafka_server.servers in wait_for(scored, "unreachable")
    shown = platform(scored.engine.project.root, "status").out
    assert "unreachable" in shown
    assert kafka_server.servers in shown
    began = time.monotonic()
    kafka_server.start()
    scored.send(range(flow.sent, flow.sent + 100))
    scored.wait_for_zero()
    doubled = check_nothing_lost(scored, flow.sent + 100)
    print(f"scored again {time.monotonic() - began:.1f} s after the start of the broker, {doubled} outputs doubled")
    assert (
        "unreachable"
        in (scored.engine.project.logs / f"{scored.name}.log").read_text()
        + (scored.engine.project.logs / "watcher.log").read_text()
    )


def test_topics_that_are_missing(scored: Scored) -> None:
    names = (scored.stream.input, scored.stream.output, scored.stream.dead_letter)
    scored.deploy()
    for name in names:
        reason = wait_for(scored, "topic-missing")
        assert name in reason
        assert "--create" in reason
        scored.topics.create(name)
        until(lambda name=name: name not in scored.facts.get("reason", ""), f"{name} to be seen")  # type: ignore[misc]
    wait_for(scored, "idle")
    scored.send(range(10))
    scored.wait_for_zero()
    assert check_nothing_lost(scored, 10) == 0


def test_too_few_partitions_are_told_and_enough(engine: Engine, kafka_server: KafkaServer) -> None:
    scored = Scored(engine, KafkaTopics(kafka_server), max_workers=3)
    scored.create(1)
    scored.send(range(25_000))
    scored.deploy()
    until(lambda: "note" in scored.facts, "the note")
    assert "1 partition" in scored.facts["note"]
    assert "max_workers = 3" in scored.facts["note"]
    scored.wait_for_zero()
    assert check_nothing_lost(scored, 25_000) == 0


@pytest.mark.parametrize(("operation", "topic"), [("WRITE", "output"), ("READ", "input"), ("DESCRIBE", "input")])
def test_a_right_that_is_missing(engine: Engine, guarded_kafka: KafkaServer, operation: str, topic: str) -> None:
    scored = Scored(engine, KafkaTopics(guarded_kafka))
    scored.create()
    name = getattr(scored.stream, topic)
    scored.send(range(100))
    guarded_kafka.deny(operation, name)
    scored.deploy()
    reason = wait_for(scored, "not-permitted")
    assert name in reason
    guarded_kafka.allow(operation, name)
    scored.wait_for_zero()
    assert check_nothing_lost(scored, 100) == 0
    assert scored.facts["last_error"]["message"] == reason
