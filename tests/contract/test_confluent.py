"""Kafka with confluent-kafka: what kafka-python is tested for too, and librdkafka's own traps."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.contract import test_kafka_broker as groups
from tests.contract import test_kafka_failures as failures
from tests.contract import test_kafka_group as names
from tests.contract.test_brokers import copied, numbered, polled
from tests.contract.test_kafka_broker import make_topics
from tests.contract.test_kafka_group import named
from tests.kafka_fixture import KafkaServer, committed, produce, read_all
from tests.topics import somebody

from sunup.settings import CONFLUENT, KAFKA_CLIENT
from sunup.stream.broker import Broker, BrokerError, Reader, Record, Stream, Trouble
from sunup.stream.kafka.confluent.broker import ConfluentBroker
from sunup.stream.kafka.python import KafkaBroker

# kafka-python closes no socket that did not get to connect; they are closed when they are collected.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
__all__ = ["named"]
SOON = 60.0  # s until something that has to come counts as lost

test_a_closed_reader_is_followed_at_once = groups.test_a_closed_reader_is_followed_at_once
test_markers_of_transactions_are_no_lag = groups.test_markers_of_transactions_are_no_lag
test_a_broker_that_dies_is_noticed_and_found_again = failures.test_a_broker_that_dies_is_noticed_and_found_again
test_a_missing_topic_is_said_until_it_is_made = failures.test_a_missing_topic_is_said_until_it_is_made
test_a_record_too_large_for_its_topic_is_said = failures.test_a_record_too_large_for_its_topic_is_said
test_what_is_not_permitted_is_said = failures.test_what_is_not_permitted_is_said_with_what_to_grant
test_whoever_replaces_a_killed_reader_goes_on_at_once = names.test_whoever_replaces_a_killed_reader_goes_on_at_once
test_the_older_of_two_readers_of_one_name_is_fenced = names.test_the_older_of_two_readers_of_one_name_is_fenced
test_a_reader_goes_on_while_others_come_and_go = names.test_a_reader_goes_on_while_others_come_and_go
test_partitions_can_be_paused_and_are_read_later = names.test_partitions_can_be_paused_and_are_read_later
test_a_reader_that_keeps_its_place_loses_nothing = names.test_a_reader_that_keeps_its_place_loses_nothing


@pytest.fixture
def client() -> Callable[[str, Stream, Reader], Broker]:
    return ConfluentBroker


@pytest.fixture(autouse=True)
def programs_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What tests.stream_reader reads with."""
    monkeypatch.setenv(KAFKA_CLIENT, CONFLUENT)


def values(server: KafkaServer, stream: Stream) -> list[int]:
    return sorted(int(record.value) for record in read_all(server.servers, stream.output))


def test_a_batch_in_hand_is_committed_whatever_the_group_does(
    kafka: KafkaServer, stream: Stream, opened: Callable[[str], Broker]
) -> None:
    """Another reader joins while a batch is scored: the group has another generation, and the partitions are kept."""
    make_topics(kafka, stream)
    produce(kafka.servers, stream.input, numbered(8000, keys=40))
    first, second = opened(kafka.servers), opened(kafka.servers)
    first.join(0, 1)
    stop, others, done = threading.Event(), list[Record](), 0

    def read() -> None:
        while not stop.is_set():
            if more := second.poll(0.1):
                second.commit(copied(stream, more))
                others.extend(more)

    records = first.poll(SOON, 50)
    assert records
    joining = threading.Thread(target=read)
    joining.start()
    time.sleep(2.0)  # heartbeats tell the first reader, which joins again behind its own back
    assert not others
    until = time.monotonic() + SOON
    while done + len(others) + len(records) < 8000 or records:
        assert time.monotonic() < until
        first.commit(copied(stream, records))
        done += len(records)
        records = first.poll(0.1, 50)
    stop.set()
    joining.join()
    assert others
    assert values(kafka, stream) == list(range(8000))


def test_no_group_mixes_clients(kafka: KafkaServer, stream: Stream, exactly_once: bool) -> None:
    """Whoever comes with the other client is told so, and reads on once the others have left."""
    make_topics(kafka, stream)
    produce(kafka.servers, stream.input, numbered(100))
    clients: list[Callable[[str, Stream, Reader], Broker]] = [KafkaBroker, ConfluentBroker, KafkaBroker]
    here: Broker | None = None
    for turn, client in enumerate(clients):
        if here is not None:
            for _ in range(2):
                there = client(kafka.servers, stream, somebody(exactly_once=exactly_once))
                with pytest.raises(BrokerError, match="another client") as caught:
                    polled(there, 1)
                assert caught.value.trouble is Trouble.FENCED
                there.close()
            here.close()
        here = client(kafka.servers, stream, somebody(exactly_once=exactly_once))
        here.join(0, 1)
        here.commit(copied(stream, polled(here, 100)))
        produce(kafka.servers, stream.input, numbered(100, start=100 * (turn + 1)))
    assert here is not None
    here.close()
    assert values(kafka, stream) == list(range(300))


def test_brokers_that_crash_under_load_lose_and_double_nothing(
    kafka_server: KafkaServer, stream: Stream, tmp_path: Path
) -> None:
    """Readers that give up are replaced, as a supervisor does; those that hang end themselves."""
    make_topics(kafka_server, stream)
    servers = kafka_server.servers
    command = [sys.executable, "-m", "tests.stream_reader", servers, str(tmp_path), "50", *stream]
    stop, ends = threading.Event(), list[int]()

    def supervise() -> None:
        while not stop.is_set():
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=dict(os.environ)) as process:
                while process.poll() is None:
                    if stop.wait(0.05):
                        process.kill()
            ends.append(process.returncode)

    produce(servers, stream.input, numbered(8_000, keys=50))
    supervisor = threading.Thread(target=supervise)
    supervisor.start()
    try:
        for _ in range(2):
            before = _read(servers, stream)
            until = time.monotonic() + SOON
            while _read(servers, stream) < before + 500:
                assert time.monotonic() < until, f"nothing goes on; readers ended with {ends}"
                time.sleep(0.05)
            kafka_server.kill()
            kafka_server.start()
        until = time.monotonic() + 2 * SOON
        while len(read_all(servers, stream.output)) < 8_000:
            assert time.monotonic() < until, f"nothing goes on; readers ended with {ends}"
            time.sleep(0.2)
    finally:
        stop.set()
        supervisor.join()
    copies = read_all(servers, stream.output)
    assert sorted(int(record.value) for record in copies) == list(range(8_000))
    for key in range(50):
        mine = [int(record.value) for record in copies if record.key == b"key %d" % key]
        assert mine == sorted(mine)


def _read(servers: str, stream: Stream) -> int:
    return sum(committed(servers, stream.group, stream.input).values())
