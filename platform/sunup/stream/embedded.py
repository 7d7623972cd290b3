"""A durable log in one SQLite file, for one machine without Kafka.

It is not Kafka: one machine, no network, no compaction, and a topic keeps the partitions it was made with. Nothing is
rebalanced: reader i of n reads the partitions p with p % n == i, as `join` tells it, and a lease row sees to it that
one process reads each; whoever takes over a reader's name takes over its leases. A commit is one transaction, so that a
crash at any instant loses and doubles nothing.
"""

import os
import secrets
import sqlite3
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from sunup import limits
from sunup.clock import Clock, SystemClock
from sunup.stream.broker import BrokerError, Headers, Lag, Output, Reader, Record, Stream, Trouble
from sunup.stream.sqlite import SqliteFile

Entry: TypeAlias = Output | tuple[bytes | None, bytes | None, Headers]

# A record's place is its partition's row id and its offset in one number: SQLite keeps a partition's records together.
SHIFT: Final = 40
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS part (
    id INTEGER PRIMARY KEY, topic TEXT, number INTEGER, next INTEGER, UNIQUE (topic, number));
CREATE TABLE IF NOT EXISTS log (id TEXT);
CREATE TABLE IF NOT EXISTS record (place INTEGER PRIMARY KEY, key BLOB, value BLOB, headers BLOB, written REAL);
CREATE TABLE IF NOT EXISTS reader (
    topic TEXT, team TEXT, number INTEGER, position INTEGER, owner TEXT, until REAL,
    PRIMARY KEY (topic, team, number)) WITHOUT ROWID;
"""
_OF: Final = "WHERE topic = ? AND team = ?"
_JOIN: Final = f"""INSERT OR IGNORE INTO reader SELECT topic, ?, number, next - (SELECT COUNT(*) FROM record
    WHERE place >= id << {SHIFT} AND place < id + 1 << {SHIFT}), NULL, 0 FROM part WHERE topic = ?"""
_LAG: Final = f"SELECT number, position, next FROM reader JOIN part USING (topic, number) {_OF} ORDER BY number"
_SHARE: Final = f"SELECT number, position, owner, until FROM reader {_OF}"
_TAKE: Final = f"UPDATE reader SET owner = ?, until = ? {_OF} AND number = ?"
_MOVE: Final = f"UPDATE reader SET position = ?, until = ? {_OF} AND number = ? AND owner = ?"
_KEEP: Final = "UPDATE reader SET until = ? WHERE owner = ?"
_RELEASE: Final = "UPDATE reader SET owner = NULL WHERE owner = ?"
_LATE: Final = "SELECT team, position FROM reader WHERE topic = ? AND number = ? AND position < ?"
_READ: Final = "SELECT * FROM record WHERE place >= ? AND place < ? ORDER BY place LIMIT ?"
_CHANGES: Final = "PRAGMA data_version"  # differs once another connection has changed the file
_headers = msgspec.msgpack.Decoder(list[tuple[str, bytes]])


class Log:
    """The log, for whoever writes into it or looks at it; connects when first used. Every method raises BrokerError.

    Beyond EMBEDDED_RECORDS_MAX records of a partition the oldest go, once every group that reads it has read them.
    """

    def __init__(self, path: Path) -> None:
        self.file = SqliteFile(path, _SCHEMA)

    def create(self, topic: str, partitions: int = limits.EMBEDDED_PARTITIONS) -> None:
        """Make a topic. One that exists stays as it is."""
        with self.file.change() as connection:
            if not connection.execute("SELECT 1 FROM part WHERE topic = ?", (topic,)).fetchone():
                rows = [(topic, number) for number in range(partitions)]
                connection.executemany("INSERT INTO part (topic, number, next) VALUES (?, ?, 0)", rows)

    def append(self, topic: str, entries: Iterable[Entry]) -> list[tuple[int, int]]:
        """Write all the (key, value, headers) or none; (partition, offset) of each. Makes the topic if it is missing.

        Entries of one key go to one partition. To make room of records that some group has not read is an error.
        """
        with self.file.change() as connection:
            self.create(topic)
            query = "SELECT id, next FROM part WHERE topic = ? ORDER BY number"
            ids, before = zip(*connection.execute(query, (topic,)), strict=True)
            ends, turn, now = list(before), sum(before), time.time()
            places, rows = [], []
            for entry in entries:
                key, value, headers, to = entry[1:] if isinstance(entry, Output) else (*entry, None)
                number = (turn if key is None else zlib.crc32(key)) % len(ids) if to is None else to
                turn += key is None
                packed = msgspec.msgpack.encode(headers) if headers else None
                rows.append(((ids[number] << SHIFT) + ends[number], key, value, packed, now))
                places.append((number, ends[number]))
                ends[number] += 1
            connection.executemany("INSERT INTO record VALUES (?, ?, ?, ?, ?)", rows)
            connection.executemany("UPDATE part SET next = ? WHERE id = ?", zip(ends, ids, strict=True))
            for number, part in enumerate(ids):
                if (first := ends[number] - limits.EMBEDDED_RECORDS_MAX) > 0 and ends[number] > before[number]:
                    self._make_room(connection, topic, number, part << SHIFT, first)
        return places

    def read(
        self, topic: str, partition: int, offset: int, records_max: int, bytes_max: int | None = None
    ) -> list[Record]:
        """At most `records_max` records from `offset` on, or from the oldest kept; none after the one whose value
        fills `bytes_max`, by default STREAM_BATCH_BYTES_MAX."""
        found = self.file.select("SELECT id << ? FROM part WHERE topic = ? AND number = ?", SHIFT, topic, partition)
        if not found:
            raise BrokerError(
                Trouble.TOPIC_MISSING, f"the log {self.file.path} has no partition {partition} of {topic}"
            )
        base, size, records = found[0][0], 0, []
        with self.file.use() as connection:
            rows = connection.execute(_READ, (base + offset, base + (1 << SHIFT), records_max))
            for place, key, value, packed, written in rows:
                headers = _headers.decode(packed) if packed else []
                records.append(Record(topic, partition, place - base, key, value, headers, written))
                size += len(value or b"")
                if size >= (limits.STREAM_BATCH_BYTES_MAX if bytes_max is None else bytes_max):
                    break
        return records

    def end(self, topic: str) -> dict[int, int]:
        """Partition -> the offset its next record will get; empty when there is no such topic."""
        return dict(self.file.select("SELECT number, next FROM part WHERE topic = ? ORDER BY number", topic))

    def forget(self, group: str) -> None:
        """Let go of what a group that is gone has not read."""
        with self.file.change() as connection:
            connection.execute("DELETE FROM reader WHERE team = ?", (group,))

    def close(self) -> None:
        """Let go of the file; it opens again when used."""
        self.file.close()

    def _make_room(self, connection: sqlite3.Connection, topic: str, number: int, base: int, first: int) -> None:
        if late := connection.execute(_LATE, (topic, number, first)).fetchone():
            what = f"partition {number} of {topic} is full, and {late[0]} has not read it beyond {late[1]}"
            do = f"run what reads it, or let go of it with Log.forget({late[0]!r})"
            raise BrokerError(Trouble.FAILED, f"the log {self.file.path}: {what}: {do}")
        connection.execute("DELETE FROM record WHERE place >= ? AND place < ?", (base, base + first))


class EmbeddedBroker:
    """The log as the broker of one stream. Missing topics are made, for a log has no administrator."""

    def __init__(self, path: Path, stream: Stream, reader: Reader | None = None, clock: Clock | None = None) -> None:
        self._log = Log(path)
        self._file = self._log.file
        self._stream = stream
        self._name = reader.name if reader else secrets.token_hex(8)
        self._clock = clock or SystemClock()  # its `now` must be the machine's: leases are between processes
        self._owner = ""  # this process and object; made when joining, for a fork copies objects
        self._ready = False
        self._index, self._count, self._without = 0, 1, frozenset[int]()
        self._renew_at = 0.0
        self._held: dict[int, int] = {}  # leased partition -> next offset to poll; the first is polled first
        self._polled: set[int] = set()  # partitions with records that are not committed

    def join(self, index: int, count: int, without: Collection[int] = ()) -> None:
        """Read the partitions p with p % count == index from now on, or once what was polled is committed."""
        who = f"{self._name} {os.getpid()} {_started(os.getpid())} {secrets.token_hex(8)}"
        self._owner = self._owner or who
        self._index, self._count, self._without = index, count, frozenset(without)
        self._settle()

    def poll(self, seconds: float, records_max: int = limits.STREAM_BATCH_RECORDS_MAX) -> Sequence[Record]:
        until = time.monotonic() + seconds
        self._settle()
        while True:
            version = self._file.select(_CHANGES)
            if found := self._read(records_max):
                return found
            while self._file.select(_CHANGES) == version:
                if (left := until - time.monotonic()) <= 0:
                    return ()
                time.sleep(min(left, limits.EMBEDDED_LOOK_SECONDS))  # SQLite has no way to wait for another process

    def keep(self) -> None:
        if self._held:
            with self._file.change() as connection:
                connection.execute(_KEEP, (self._clock.now() + limits.EMBEDDED_LEASE_SECONDS, self._owner))

    def commit(self, outputs: Sequence[Output]) -> None:
        """All in one transaction. FENCED when another process has taken over a partition that was polled."""
        until = self._clock.now() + limits.EMBEDDED_LEASE_SECONDS
        with self._file.change() as connection:
            for number in self._polled:
                row = (self._held[number], until, self._stream.input, self._stream.group, number, self._owner)
                if not connection.execute(_MOVE, row).rowcount:
                    what = f"partition {number} of {self._stream.input} in {self._file.path}"
                    raise BrokerError(Trouble.FENCED, f"another process of {self._stream.group} reads {what} now")
            for topic in dict.fromkeys(output.topic for output in outputs):
                self._log.append(topic, [output for output in outputs if output.topic == topic])
        self._polled.clear()

    def lag(self) -> Mapping[int, Lag]:
        self._prepare()
        rows = self._file.select(_LAG, self._stream.input, self._stream.group)
        return {number: Lag(position, end) for number, position, end in rows}

    def reads(self) -> Collection[int]:
        return list(self._held)

    def close(self) -> None:
        with suppress(BrokerError):  # most likely what this is closed for; a lease ends with its process or its time
            if self._held:
                with self._file.change() as connection:
                    connection.execute(_RELEASE, (self._owner,))
        self._held, self._polled = {}, set()
        self._file.close()

    def _prepare(self) -> None:
        """Make the topics, and the group's positions: from then on what it has not read is kept."""
        if not self._ready:
            with self._file.change() as connection:
                for topic in (self._stream.input, self._stream.output, self._stream.dead_letter):
                    self._log.create(topic)
                connection.execute(_JOIN, (self._stream.group, self._stream.input))
            self._ready = True

    def _settle(self) -> None:
        """Give up, take and renew leases, where any of it is due and nothing polled is uncommitted."""
        now = self._clock.now()
        if self._polled or not self._owner:
            return
        self._prepare()
        if now < self._renew_at and self._share(now).keys() == self._held.keys():
            return
        with self._file.change() as connection:
            share = self._share(now)
            connection.execute(_RELEASE, (self._owner,))
            rest = (now + limits.EMBEDDED_LEASE_SECONDS, self._stream.input, self._stream.group)
            connection.executemany(_TAKE, [(self._owner, *rest, number) for number in share])
        self._held, self._renew_at = share, now + limits.EMBEDDED_LEASE_SECONDS / 3

    def _share(self, now: float) -> dict[int, int]:
        """Our partitions, but for those that another process keeps, and the group's positions."""
        return {
            number: position
            for number, position, owner, until in self._file.select(_SHARE, self._stream.input, self._stream.group)
            if number % self._count == self._index
            and number not in self._without
            and (owner is None or self._may_take(owner, until - now))
        }

    def _may_take(self, owner: str, left: float) -> bool:
        """Ours, one that holds no longer, or that of whoever had our name before: it is replaced, and so fenced."""
        return owner == self._owner or _name_of(owner) == self._name or not is_kept(owner, left)

    def _read(self, records_max: int) -> list[Record]:
        found: list[Record] = []
        room = limits.STREAM_BATCH_BYTES_MAX
        for number, offset in list(self._held.items()):
            if room > 0 and (left := records_max - len(found)):
                records = self._log.read(self._stream.input, number, offset, left, room)
                room -= sum([len(record.value or b"") for record in records])
                if records:  # and to the end of the line, so that a full partition does not starve the others
                    del self._held[number]
                    self._held[number] = records[-1].offset + 1
                    self._polled.add(number)
                    found += records
        return found


def is_kept(owner: str, left: float) -> bool:
    """Whether a lease holds: its process lives, and its time is neither over nor from before the machine started."""
    *_, pid, started, _ = owner.split(" ")
    return 0 < left <= limits.EMBEDDED_LEASE_SECONDS and _started(int(pid)) == started


def _name_of(owner: str) -> str:
    """The reader's name in what a lease says of its owner: "name pid started token"; older ones have none."""
    return owner.rpartition(" ")[0].rpartition(" ")[0].rpartition(" ")[0]


def _started(pid: int) -> str:
    """When a process started, in ticks since boot (field 22 of /proc/PID/stat); "" when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("latin-1").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


class EmbeddedWatch:
    """The lag of any number of streams of one log."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._brokers: dict[Stream, EmbeddedBroker] = {}

    def lag(self, stream: Stream) -> Mapping[int, Lag]:
        return self._brokers.setdefault(stream, EmbeddedBroker(self._path, stream)).lag()

    def dismiss(self, stream: Stream, is_dead: Callable[[str], bool]) -> Collection[str]:  # noqa: ARG002
        return ()  # nobody waits for a reader: what each reads is the engine's to say

    def forget(self, stream: Stream) -> None:
        if (broker := self._brokers.pop(stream, None)) is not None:
            broker.close()

    def close(self) -> None:
        for stream in list(self._brokers):
            self.forget(stream)
