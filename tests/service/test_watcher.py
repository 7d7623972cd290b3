"""The watcher of many streams: what it takes of the machine, and what becomes of it."""

import os
import signal
from pathlib import Path

import pytest
from tests.engine_fixture import Engine, until
from tests.kafka_fixture import KafkaServer
from tests.topics import KafkaTopics, Scored

from sunup.limits import STREAM_WATCHERS_MAX

STREAMS = 16
pytestmark = pytest.mark.timeout(180)


def test_many_streams_of_one_broker_are_watched_by_few_threads_and_it_may_die(
    engine: Engine, kafka: KafkaServer
) -> None:
    streams = [Scored(engine, KafkaTopics(kafka)) for _ in range(STREAMS)]
    for one in streams:
        one.create(2)
        one.deploy()
    for one in streams:
        until(lambda one=one: len(one.facts["partitions"]) == 2, "its partitions")  # type: ignore[misc]
    watcher = engine.pids()["watcher"]
    threads, sockets = _threads(watcher), _sockets(watcher)
    print(f"{STREAMS} streams: {threads} threads, {sockets} sockets, {_busy(watcher)} s of CPU")
    assert threads <= STREAM_WATCHERS_MAX + 8
    assert sockets < 20
    os.kill(watcher, signal.SIGKILL)
    until(lambda: engine.pids().get("watcher") not in (None, 0, watcher), "another watcher")
    for one in streams:
        one.send(range(5))
    for one in streams:
        one.wait_for_zero()
        assert len(one.outputs()) == 5


def _threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def _sockets(pid: int) -> int:
    return sum(os.readlink(path).startswith("socket:") for path in Path(f"/proc/{pid}/fd").iterdir())


def _busy(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
