"""What people do to a stream from outside, on the embedded log and on a real Kafka."""

import gc
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType
from tests.contract.test_brokers import SOON, Place, copied, numbered, place, polled
from tests.engine_fixture import until
from tests.kafka_fixture import KafkaServer
from tests.ports import free_port
from tests.topics import somebody

from sunup.limits import EMBEDDED_PARTITIONS
from sunup.settings import EMBEDDED, STREAM_BROKER
from sunup.stream.admin import Admin
from sunup.stream.broker import Broker, BrokerError, Reader, Record, Stream, Trouble
from sunup.stream.open import open_admin, open_broker

__all__ = ["place"]
# kafka-python closes no socket that did not get to connect; they are closed when they are collected.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
ALL = range(EMBEDDED_PARTITIONS)
Opened = Callable[..., Broker]


@pytest.fixture(autouse=True)
def collected(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What is not closed is collected here, so that no other test is blamed."""
    caplog.set_level(logging.CRITICAL, "kafka")  # what pytest keeps of an error keeps the sockets it happened to
    yield
    gc.collect()


@pytest.fixture
def admin(place: Place, tmp_path: Path) -> Iterator[Admin]:
    made = open_admin(place.settings, tmp_path / "log" / "stream.db")
    yield made
    made.close()
    made.close()


@pytest.fixture(params=["exactly-once", "at-least-once"])
def opened(request: pytest.FixtureRequest, place: Place, stream: Stream, tmp_path: Path) -> Iterator[Opened]:
    """A reader of the stream that has joined; all are closed at the end."""
    brokers: list[Broker] = []

    def another(reader: Reader | None = None) -> Broker:
        reader = reader or somebody(exactly_once=request.param == "exactly-once")
        brokers.append(open_broker(place.settings, stream, tmp_path / "log" / "stream.db", reader))
        brokers[-1].join(0, 1)
        return brokers[-1]

    yield another
    for broker in brokers:
        broker.close()


def everything(admin: Admin, topic: str) -> list[Record]:
    found: list[Record] = []
    for partition, (first, _) in admin.span(topic).items():
        at = first
        while records := admin.read(topic, partition, at, 7):
            assert len(records) <= 7
            found += records
            at = records[-1].offset + 1
    return found


def soon_moved(admin: Admin, stream: Stream, positions: dict[int, int]) -> None:
    """A reader that has left may be known to its broker for a moment more."""

    def moved() -> bool:
        try:
            admin.move(stream.group, stream.input, positions)
        except BrokerError as error:
            if error.trouble is not Trouble.FENCED:
                raise
            return False
        return True

    until(moved, "the group to be empty", SOON)


def test_what_is_in_a_topic(place: Place, stream: Stream, admin: Admin) -> None:
    messages = numbered(50)
    place.write(stream.input, messages)
    spans = admin.span(stream.input)
    assert {first for first, _ in spans.values()} == {0}
    assert sum(end for _, end in spans.values()) == 50
    found = everything(admin, stream.input)
    assert sorted((record.key, record.value) for record in found) == sorted(message[:2] for message in messages)
    for number, (_, end) in spans.items():
        assert [record.offset for record in found if record.partition == number] == list(range(end))
        assert not admin.read(stream.input, number, end, 10)
        assert not admin.read(stream.input, number, end + 5, 10)
    assert sorted(map(repr, found)) == sorted(map(repr, everything(admin, stream.input)))
    place.write(stream.input, numbered(10))
    assert len(everything(admin, stream.input)) == 60


def test_where_a_moment_is(place: Place, stream: Stream, admin: Admin) -> None:
    before = time.time()
    place.write(stream.input, numbered(20))
    until(lambda: time.time() > before + 0.05, "the clock to go on")
    first = admin.span(stream.input)
    between = max(record.timestamp for record in everything(admin, stream.input)) + 0.002
    until(lambda: time.time() > between + 0.01, "the clock to go on")
    place.write(stream.input, numbered(20))
    ends = {number: end for number, (_, end) in first.items()}
    assert admin.at(stream.input, 0.0) == dict.fromkeys(ALL, 0)
    assert admin.at(stream.input, before - 60) == dict.fromkeys(ALL, 0)
    assert admin.at(stream.input, between) == ends
    later = {number: end for number, (_, end) in admin.span(stream.input).items()}
    assert admin.at(stream.input, time.time() + 60) == later != ends


def test_positions_and_a_move(place: Place, stream: Stream, admin: Admin, opened: Opened) -> None:
    place.write(stream.input, numbered(40))
    assert admin.positions(f"{stream.group}-nobody", stream.input) == {}
    broker = opened()
    records = polled(broker, 40)
    broker.commit(copied(stream, records))
    ends = {number: end for number, (_, end) in admin.span(stream.input).items()}
    assert {n: at for n, at in admin.positions(stream.group, stream.input).items() if ends[n]} == {
        number: end for number, end in ends.items() if end
    }
    with pytest.raises(BrokerError) as caught:
        admin.move(stream.group, stream.input, dict.fromkeys(ALL, 0))
    assert caught.value.trouble is Trouble.FENCED
    broker.close()
    back = {number: end // 2 for number, end in ends.items()}
    soon_moved(admin, stream, back)
    assert admin.positions(stream.group, stream.input) == back
    again = polled(opened(), sum(ends.values()) - sum(back.values()))
    assert {(each.partition, each.offset) for each in again} == {
        (number, offset) for number, end in ends.items() for offset in range(back[number], end)
    }


def test_a_group_that_never_read_can_be_placed(place: Place, stream: Stream, admin: Admin, opened: Opened) -> None:
    place.write(stream.input, numbered(40))
    ends = {number: end for number, (_, end) in admin.span(stream.input).items()}
    part = {number: end for number, end in ends.items() if number != 1}
    admin.move(stream.group, stream.input, part)
    assert admin.positions(stream.group, stream.input) == part
    assert {record.partition for record in polled(opened(), ends[1])} == {1}


def test_what_was_not_committed_is_not_moved_past(place: Place, stream: Stream, admin: Admin, opened: Opened) -> None:
    place.write(stream.input, numbered(10))
    broker = opened()
    polled(broker, 10)
    broker.close()
    assert not any(admin.positions(stream.group, stream.input).values())


def test_a_missing_topic_is_named(stream: Stream, admin: Admin) -> None:
    missing = f"{stream.input}-none"
    for ask in (lambda: admin.span(missing), lambda: admin.at(missing, 0.0), lambda: admin.read(missing, 0, 0, 1)):
        with pytest.raises(BrokerError, match=missing) as caught:
            ask()
        assert caught.value.trouble is Trouble.TOPIC_MISSING


def test_who_does_not_connect_costs_nothing(place: Place, tmp_path: Path) -> None:
    url = EMBEDDED if place.url == EMBEDDED else f"127.0.0.1:{free_port()}"
    open_admin({STREAM_BROKER: url}, tmp_path / "none" / "stream.db").close()
    assert not (tmp_path / "none").exists()


def test_no_broker_is_said_in_time() -> None:
    admin = open_admin({STREAM_BROKER: f"127.0.0.1:{free_port()}"}, Path("unused"))
    start = time.monotonic()
    with pytest.raises(BrokerError) as caught:
        admin.span("t")
    assert caught.value.trouble is Trouble.UNREACHABLE
    assert time.monotonic() - start < SOON
    admin.close()


def test_a_compacted_topic_is_made_once_and_grows(kafka: KafkaServer, stream: Stream) -> None:
    topic = f"{stream.group}-tiles"
    with closing(open_admin({STREAM_BROKER: kafka.servers}, Path("unused"))) as admin:
        for partitions in (2, 2, 3):
            admin.ensure_compacted(topic, partitions)
            assert len(admin.span(topic)) == partitions
        with pytest.raises(BrokerError, match="has 3 partitions, and what it is the changelog of has 2: delete it"):
            admin.ensure_compacted(topic, 2)
        kafka.create(stream.output, 2)
        with pytest.raises(BrokerError, match=r"cleanup\.policy delete, and has to keep the newest record of each key"):
            admin.ensure_compacted(stream.output, 2)


def test_a_compacted_topic_that_may_not_be_made_says_how_to_make_it(guarded_kafka: KafkaServer) -> None:
    guarded_kafka.create("there", 1)
    guarded_kafka.deny("DESCRIBE_CONFIGS", "there")
    guarded_kafka.deny("CREATE", "tiles")
    everything = ResourcePattern(ResourceType.CLUSTER, "kafka-cluster")
    rules = [(ACLPermissionType.ALLOW, ACLOperation.ALL), (ACLPermissionType.DENY, ACLOperation.CREATE)]
    with closing(KafkaAdminClient(bootstrap_servers=guarded_kafka.servers)) as clients:
        clients.create_acls([ACL("User:*", "*", what, permission, everything) for permission, what in rules])
        until(lambda: clients.describe_acls(ACL("User:*", "*", rules[1][1], rules[1][0], everything))[0], "the rules")
    with closing(open_admin({STREAM_BROKER: guarded_kafka.servers}, Path("unused"))) as admin:
        with pytest.raises(
            BrokerError, match=r"--create --topic tiles --partitions 3 --config cleanup\.policy=compact"
        ) as no:
            admin.ensure_compacted("tiles", 3)
        assert no.value.trouble is Trouble.NOT_PERMITTED
        admin.ensure_compacted("there", 1)  # how it is kept is not for us to see


def test_the_embedded_log_compacts_nothing(tmp_path: Path) -> None:
    admin = open_admin({STREAM_BROKER: EMBEDDED}, tmp_path / "log.db")
    with pytest.raises(BrokerError, match="compacts no topics"):
        admin.ensure_compacted("tiles", 1)
    admin.close()
