"""Stream workers that die and that nobody replaces: their group does not wait for them."""

import os
import signal
from collections.abc import Iterator
from contextlib import closing

import pytest
from kafka import KafkaAdminClient
from tests.engine_fixture import Engine, until
from tests.kafka_fixture import KafkaServer
from tests.service.test_cli import platform
from tests.topics import KafkaTopics, Scored

from sunup.serve.streams.names import place, reader_name
from sunup.settings import CONFLUENT, KAFKA_PYTHON, STREAM_CLIENT

RECORDS = 25_000  # so that there are two workers
SOON = 4.0  # s; sessions end after 6 s (kafka-python) or 30 s (confluent-kafka)
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(params=[KAFKA_PYTHON, CONFLUENT])
def scored(engine: Engine, kafka: KafkaServer, request: pytest.FixtureRequest) -> Iterator[Scored]:
    """A function with two workers, each of which reads two partitions; all is read."""
    settings = {STREAM_CLIENT: request.param}
    scored = Scored(engine, KafkaTopics(kafka), max_workers=2, idle_s=60.0, settings=settings)
    scored.create()
    scored.send(range(RECORDS))
    scored.deploy()
    until(lambda: scored.is_read() and sorted(_reads(scored)) == [2, 2], f"two readers, not {scored.facts}")
    yield scored
    platform(engine.project.root, "stream", "pause", scored.name)  # else it has its workers for a minute


def test_a_worker_that_dies_with_the_supervisor(scored: Scored) -> None:
    """The new supervisor adopts the other one, which is enough for what there is to read."""
    engine, slots = scored.engine, scored.slots
    os.kill(engine.pids()["supervisor"], signal.SIGKILL)
    os.kill(slots[1], signal.SIGKILL)
    until(lambda: engine.running() is None, "the supervisor to be gone")
    engine.up()
    scored.send(range(400))
    took = until(scored.is_read, f"all to be read, not {scored.facts}", SOON)
    print(f"the other worker had all partitions {took:.2f} s after the supervisor was there")
    assert scored.slots == {0: slots[0]}, "nobody was born in its place"
    until(lambda: _dismissed(scored, 1), "the watcher to say so")
    platform(engine.project.root, "stream", "pause", scored.name)
    scored.send(range(RECORDS))
    platform(engine.project.root, "stream", "resume", scored.name)
    until(lambda: scored.is_read() and sorted(_reads(scored)) == [2, 2], f"two readers again, not {scored.facts}")
    assert len(scored.outputs()) == 2 * RECORDS + 400


def test_a_worker_that_dies_while_it_should_end(scored: Scored) -> None:
    """It is not heard, so it does not leave; and nobody follows."""
    killed = scored.slots[1]
    os.kill(killed, signal.SIGSTOP)
    try:
        platform(scored.engine.project.root, "stream", "pause", scored.name)
        until(lambda: list(scored.slots) == [1], "the other one to end")
        assert _members(scored) == [_name(scored, 1)]
    finally:
        os.kill(killed, signal.SIGKILL)
    took = until(lambda: not _members(scored), "nobody to be waited for", SOON)
    print(f"its place was free {took:.2f} s after its death")
    until(lambda: _dismissed(scored, 1), "the watcher to say so")


def _reads(scored: Scored) -> list[int]:
    """How many partitions each worker has."""
    readers = [one["worker"] for one in scored.facts["partitions"]]
    return [readers.count(name) for name in set(readers) - {None}]


def _name(scored: Scored, slot: int) -> str:
    return reader_name(scored.name, slot, place(scored.engine.project.run))


def _dismissed(scored: Scored, slot: int) -> bool:
    """Not the session's end, but the watcher."""
    log = (scored.engine.project.logs / "watcher.log").read_text()
    return f"not waited for any longer: {_name(scored, slot)}" in log


def _members(scored: Scored) -> list[str]:
    with closing(KafkaAdminClient(bootstrap_servers=scored.topics.broker)) as admin:
        group = scored.stream.group
        return sorted(each["group_instance_id"] for each in admin.describe_groups([group])[group]["members"])
