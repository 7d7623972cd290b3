"""Feast's SQLite online store, written: tables as `stores/sqlite.py` says, and per entity one more row, named `_sunup`,
with the version of what is there. It is in the same table, for it must go when that is dropped; readers pass it over.

The file is brought into WAL mode: in any other a reader would be refused while a write is flushed, and workers that
read features do not wait.
"""

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from sunup.limits import SQLITE_KEYS_PER_STATEMENT, STORE_WRITE_ROWS, STORE_WRITE_SECONDS_MAX
from sunup.lookup.plan import ReadPlan
from sunup.lookup.store import StoreUnavailable
from sunup.lookup.writing.encode import Encoder, Teller, encoder
from sunup.lookup.writing.target import NOBODY, OWN, Target, targets
from sunup.lookup.writing.writer import FeatureWriter, Write

_STEPS: Final = 1000  # SQLite virtual machine steps between looks at the clock
_APPLY: Final = "run `feast apply`"
_value: Final = encoder("BYTES")  # what we keep in a row of our own is a Value, too


class _View(NamedTuple):
    target: Target
    select: str  # the versions of SQLITE_KEYS_PER_STATEMENT keys
    upsert: str  # an entity: its key, version, event time, then value and text of each feature
    table: str


class SqliteWriter(FeatureWriter):
    """Writes one file, which `feast apply` has made."""

    def __init__(self, path: Path, plan: ReadPlan) -> None:
        self._path = path
        self._views = {name: _view(target, plan.project) for name, target in targets(plan).items()}
        self._connection: sqlite3.Connection | None = None
        self._file = (0, 0)
        self._deadline = 0.0
        self.mark = b""

    def __repr__(self) -> str:
        return f"<SqliteWriter {self._path}>"

    def write(self, view: str, rows: Sequence[Write]) -> None:
        about, ordered = self._views[view], sorted(rows, key=itemgetter(0))  # neighbours share pages
        with self._connected() as connection:
            for start in range(0, len(ordered), STORE_WRITE_ROWS):
                with _transaction(connection):
                    _put(connection, about, ordered[start : start + STORE_WRITE_ROWS])

    def is_lost(self) -> bool:
        with self._connected() as connection:
            found, whole = self._found(connection)
        if whole and not self.mark:
            self.mark = found
        return not whole or found != self.mark

    def begin(self) -> None:
        with self._connected() as connection:
            with _transaction(connection):
                for view in self._views.values():
                    connection.execute(
                        f"INSERT OR IGNORE INTO {view.table} (entity_key, feature_name, value) VALUES (?, ?, ?)",
                        (NOBODY, OWN, _value(os.urandom(8))),
                    )
            self.mark, _ = self._found(connection)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _found(self, connection: sqlite3.Connection) -> tuple[bytes, bool]:
        """What marks the file now, and whether all of it is there. Another file is another one."""
        marks: list[Any] = [
            connection.execute(
                f"SELECT value FROM {view.table} WHERE entity_key = ? AND feature_name = ?", (NOBODY, OWN)
            ).fetchone()
            for view in self._views.values()
        ]
        return repr((marks, self._file)).encode(), None not in marks

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """The connection, for as long as a write may take. Raises StoreUnavailable for whatever is wrong with it."""
        self._deadline = time.monotonic() + STORE_WRITE_SECONDS_MAX
        try:
            yield self._opened()
        except sqlite3.Error as error:
            raise self._failed(error) from error
        except OSError as error:
            self.close()
            raise StoreUnavailable(f"{self._path}: {error.strerror}: {_APPLY}") from error

    def _opened(self) -> sqlite3.Connection:
        status = os.stat(self._path)
        if self._connection is not None and self._file != (status.st_dev, status.st_ino):
            self.close()
        if self._connection is None:
            self._file = (status.st_dev, status.st_ino)
            self._connection = sqlite3.connect(
                f"file:{quote(str(self._path))}?mode=rw",  # never to create
                uri=True,
                timeout=STORE_WRITE_SECONDS_MAX,
                isolation_level=None,
                check_same_thread=False,
            )
            self._connection.set_progress_handler(self._late, _STEPS)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
        wait_ms = max(0, round(1000 * (self._deadline - time.monotonic())))
        self._connection.execute(f"PRAGMA busy_timeout = {wait_ms}")
        return self._connection

    def _late(self) -> bool:
        return time.monotonic() > self._deadline

    def _failed(self, error: sqlite3.Error) -> StoreUnavailable:
        name, says = getattr(error, "sqlite_errorname", ""), str(error)
        if name == "SQLITE_INTERRUPT":
            return StoreUnavailable(f"{self._path}: not written within {STORE_WRITE_SECONDS_MAX:.1f} s")
        if not name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            self.close()
        if "no such table" in says or "has no column" in says:
            says += f": {_APPLY}"
        return StoreUnavailable(f"{self._path}: {says}")


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _put(connection: sqlite3.Connection, view: _View, rows: Sequence[Write]) -> None:
    """Write those that are not older than what is there, in the transaction that is open."""
    there: dict[bytes, bytes] = {}
    for start in range(0, len(rows), SQLITE_KEYS_PER_STATEMENT):
        keys = [row.key for row in rows[start : start + SQLITE_KEYS_PER_STATEMENT]]
        keys += keys[-1:] * (SQLITE_KEYS_PER_STATEMENT - len(keys))
        there.update(connection.execute(view.select, keys))
    times: dict[int, int] = {}
    made = []
    makers = tuple(zip(view.target.encoders, view.target.tellers, strict=True))
    for row in rows:
        version = _value(row.version)
        if there.get(row.key, version) > version:
            continue
        second = int(row.at)
        at = times.get(second)
        if at is None:
            at = times[second] = _stored_time(row.at)
        made.append((row.key, version, at, *_values(makers, row.values)))
    connection.executemany(view.upsert, made)


def _values(makers: Sequence[tuple[Encoder, Teller]], values: Sequence[Any]) -> Iterator[bytes | str | None]:
    for (encode, tell), value in zip(makers, values, strict=True):
        yield encode(value)
        yield tell(value)


def _stored_time(at: float) -> int:
    """The shift that readers undo, made as Feast makes it: the naive UTC time, taken for a local one."""
    return int(datetime.fromtimestamp(at, UTC).replace(tzinfo=None).timestamp())


def _view(target: Target, project: str) -> _View:
    table = '"' + f"{project}_{target.stored}".replace('"', '""') + '"'
    among = ", ".join(["?"] * SQLITE_KEYS_PER_STATEMENT)
    rows = [f"(?1, '{OWN}', ?2, NULL, ?3, NULL)"]
    for number, name in enumerate(target.features):
        text = name.replace("'", "''")
        rows.append(f"(?1, '{text}', ?{2 * number + 4}, ?{2 * number + 5}, ?3, NULL)")
    columns = ("value", "value_text", "event_ts", "created_ts")
    return _View(
        target,
        f"SELECT entity_key, value FROM {table} WHERE feature_name = '{OWN}' AND entity_key IN ({among})",
        f"INSERT INTO {table} (entity_key, feature_name, {', '.join(columns)}) VALUES {', '.join(rows)} "
        f"ON CONFLICT(entity_key, feature_name) DO UPDATE SET {', '.join(f'{n} = excluded.{n}' for n in columns)}",
        table,
    )
