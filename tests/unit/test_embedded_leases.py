"""Who may read what of the embedded log: shares, leases of the silent, the stopped and the killed, kill -9."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.engine_fixture import until
from tests.unit.test_embedded_log import STREAM, everything, numbers

from sunup import limits
from sunup.clock import ManualClock
from sunup.settings import EMBEDDED
from sunup.stream.broker import Broker, BrokerError, Output, Reader, Trouble
from sunup.stream.embedded import EmbeddedBroker, Log

SOON = 20.0  # s until something that has to happen counts as lost


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stream.db"


def reading(path: Path, clock: ManualClock | None = None, index: int = 0, count: int = 1) -> EmbeddedBroker:
    broker = EmbeddedBroker(path, STREAM, clock=clock)
    broker.join(index, count)
    return broker


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@contextmanager
def reader_process(path: Path, batch: int = 1000) -> Iterator["subprocess.Popen[str]"]:
    """Another process that copies from in to out; it has joined."""
    command = [sys.executable, "-m", "tests.stream_reader", EMBEDDED, str(path), str(batch), *STREAM]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert said(process) == "joined"
        yield process
        process.kill()


def test_a_reader_gives_up_what_is_no_longer_its_own(path: Path) -> None:
    log = Log(path)
    log.append("in", numbers(100, keys=50))
    first, second = reading(path), reading(path, index=1, count=2)
    assert not second.poll(0)
    assert len(first.poll(0)) == 100
    first.join(0, 2)  # in the middle of a batch, which stays its own
    assert not second.poll(0)
    first.commit([])
    assert not first.poll(0)
    assert not second.poll(0)
    log.append("in", numbers(100, start=100, keys=50))
    mine, other = first.poll(0), second.poll(0)
    assert {record.partition for record in mine} == {0, 2}
    assert {record.partition for record in other} == {1, 3}
    assert len(mine) + len(other) == 100
    first.commit([])
    second.commit([])
    second.close()
    first.join(0, 1)
    log.append("in", numbers(100, start=200, keys=50))
    assert len(first.poll(0)) == 100
    first.close()
    log.close()


def test_a_silent_reader_is_fenced(path: Path) -> None:
    log, clock = Log(path), ManualClock(now=1000.0)
    log.append("in", numbers(10))
    first, second = reading(path, clock), reading(path, clock)
    records = first.poll(0)
    clock.advance(limits.EMBEDDED_LEASE_SECONDS - 0.1)
    assert not second.poll(0)
    clock.advance(0.2)
    assert second.poll(0) == records
    with pytest.raises(BrokerError, match="another process of group reads partition") as caught:
        first.commit([Output("out", b"k", b"v", [])])
    assert caught.value.trouble is Trouble.FENCED
    first.close()
    second.commit([])
    assert everything(log, "out") == []
    second.close()
    log.close()


def test_a_reader_that_polls_keeps_its_lease(path: Path) -> None:
    log, clock = Log(path), ManualClock(now=1000.0)
    log.append("in", numbers(10))
    first, second = reading(path, clock), reading(path, clock)
    assert len(first.poll(0)) == 10
    first.commit([])
    for _ in range(10):
        clock.advance(limits.EMBEDDED_LEASE_SECONDS / 2)
        assert not first.poll(0)
        assert not second.poll(0)
    log.append("in", numbers(5))
    assert not second.poll(0)
    assert len(first.poll(0)) == 5
    first.close()
    assert len(second.poll(0)) == 5
    second.close()
    log.close()


def test_a_lease_from_before_the_machine_started_does_not_hold(path: Path) -> None:
    first = reading(path, ManualClock(now=1e9))
    Log(path).append("in", numbers(10))
    second = reading(path, ManualClock(now=5.0))
    assert len(second.poll(0)) == 10
    second.close()
    first.close()


def test_whoever_has_the_same_name_takes_over_at_once(path: Path) -> None:
    log, clock = Log(path), ManualClock(now=1000.0)
    log.append("in", numbers(10))
    first = EmbeddedBroker(path, STREAM, Reader("f-0"), clock)
    first.join(0, 1)
    assert len(first.poll(0)) == 10
    other = EmbeddedBroker(path, STREAM, Reader("f-1"), clock)
    other.join(0, 1)
    assert not other.poll(0)
    second = EmbeddedBroker(path, STREAM, Reader("f-0", exactly_once=False), clock)
    second.join(0, 1)
    assert len(second.poll(0)) == 10
    with pytest.raises(BrokerError) as caught:
        first.commit([Output("out", b"k", b"first", [])])
    assert caught.value.trouble is Trouble.FENCED
    first.close()  # which releases nothing that is another one's
    assert not other.poll(0)
    second.commit([Output("out", b"k", b"second", [])])
    assert [record.value for record in everything(log, "out")] == [b"second"]
    for each in (second, other, log):
        each.close()


def test_a_lease_of_an_older_version_holds(path: Path) -> None:
    log = Log(path)
    log.append("in", numbers(10))
    first = reading(path)
    with first._file.change() as connection:  # as it was written before readers had names: "pid started token"
        (owner,) = connection.execute("SELECT owner FROM reader LIMIT 1").fetchone()
        connection.execute("UPDATE reader SET owner = ?", (owner.partition(" ")[2],))
    second = reading(path)
    assert not second.poll(0)
    for each in (second, first, log):
        each.close()


def test_paused_partitions_are_left_to_nobody(path: Path) -> None:
    log = Log(path)
    log.append("in", numbers(100, keys=50))
    first = reading(path)
    assert {record.partition for record in first.poll(0)} == {0, 1, 2, 3}
    first.join(0, 1, without=[1, 3])  # in the middle of a batch, which stays its own
    first.commit([])
    log.append("in", numbers(100, start=100, keys=50))
    assert {record.partition for record in first.poll(0)} == {0, 2}
    first.commit([])
    assert not first.poll(0)
    assert sum(lag.records for lag in first.lag().values()) > 0
    first.join(0, 1)
    rest = first.poll(0)
    assert {record.partition for record in rest} == {1, 3}
    assert len(rest) + sum(lag.position for lag in first.lag().values()) == 200
    first.close()
    log.close()


def test_keep_holds_the_lease_of_a_batch_that_waits(path: Path) -> None:
    log, clock = Log(path), ManualClock(now=1000.0)
    log.append("in", numbers(10))
    first, second = reading(path, clock), reading(path, clock)
    assert len(first.poll(0)) == 10
    for _ in range(10):
        clock.advance(limits.EMBEDDED_LEASE_SECONDS / 2)
        first.keep()
        assert not second.poll(0)
    first.commit([Output("out", b"k", b"v", [])])
    assert len(everything(log, "out")) == 1
    for each in (second, first, log):
        each.close()


def test_a_killed_process_is_followed_at_once(path: Path) -> None:
    log = Log(path)
    with reader_process(path) as process:
        log.append("in", numbers(100))
        assert int(said(process)) > 0
        mine = reading(path)
        assert not mine.poll(0.1)
        process.kill()
        process.wait()
        log.append("in", numbers(100, start=100))
        start = time.monotonic()
        assert mine.poll(SOON)
        assert time.monotonic() - start < limits.EMBEDDED_LEASE_SECONDS / 2
        mine.close()
    log.close()


ONE_BATCH = """
import sys
from pathlib import Path
from sunup.stream.broker import BrokerError, Output, Stream
from sunup.stream.embedded import EmbeddedBroker
broker = EmbeddedBroker(Path(sys.argv[1]), Stream(*sys.argv[2:]))
broker.join(0, 1)
print(len(broker.poll(20)), flush=True)
sys.stdin.readline()
try:
    broker.commit([Output("out", b"key 0", b"late", [])])
except BrokerError as error:
    print(error.trouble.value)
"""


def test_a_stopped_process_is_fenced_when_it_wakes(path: Path) -> None:
    log = Log(path)
    log.append("in", numbers(50))
    command = [sys.executable, "-c", ONE_BATCH, str(path), *STREAM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert said(process) == "50"
        process.send_signal(signal.SIGSTOP)
        mine = reading(path)
        assert not mine.poll(0.1)
        mine.close()
        mine = reading(path, ManualClock(now=time.monotonic() + limits.EMBEDDED_LEASE_SECONDS + 0.1))
        assert len(mine.poll(0)) == 50
        mine.commit([Output("out", b"key 0", b"mine", [])])
        process.send_signal(signal.SIGCONT)
        assert process.communicate("go on", timeout=SOON)[0] == "fenced\n"
        mine.close()
    assert [record.value for record in everything(log, "out")] == [b"mine"]
    log.close()


def test_killed_at_any_instant_nothing_is_lost_or_doubled(path: Path) -> None:
    log = Log(path)
    log.append("in", numbers(6000))
    seed = random.randrange(1 << 32)
    moments = random.Random(seed)
    watcher: Broker = EmbeddedBroker(path, STREAM)

    def left() -> int:
        return sum(lag.records for lag in watcher.lag().values())

    kills = 0
    while left():
        with reader_process(path, batch=5) as process:
            if kills < 20:
                time.sleep(moments.uniform(0.0, 0.08))
            else:  # the rest in peace, however slow the machine
                until(lambda: not left(), f"the rest to be read (seed {seed})", seconds=60)
            process.kill()
            process.wait()
        kills += 1
    assert kills > 3
    for key in {record.key for record in everything(log, "in")}:
        values = [[r.value for r in everything(log, topic) if r.key == key] for topic in ("in", "out")]
        assert values[0] == values[1], f"seed {seed}"
    watcher.close()
    log.close()
