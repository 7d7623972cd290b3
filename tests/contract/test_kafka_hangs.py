"""What a broker that hangs or dies in the middle of transactions leaves behind: nothing, in the end."""

import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition, errors
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata
from tests.contract.test_brokers import copied, numbered
from tests.contract.test_kafka_broker import SOON, make_topics
from tests.kafka_fixture import KafkaServer, produce, read_all
from tests.topics import somebody

from sunup.stream.broker import Reader, Stream
from sunup.stream.kafka.once.watchdog import EXIT
from sunup.stream.kafka.python import KafkaBroker

# kafka-python closes no socket that did not get to connect; they are closed when they are collected.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
BOUND = 3.0  # s the watchdog gives, in the test
# A reader whose client waits without an end, as kafka-python's transactions do; only the watchdog is left.
ENDLESS = f"""
import runpy, sys
from sunup import limits
limits.STREAM_BROKER_SECONDS_MAX, limits.STREAM_TRANSACTION_SECONDS_MAX = 1000.0, {BOUND}
runpy.run_module("tests.stream_reader", run_name="__main__")
"""
PRODUCERS = 10
SECONDS = 2.0  # s until the broker ends a transaction by itself
QUICK = {"transaction_abort_timed_out_transaction_cleanup_interval_ms": 200}  # it looks every 10 s by default


@pytest.fixture(autouse=True)
def collected(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What is not closed is collected here, so that no other test is blamed."""
    caplog.set_level(logging.CRITICAL, "kafka")  # what pytest keeps of an error keeps the sockets it happened to
    yield
    gc.collect()


def test_a_reader_whose_broker_hangs_in_a_commit_ends_and_another_one_goes_on(
    kafka_server: KafkaServer, stream: Stream, tmp_path: Path
) -> None:
    make_topics(kafka_server, stream)
    produce(kafka_server.servers, stream.input, numbered(4000))
    command = [sys.executable, "-c", ENDLESS, kafka_server.servers, str(tmp_path), "20", *stream]
    assert kafka_server._process is not None
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "20\n":
            assert process.poll() is None
        os.kill(kafka_server._process.pid, signal.SIGSTOP)
        start = time.monotonic()
        try:
            assert process.wait(SOON) == EXIT
            assert time.monotonic() < start + BOUND + 2.0
        finally:
            process.kill()
            os.kill(kafka_server._process.pid, signal.SIGCONT)
    broker = KafkaBroker(kafka_server.servers, stream, Reader("reader"))
    broker.join(0, 1)
    until = time.monotonic() + SOON
    while sum(lag.records for lag in broker.lag().values()):
        assert time.monotonic() < until
        broker.commit(copied(stream, broker.poll(0.5)))
    broker.close()
    copies = sorted(int(record.value) for record in read_all(kafka_server.servers, stream.output))
    assert copies == list(range(4000))


def test_the_next_batch_is_fetched_while_one_is_scored(kafka_server: KafkaServer, stream: Stream) -> None:
    """It is there although the broker says nothing any more. One fetch of a partition is 1 MiB."""
    make_topics(kafka_server, stream)
    produce(kafka_server.servers, stream.input, [(b"k", bytes(100_000), [])] * 40)
    broker = KafkaBroker(kafka_server.servers, stream, somebody(exactly_once=True))
    broker.join(0, 1)
    first = broker.poll(SOON, 100)
    assert 0 < len(first) < 20
    time.sleep(1.0)  # the time of scoring
    assert kafka_server._process is not None
    os.kill(kafka_server._process.pid, signal.SIGSTOP)
    try:
        second = broker.poll(1.0, 100)
    finally:
        os.kill(kafka_server._process.pid, signal.SIGCONT)
    assert [record.offset for record in second][:1] == [first[-1].offset + 1]
    broker.commit(copied(stream, [*first, *second]))
    broker.close()


def test_a_broker_that_is_killed_leaves_no_transaction_open(stream: Stream, tmp_path: Path) -> None:
    """Of Kafka itself, of the version that is pinned: later ones leave most of them open for ever, and then nobody can
    read on. A version is adopted when it passes this."""
    server = KafkaServer(tmp_path, **QUICK)
    server.start()
    try:
        make_topics(server, stream)
        _transactions_until_it_dies(server, stream)
        server.start()
        _wait_until_all_is_ended(server, stream)
    finally:
        server.kill()


def _transactions_until_it_dies(server: KafkaServer, stream: Stream) -> None:
    producers = [
        KafkaProducer(
            bootstrap_servers=server.servers,
            transactional_id=f"{stream.group}-{number}",
            transaction_timeout_ms=int(SECONDS * 1000),
            retry_backoff_ms=2,
        )
        for number in range(PRODUCERS)
    ]
    stop, threads = threading.Event(), list[threading.Thread]()
    for number, producer in enumerate(producers):
        producer.init_transactions()
        threads.append(threading.Thread(target=_transact, args=(producer, number, stream, stop)))
        threads[-1].start()
    time.sleep(0.5)  # of transactions one after the other, so that it dies in the middle of some
    server.kill()
    stop.set()
    for producer, thread in zip(producers, threads, strict=True):
        producer._sender.force_close()
        thread.join(SOON)
        producer.close(1.0)


def _transact(producer: Any, number: int, stream: Stream, stop: threading.Event) -> None:
    manager, group = producer._transaction_manager, f"{stream.group}-{number}"
    position = 0
    while not stop.is_set():
        try:
            producer.begin_transaction()
            for partition in range(4):
                producer.send(stream.output, b"v", partition=partition)
            position += 1
            where = {TopicPartition(stream.input, 0): OffsetAndMetadata(position, "", -1)}
            sent = manager.send_offsets_to_transaction(where, ConsumerGroupMetadata(group))
            producer._sender.wakeup()
            if not sent.wait(1000):
                return
            if number == 0 and position > 3:
                stop.wait()  # one that is open when it dies
            ended = manager.begin_commit()
            producer._sender.wakeup()
            if not ended.wait(1000):
                return
        except errors.KafkaError:
            return


def _wait_until_all_is_ended(server: KafkaServer, stream: Stream) -> None:
    """Whoever reads committed records gets to the end, and every group's position is known."""
    until = time.monotonic() + SOON
    partitions = [TopicPartition(stream.output, number) for number in range(4)]
    ends = {}
    for level in ("read_uncommitted", "read_committed"):
        reader = KafkaConsumer(bootstrap_servers=server.servers, isolation_level=level, retry_backoff_ms=10)
        ends[level] = reader.end_offsets(partitions)
        while level == "read_committed" and not all(
            reader.end_offsets(partitions)[each] >= end for each, end in ends["read_uncommitted"].items()
        ):
            assert time.monotonic() < until, "a transaction holds its readers up"
            time.sleep(0.05)
        reader.close()
    for number in range(PRODUCERS):
        member = KafkaConsumer(
            bootstrap_servers=server.servers,
            group_id=f"{stream.group}-{number}",
            isolation_level="read_committed",
            enable_auto_commit=False,
            retry_backoff_ms=10,
        )
        member.committed(TopicPartition(stream.input, 0), timeout_ms=10_000)  # raises while a position is not known
        member.close()
