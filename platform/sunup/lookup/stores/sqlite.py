"""Feast's SQLite online store, read on the event loop: a point SELECT in page cache costs less than a thread hop.

Layout (feast/infra/online_stores/sqlite.py): one table `"{project}_{view}"` per view, a row per (entity_key,
feature_name) with the Value bytes and event_ts. event_ts is an integer epoch made from a naive UTC time read as local
time, so it is off by the UTC offset of the zone of whoever wrote it; reading undoes it with this process's zone, as
Feast itself does.
"""

import asyncio
import os
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

from sunup.limits import SQLITE_CHECK_SECONDS, SQLITE_KEYS_PER_STATEMENT, SQLITE_MMAP_BYTES, STORE_RETRY_SECONDS
from sunup.lookup.plan import ReadPlan
from sunup.lookup.store import Answer, Found, Keys, Store, StoreUnavailable, nothing, slots

_FEW = 8  # keys in the smaller statement for several keys
_LATE = "the deadline passed during the read"
_STEPS = 1000  # SQLite virtual machine steps between looks at the clock: about 50 us, and free for a point read


class SqliteStore(Store):
    """The store in one file. Read inline; `read` does the same in a thread of its own, for calls with many keys."""

    inline = True

    def __init__(self, path: Path, plan: ReadPlan) -> None:
        self._path = path
        self._here = _Reader(path, plan)
        self._there = _Reader(path, plan)
        self._thread: ThreadPoolExecutor | None = None

    def __repr__(self) -> str:
        return f"<SqliteStore {self._path} {'open' if self._here.connected else 'closed'}>"

    async def open(self) -> None:
        """Open the file now if it is there; otherwise reads fail until it is."""
        self._here.connect()

    def read_now(self, keys: Keys, deadline: float) -> Answer:
        return self._here.read(keys, deadline)

    async def read(self, keys: Keys, deadline: float) -> Answer:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "sqlite-lookup")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._there.read, keys, deadline)

    async def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
        self._here.close()
        self._there.close()


class _Reader:
    """One connection and its statements; used by one thread at a time."""

    def __init__(self, path: Path, plan: ReadPlan) -> None:
        self._path = path
        self._nothing = nothing(plan)
        self._views = [number for number, entity in enumerate(plan.entities) for _ in entity.views]
        # Per view, counted through all entities: feature name -> slot, and the slot of the event time.
        self._slots: list[dict[str, int]] = []
        self._times: list[int] = []
        for entity in plan.entities:
            layout = slots(entity)
            self._times += layout.times
            for view, start in zip(entity.views, layout.starts, strict=True):
                self._slots.append({feature.name: slot for slot, feature in enumerate(view.features, start)})
        self._one = _one_key_each(plan)
        self._many = {size: _many_keys(plan, size) for size in (_FEW, SQLITE_KEYS_PER_STATEMENT)}
        self._connection: sqlite3.Connection | None = None
        self._file = (0, 0)
        self._look_again = 0.0
        self._deadline = 0.0

    @property
    def connected(self) -> bool:
        return self._connection is not None

    def connect(self) -> None:
        """Open the file if it can be opened; never creates it. Otherwise tried again after STORE_RETRY_SECONDS."""
        now = time.monotonic()
        try:
            self._connection = self._opened()
            self._look_again = now + SQLITE_CHECK_SECONDS
        except (sqlite3.Error, OSError):
            self.close()
            self._look_again = now + STORE_RETRY_SECONDS

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._look_again = 0.0

    def read(self, keys: Keys, deadline: float) -> Answer:
        now = time.monotonic()
        if now > deadline:
            raise StoreUnavailable("the deadline passed before the read")
        if now >= self._look_again:
            self._refresh(now)
        if self._connection is None:
            raise StoreUnavailable(f"cannot open {self._path}")
        self._deadline = deadline
        try:
            if len(keys) == sum(map(len, keys)) and all(keys):
                return self._read_one(self._connection, [wanted[0] for wanted in keys])
            return [self._read_many(self._connection, number, wanted) for number, wanted in enumerate(keys)]
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _opened(self) -> sqlite3.Connection:
        status = os.stat(self._path)
        self._file = (status.st_dev, status.st_ino)
        connection = sqlite3.connect(
            f"file:{quote(str(self._path))}?mode=rw",  # read-write so that a WAL file can be read; never to create
            uri=True,
            timeout=0,
            isolation_level=None,
            detect_types=0,
            check_same_thread=False,
        )
        for pragma in ("query_only=1", "busy_timeout=0", f"mmap_size={SQLITE_MMAP_BYTES}"):
            connection.execute(f"PRAGMA {pragma}")
        connection.set_progress_handler(self._late, _STEPS)
        return connection

    def _late(self) -> bool:
        return time.monotonic() > self._deadline

    def _refresh(self, now: float) -> None:
        """Once in a while: has the file appeared, or another taken its place?"""
        self._look_again = now + SQLITE_CHECK_SECONDS
        if self._connection is not None:
            try:
                status = os.stat(self._path)
            except OSError:
                status = None
            if status is not None and (status.st_dev, status.st_ino) == self._file:
                return
            self.close()
        self.connect()

    def _failed(self, error: sqlite3.Error) -> StoreUnavailable:
        name = getattr(error, "sqlite_errorname", "")
        if name == "SQLITE_INTERRUPT":
            return StoreUnavailable(_LATE)
        if not name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            self.close()  # whatever is wrong with this file, start afresh
            self._look_again = time.monotonic() + STORE_RETRY_SECONDS
        return StoreUnavailable(f"{self._path}: {error}")

    def _read_one(self, connection: sqlite3.Connection, keys: list[bytes]) -> Answer:
        """One key of every entity: a statement per view in one transaction, the fast path of a one-row call. One
        statement for all would cost more: each of its rows would have to say which view it is of."""
        found = [list(empty) for empty in self._nothing]
        connection.execute("BEGIN")
        try:
            for (number, statement), slots_of, time_slot in zip(self._one, self._slots, self._times, strict=True):
                if self._late():  # short statements: none runs long enough for the progress handler
                    raise StoreUnavailable(_LATE)
                target, oldest = found[number], None  # a view is as old as the oldest feature read from it
                for name, value, at in connection.execute(statement, (keys[number],)).fetchall():
                    slot = slots_of.get(name)
                    if slot is not None:  # else a feature of the view that the service does not use
                        target[slot] = value
                        if oldest != at and (oldest is None or at < oldest):
                            oldest = at
                if oldest is not None:
                    target[time_slot] = _true_time(oldest)
        finally:
            if connection.in_transaction:  # else an error ended it
                connection.execute("COMMIT")
        return [[one] for one in found]

    def _read_many(self, connection: sqlite3.Connection, number: int, keys: Sequence[bytes]) -> list[Found]:
        """Many keys of one entity: full statements of SQLITE_KEYS_PER_STATEMENT, then small ones.

        The last key is repeated to fill a statement up; each repetition costs about 0.5 us per view.
        """
        found = {key: list(self._nothing[number]) for key in keys}
        slots_of, times_of = self._slots, self._times
        start = 0
        while start < len(keys):
            if self._late():  # as in _read_one
                raise StoreUnavailable(_LATE)
            size = SQLITE_KEYS_PER_STATEMENT if len(keys) - start > 4 * _FEW else _FEW
            chunk = list(keys[start : start + size])
            chunk += chunk[-1:] * (size - len(chunk))
            start += size
            for view, key, name, value, at in connection.execute(self._many[size][number], chunk).fetchall():
                slot = slots_of[view].get(name)
                if slot is not None:
                    target, time_slot = found[key], times_of[view]
                    target[slot] = value
                    seen = target[time_slot]
                    if seen is None or at < seen:
                        target[time_slot] = at
        times = [at for at, owner in zip(self._times, self._views, strict=True) if owner == number]
        for one in found.values():
            for time_slot in times:
                if one[time_slot] is not None:
                    one[time_slot] = _true_time(one[time_slot])
        return [found[key] for key in keys]


def _true_time(stored: int) -> float:
    """Undo the shift described at the top, as `datetime.fromtimestamp(stored).replace(tzinfo=utc)` does in Feast."""
    return float(stored + time.localtime(stored).tm_gmtoff)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _one_key_each(plan: ReadPlan) -> list[tuple[int, str]]:
    """Per view: its entity's number, and the statement that reads it, whose parameter is the key."""
    select = "SELECT feature_name, value, event_ts FROM {} WHERE entity_key = ?"
    return [(number, select.format(table)) for number, table in _tables(plan)]


def _many_keys(plan: ReadPlan, size: int) -> list[str]:
    """Per entity, all of its views for `size` keys."""
    among = ", ".join(f"?{n + 1}" for n in range(size))
    selects: list[list[str]] = [[] for _ in plan.entities]
    for view, (number, table) in enumerate(_tables(plan)):
        columns = f"{view}, entity_key, feature_name, value, event_ts"
        selects[number].append(f"SELECT {columns} FROM {table} WHERE entity_key IN ({among})")
    return [" UNION ALL ".join(parts) for parts in selects]


def _tables(plan: ReadPlan) -> list[tuple[int, str]]:
    """(entity number, quoted table) of every view, in plan order."""
    return [
        (number, _quoted(f"{plan.project}_{view.stored}"))
        for number, entity in enumerate(plan.entities)
        for view in entity.views
    ]
