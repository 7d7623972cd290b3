"""The embedded log alone: topics and records, room for them, what it costs, and files that fail."""

import os
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from sunup import limits
from sunup.stream.broker import BrokerError, Lag, Output, Record, Stream, Trouble
from sunup.stream.embedded import EmbeddedBroker, Log

STREAM = Stream("group", "in", "out", "dead")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stream.db"


def numbers(count: int, start: int = 0, keys: int = 7) -> list[tuple[bytes, bytes, list[tuple[str, bytes]]]]:
    return [(b"key %d" % (number % keys), b"%d" % number, []) for number in range(start, start + count)]


def everything(log: Log, topic: str) -> list[Record]:
    return [record for number, end in log.end(topic).items() for record in log.read(topic, number, 0, end)]


def reading(path: Path) -> EmbeddedBroker:
    broker = EmbeddedBroker(path, STREAM)
    broker.join(0, 1)
    return broker


def test_entries_get_places(path: Path) -> None:
    log = Log(path)
    log.create("t", 3)
    log.create("t", 5)
    places = log.append("t", [(None, b"%d" % number, []) for number in range(7)])
    assert [partition for partition, _ in places] == [0, 1, 2, 0, 1, 2, 0]
    assert log.append("t", [(None, None, ())]) == [(1, 2)]  # evenly, across appends too
    assert log.end("t") == {0: 3, 1: 3, 2: 2}
    assert len(set(log.append("t", numbers(20, keys=1)))) == 20
    assert sorted(log.end("t").values()) in ([2, 3, 23], [3, 3, 22])
    assert log.append("t", []) == []
    assert [record.value for record in log.read("t", 0, 1, 2)] == [b"3", b"6"]
    assert log.end("none") == {}
    with pytest.raises(BrokerError, match="no partition 9") as caught:
        log.read("t", 9, 0, 1)
    assert caught.value.trouble is Trouble.TOPIC_MISSING
    log.close()
    assert log.append("new", [Output("unused", b"k", b"v", [])])[0][1] == 0  # opens again, and makes the topic
    assert len(log.end("new")) == limits.EMBEDDED_PARTITIONS
    log.close()


def test_many_open_and_write_a_new_file_at_once(path: Path) -> None:
    gate = threading.Barrier(8)

    def write(start: int) -> None:
        log = Log(path.parent / "made" / "stream.db")
        gate.wait()
        for step in range(0, 100, 20):
            log.append("t", numbers(20, start + step))
        log.close()

    threads = [threading.Thread(target=write, args=(1000 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log = Log(path.parent / "made" / "stream.db")
    values = [int(record.value or b"") for record in everything(log, "t")]
    assert sorted(values) == sorted(1000 * number + step for number in range(8) for step in range(100))
    log.close()


def test_a_large_read_ends_early(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STREAM_BATCH_BYTES_MAX", 10_000)
    log = Log(path)
    log.create("t", 1)
    log.append("t", [(None, bytes(4000), [])] * 9)
    assert len(log.read("t", 0, 0, 9)) == 3
    log.close()


def test_positions_are_per_group(path: Path) -> None:
    log = Log(path)
    log.append("in", numbers(30))
    for group in ("a", "b"):
        broker = EmbeddedBroker(path, STREAM._replace(group=group))
        broker.join(0, 1)
        assert len(broker.poll(0)) == 30
        broker.commit([])
        assert sum(lag.records for lag in broker.lag().values()) == 0
        broker.close()
    log.close()


def test_the_oldest_records_make_room_once_they_are_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EMBEDDED_RECORDS_MAX", 10)
    log = Log(path)
    log.create("in", 1)
    log.append("in", numbers(25))  # nobody reads it
    assert [int(record.value or b"") for record in log.read("in", 0, 0, 99)] == list(range(15, 25))
    broker = reading(path)
    assert broker.lag() == {0: Lag(15, 25)}
    with pytest.raises(
        BrokerError, match=r"partition 0 of in is full, and group has not read it beyond 15.*forget"
    ) as e:
        log.append("in", numbers(1, start=25))
    assert e.value.trouble is Trouble.FAILED
    assert log.end("in") == {0: 25}
    assert len(broker.poll(0)) == 10
    broker.commit([])
    log.append("in", numbers(10, start=25))
    assert [record.offset for record in broker.poll(0)] == list(range(25, 35))
    broker.close()
    with pytest.raises(BrokerError, match="full"):
        log.append("in", numbers(1))
    log.forget("group")
    log.append("in", numbers(1))
    log.close()


def test_what_only_a_watcher_has_seen_is_kept_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EMBEDDED_RECORDS_MAX", 10)
    watcher = EmbeddedBroker(path, STREAM)
    assert watcher.lag() == dict.fromkeys(range(limits.EMBEDDED_PARTITIONS), Lag(0, 0))
    log = Log(path)
    log.append("in", numbers(10, keys=1))
    with pytest.raises(BrokerError, match="full"):
        log.append("in", numbers(1, keys=1))
    watcher.close()
    log.close()


def test_a_commit_that_has_no_room_moves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EMBEDDED_RECORDS_MAX", 10)
    log = Log(path)
    log.append("in", numbers(8, keys=1))
    downstream = EmbeddedBroker(path, Stream("later", "out", "out2", "dead2"))
    downstream.lag()
    log.append("out", numbers(8, keys=1))
    broker = reading(path)
    assert len(broker.poll(0)) == 8
    with pytest.raises(BrokerError, match="later has not read"):
        broker.commit([Output("out", b"key 0", b"", [])] * 8)
    assert sum(lag.records for lag in broker.lag().values()) == 8
    assert len(everything(log, "out")) == 8
    for each in (broker, downstream, log):
        each.close()


def test_a_waiting_reader_costs_little(path: Path) -> None:
    broker = reading(path)
    start, used = time.monotonic(), time.process_time()
    for _ in range(5):
        assert not broker.poll(0.2)
    share = (time.process_time() - used) / (time.monotonic() - start)
    broker.close()
    assert share < 0.1  # of a core; 0.01 on a machine with nothing else to do


def test_twenty_thousand_records_are_soon_through(path: Path) -> None:
    log = Log(path)
    log.append("in", [(b"key %d" % (number % 100), bytes(200), [("trace", b"1")]) for number in range(20_000)])
    broker = reading(path)
    start = time.monotonic()
    while records := broker.poll(0):
        broker.commit([Output("out", record.key, record.value, record.headers) for record in records])
    assert time.monotonic() - start < 5  # 0.15 with nothing else to do
    assert sum(log.end("out").values()) == 20_000
    broker.close()
    log.close()


def test_a_damaged_file_is_said(path: Path) -> None:
    log = Log(path)
    log.append("in", [(None, bytes(1000), [])] * 1000)
    log.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + os.urandom(len(whole) - 8192))
    broker = EmbeddedBroker(path, STREAM)
    with pytest.raises(BrokerError, match=r"stream\.db.*damaged.*move it away") as caught:
        broker.lag()
    assert caught.value.trouble is Trouble.FAILED
    broker.close()
    path.write_bytes(b"something else entirely" * 1000)
    with pytest.raises(BrokerError, match="move it away"):
        EmbeddedBroker(path, STREAM).lag()


def test_a_full_disk_is_said(path: Path) -> None:
    log = Log(path)
    log.append("in", numbers(10))
    broker = reading(path)
    assert broker.poll(0)
    with broker._file.use() as connection:  # SQLite's own limit stands for the disk's
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(BrokerError, match="full; make room"):
        broker.commit([Output("out", b"k", bytes(100_000), [])])
    broker.close()
    assert sum(lag.records for lag in EmbeddedBroker(path, STREAM).lag().values()) == 10
    log.close()


def test_a_file_that_another_process_keeps_is_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sunup.stream.sqlite.EMBEDDED_BUSY_SECONDS", 0.1)
    log = Log(path)
    log.append("in", numbers(10))
    log.close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(BrokerError, match="another process has been writing"):
        log.append("in", numbers(1))
    assert len(everything(log, "in")) == 10  # which can still be read
    other.close()
    log.append("in", numbers(1))
    log.close()


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BrokerError, match=r"the log .*file/stream\.db"):
        Log(tmp_path / "file" / "stream.db").append("in", [])
    (tmp_path / "folder").mkdir()
    with pytest.raises(BrokerError, match="see that this user may write"):
        Log(tmp_path / "folder").append("in", [])
