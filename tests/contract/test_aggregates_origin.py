"""A topic that is not the one the tiles were made of, though it has its name: they begin empty, and that is told."""

import time
from contextlib import closing

import pytest
from tests.aggregate_place import PARTITIONS, Place, on_kafka, read
from tests.aggregating import Reference, Told, drawn, turn
from tests.kafka_fixture import KafkaServer

from sunup.stream.embedded import Log

__all__ = ["on_kafka"]  # a fixture
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


def begins_empty(place: Place, machine: str) -> None:
    """What the place's topic holds is aggregated as if there had been nothing before it, and that is told."""
    told = Told()
    place.send(drawn(900, 20, time.time(), seed=2))
    broker, made = place.broker(), place.aggregates(machine, told=told)
    seen: dict[tuple[int, int], object] = {}
    until = time.monotonic() + 30
    while len(seen) < 900:
        seen |= {(record.partition, record.offset): before for record, before in turn(broker, made)}
        assert time.monotonic() < until
    made.close()
    broker.close()
    with closing(place.admin()) as admin:
        assert seen == Reference(admin, place.stream.input).before
    assert len(told.notes) == 1
    assert "another topic than the one its features were made of" in told.notes[0]


@pytest.mark.parametrize("machine", ["one", "two"])
def test_a_topic_made_anew_is_another_one(on_kafka: Place, machine: str) -> None:
    """`machine`: who goes on, with the file or with nothing but the changelog."""
    place, topic = on_kafka, on_kafka.stream.input
    assert place.server is not None
    place.send(drawn(300, 20, time.time()))
    broker, made = place.broker(), place.aggregates()
    read(broker, made, 300)
    made.close()
    broker.close()
    with closing(place.admin()) as admin:
        origin = admin.origin(topic)
        place.server.delete(topic)
        place.server.create(topic, PARTITIONS)
        assert origin.startswith("topic:")
        assert admin.origin(topic) not in ("", origin)
    begins_empty(place, machine)


def test_a_topic_of_another_broker_is_another_one(on_kafka: Place, kafka_server: KafkaServer) -> None:
    place, name = on_kafka, on_kafka.folder
    place.send(drawn(300, 20, time.time()))
    broker, made = place.broker(), place.aggregates()
    read(broker, made, 300)
    made.close()
    broker.close()
    other = Place(name, kafka_server)
    other.stream, other.changelog = place.stream, place.changelog
    for topic in place.stream[1:]:
        kafka_server.create(topic, PARTITIONS)
    begins_empty(other, "one")
    log = Place(name, None)
    log.stream = place.stream
    Log(log.log).create(place.stream.input, PARTITIONS)
    begins_empty(log, "one")
