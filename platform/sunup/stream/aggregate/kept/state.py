"""What is kept of one partition: tiles, and the offset up to which they were made, in one SQLite file.

Both change in one transaction, so whatever ends the process finds them to agree: records from `next` on are read again,
and no other. A file belongs to one process at a time, which holds the lock beside it as long as it lives.
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import msgspec

from sunup.limits import AGGREGATE_LOCK_SECONDS, EMBEDDED_BUSY_SECONDS
from sunup.stream.broker import BrokerError, Trouble
from sunup.stream.sqlite import transaction

DIGEST_BYTES: Final = 12  # of a view
NAME_BYTES: Final = 4  # of them its name's: what begins with the same ones is the same view, defined in another way
_FORMAT: Final = 1
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS part (
    epoch INTEGER, next INTEGER, partitions INTEGER, marks BLOB, owed BLOB, resend INTEGER, mark BLOB);
CREATE TABLE IF NOT EXISTS entity (id INTEGER PRIMARY KEY,
    view INTEGER, key BLOB, due REAL, ends REAL, is_logged INTEGER, blob BLOB, UNIQUE (view, key));
CREATE INDEX IF NOT EXISTS entity_due ON entity (due) WHERE due IS NOT NULL;
CREATE INDEX IF NOT EXISTS entity_idle ON entity (view, ends) WHERE due IS NULL;
CREATE INDEX IF NOT EXISTS entity_unlogged ON entity (id) WHERE NOT is_logged;
"""
_KEEP: Final = """INSERT INTO entity (view, key, due, ends, is_logged, blob) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (view, key) DO UPDATE
    SET due = excluded.due, ends = excluded.ends, is_logged = excluded.is_logged, blob = excluded.blob"""
_DELETE: Final = "DELETE FROM entity WHERE view = ? AND key = ?"
# The store gets to know that nothing is left of them.
_EMPTY: Final = "UPDATE entity SET blob = NULL, due = 0, ends = -9e999, is_logged = 1"
_GONE: Final = """UPDATE entity SET blob = NULL, due = NULL, ends = -9e999, is_logged = 1,
    key = joined(?, key), view = ? WHERE view = ?"""
_ORPHAN: Final = "INSERT OR IGNORE INTO entity (view, key, ends, is_logged) VALUES (?, ?, -9e999, 1)"
_BACK: Final = "UPDATE OR REPLACE entity SET view = ?, key = substr(key, ?) WHERE view = ? AND substr(key, 1, ?) = ?"
_OWE: Final = "UPDATE entity SET due = 0 WHERE view = ? AND key = ? AND blob NOT NULL"
GONE: Final = -1  # the view of keys that are none's any more: they begin with the digest of the view they were of
_CHUNK: Final = 500  # keys looked up by one statement
_LOOK_SECONDS: Final = 0.02  # s between looks at a lock that is held: it has no way to wait for a time
_WHAT_TO_DO: Final = {
    "SQLITE_FULL": "make room, and it goes on by itself",
    "SQLITE_READONLY": "give this user the right to write it",
    "SQLITE_CANTOPEN": "see that this user may write in its folder",
    "SQLITE_BUSY": "see what else has it open",
}
DAMAGED: Final = (
    "move it away: with Kafka it is restored from its changelog, else `platform stream replay --features` makes it anew"
)


class Mark(NamedTuple):
    """One view of the file: its number there, and the newest event time seen."""

    view: int
    watermark: float


class Change(NamedTuple):
    """One entity of the view with that index. `blob`: None when nothing is left of it; `due`: wall seconds when its
    values change by themselves, 0.0 if they have to be written anyway, None: never; `ends`: the watermark from which
    on nothing is left of it."""

    view: int
    key: bytes
    blob: bytes | None
    due: float | None
    ends: float


Owed: TypeAlias = Sequence[tuple[int, bytes]]  # view, key
_owed: Final = msgspec.msgpack.Decoder(list[tuple[int, bytes]])
_marks: Final = msgspec.msgpack.Decoder(dict[bytes, Mark])


class State:
    """The file `<folder>/<number>.db`; `number`: the partition. One thread at a time; every method raises BrokerError.

    `views`: the digest of each view's definition. A view that is made in another way than the file's begins empty.
    """

    def __init__(self, folder: Path, number: int, views: Sequence[bytes]) -> None:
        self.path = folder / f"{number}.db"
        self.views = views
        self.epoch = 0  # which count of the partition it is, in seconds of its beginning
        self.has_begun = False
        self.next = 0  # offset of the first record that is not in it
        self.partitions = 0  # of the topic, when it was begun
        self.resend: int | None = None  # entities behind this id have to be written to the store again
        self.mark = b""  # of the store that has the values, see FeatureWriter.mark
        self.watermarks = [-float("inf")] * len(views)
        self.new: list[int] = []  # views that were not in the file when it was opened
        self.numbers = list(range(len(views)))  # of the views, in the file
        self._lock: int | None = None
        self._opened: sqlite3.Connection | None = None

    def __repr__(self) -> str:
        state = "closed" if self._lock is None else "open"
        return f"State({self.path}, {state}, epoch={self.epoch}, next={self.next})"

    def open(self, seconds: float = AGGREGATE_LOCK_SECONDS) -> None:
        """Take the lock, waiting up to `seconds` for whoever is giving it up, and read what there is. Raises FENCED
        while another process holds it."""
        self._take_lock(seconds)
        try:
            with self.change() as connection:
                self._read(connection)
        except BaseException:
            self.close()
            raise

    def begin(
        self,
        epoch: int,
        offset: int,
        partitions: int,
        *,
        watermarks: Sequence[float] = (),
        mark: bytes = b"",
        changes: Iterable[Change] = (),
        orphans: Iterable[tuple[int, bytes]] = (),
    ) -> None:
        """Begin anew at `offset`, with `changes`, which the changelog holds. What else there was goes little by little,
        and so do `orphans`: (view, key) of what the changelog holds too, or (GONE, the key of its record)."""
        with self.change() as connection:
            connection.execute("DELETE FROM part")
            connection.execute(_EMPTY)
            self.has_begun = True
            self.epoch, self.next, self.partitions, self.resend, self.new = epoch, offset, partitions, None, []
            self.mark = mark
            self.numbers = list(range(len(self.views)))
            self.watermarks = list(watermarks) or [-float("inf")] * len(self.views)
            self._put(connection, changes, is_logged=True)
            numbers = [*self.numbers, GONE]
            connection.executemany(_ORPHAN, ((numbers[view], key) for view, key in orphans))
            row = (epoch, offset, partitions, self._packed(), mark)
            connection.execute("INSERT INTO part VALUES (?, ?, ?, ?, NULL, NULL, ?)", row)

    def renew(self, epoch: int, partitions: int | None = None) -> None:
        """The same tiles, from now on as of `epoch`, of a topic that has so many partitions."""
        self.epoch, self.partitions = epoch, self.partitions if partitions is None else partitions
        with self.change() as connection:
            connection.execute("UPDATE part SET epoch = ?, partitions = ?", (self.epoch, self.partitions))

    def load(self, view: int, keys: Sequence[bytes]) -> dict[bytes, bytes | None]:
        """The blob of every key, None where there is none."""
        found: dict[bytes, bytes | None] = dict.fromkeys(keys)
        with self.use() as connection:
            for start in range(0, len(keys), _CHUNK):
                some = keys[start : start + _CHUNK]
                query = f"SELECT key, blob FROM entity WHERE view = ? AND key IN ({','.join('?' * len(some))})"
                found.update(connection.execute(query, (self.numbers[view], *some)).fetchall())
        return found

    def keep(
        self,
        offset: int,
        watermarks: Sequence[float],
        changes: Iterable[Change],
        *,
        owed: Owed = (),
        is_logged: bool,
        logged: Collection[int] = (),
    ) -> None:
        """A checkpoint. `owed`: what is about to be written to the store, so that `due` of its `changes` holds from
        then on; `is_logged`: the changelog holds `changes`; `logged`: and now those entities too, by their ids."""
        with self.change() as connection:
            connection.executemany("UPDATE entity SET is_logged = 1 WHERE id = ?", [(each,) for each in logged])
            self._put(connection, changes, is_logged=is_logged)
            self.next, self.watermarks = offset, list(watermarks)
            packed = msgspec.msgpack.encode([(self.numbers[view], key) for view, key in owed]) if owed else None
            connection.execute("UPDATE part SET next = ?, marks = ?, owed = ?", (offset, self._packed(), packed))

    def close(self) -> None:
        """Let go of the file, then of the lock."""
        opened, self._opened = self._opened, None
        lock, self._lock = self._lock, None
        try:
            if opened is not None:
                opened.close()
        finally:
            if lock is not None:
                os.close(lock)

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """One transaction."""
        with self.use() as connection, transaction(connection):
            yield connection

    @contextmanager
    def use(self) -> Iterator[sqlite3.Connection]:
        """The connection; its errors as BrokerErrors that say what to do."""
        try:
            self._opened = self._opened or self._connected()
            yield self._opened
        except (sqlite3.Error, OSError, msgspec.MsgspecError) as error:
            name = getattr(error, "sqlite_errorname", "")
            do = next((what for code, what in _WHAT_TO_DO.items() if name.startswith(code)), DAMAGED)
            raise BrokerError(Trouble.FAILED, f"the tiles in {self.path}: {error}; {do}") from error

    def _take_lock(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Beside the file: a damaged one is moved away, and its lock must not go with it.
            lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise BrokerError(Trouble.FAILED, f"the tiles in {self.path}: {error}") from error
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    os.close(lock)
                    what = f"another process has the tiles in {self.path} now"
                    raise BrokerError(Trouble.FENCED, what) from None
                time.sleep(_LOOK_SECONDS)
        self._lock = lock

    def _connected(self) -> sqlite3.Connection:
        opened = sqlite3.connect(self.path, EMBEDDED_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            _check(opened)
            opened.execute("PRAGMA journal_mode = WAL")
            opened.execute("PRAGMA synchronous = NORMAL")  # a power cut may take the last checkpoints: they come again
            opened.executescript("PRAGMA cache_size = -8000; PRAGMA wal_autocheckpoint = 4000")  # a log of 16 MB
            opened.create_function("joined", 2, lambda first, second: first + second)
            opened.executescript(_SCHEMA)
            opened.execute(f"PRAGMA user_version = {_FORMAT}")
        except BaseException:
            opened.close()
            raise
        return opened

    def _read(self, connection: sqlite3.Connection) -> None:
        row = connection.execute("SELECT * FROM part").fetchone()
        if row is None:
            return
        self.has_begun = True
        self.epoch, self.next, self.partitions, marks, owed, self.resend, self.mark = row
        connection.executemany(_OWE, _owed.decode(owed) if owed else ())
        found = _marks.decode(marks)
        self.new = [at for at, digest in enumerate(self.views) if digest not in found]
        used = {number for number, _ in found.values()}
        free = iter([number for number in range(len(used) + len(self.views)) if number not in used])
        marked = [found.get(digest) or Mark(next(free), -float("inf")) for digest in self.views]
        self.numbers = [number for number, _ in marked]
        self.watermarks = [watermark for _, watermark in marked]
        self._let_go(connection, {digest: number for digest, (number, _) in found.items() if digest not in self.views})
        connection.execute("UPDATE part SET marks = ?, owed = NULL", (self._packed(),))

    def _let_go(self, connection: sqlite3.Connection, gone: Mapping[bytes, int]) -> None:
        """Views that are not there any more, and those that are defined in another way: empty, and due."""
        renewed = {self.views[at][:NAME_BYTES]: self.numbers[at] for at in self.new}
        for digest, number in gone.items():
            now = renewed.get(digest[:NAME_BYTES])
            if now is None:
                connection.execute(_GONE, (digest, GONE, number))
            else:
                connection.execute(f"{_EMPTY}, view = ? WHERE view = ?", (now, number))
        for at in self.new:  # what the changelog holds of it from another time is its again
            digest = self.views[at]
            connection.execute(_BACK, (self.numbers[at], len(digest) + 1, GONE, len(digest), digest))

    def _put(self, connection: sqlite3.Connection, changes: Iterable[Change], *, is_logged: bool) -> None:
        numbers, gone = [*self.numbers, GONE], list[tuple[int, bytes]]()

        def kept() -> Iterator[tuple[int, bytes, float | None, float, bool, bytes]]:
            for view, key, blob, due, ends in changes:
                if blob is None:
                    gone.append((numbers[view], key))
                else:
                    yield numbers[view], key, due, ends, is_logged, blob

        connection.executemany(_KEEP, kept())
        connection.executemany(_DELETE, gone)

    def _packed(self) -> bytes:
        marks = zip(self.numbers, self.watermarks, strict=True)
        return msgspec.msgpack.encode(dict(zip(self.views, [Mark(*each) for each in marks], strict=True)))


def _check(opened: sqlite3.Connection) -> None:
    (version,) = opened.execute("PRAGMA user_version").fetchone()
    if version not in (0, _FORMAT):
        raise sqlite3.DatabaseError(f"its format is {version}, and this Sunup reads {_FORMAT}")
