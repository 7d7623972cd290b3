"""Which entities of a partition have to be written to the store, and which nothing is left of.

A value changes by itself when a tile leaves a window: the file has an index of when that is.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sunup.stream.aggregate.kept.state import GONE, Change, State


class Entity(NamedTuple):
    """One row: its id, the index of its view, its key and what is kept of it."""

    id: int
    view: int
    key: bytes
    blob: bytes | None


class Due:
    """Of one open file."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._behind: int | None = None  # where `resend` is once the rows given last are settled

    def soonest(self) -> float | None:
        """Wall seconds when something has to be written; 0.0: now; None: nothing will, unless something happens."""
        if self._state.resend is not None:
            return 0.0
        with self._state.use() as connection:
            (due,) = connection.execute("SELECT MIN(due) FROM entity WHERE due IS NOT NULL").fetchone()
        found: float | None = due
        return found

    def count(self, view: int, wall: float) -> tuple[int, int]:
        """Entities of a view, and how many of them are due by `wall`."""
        number, behind = self._state.numbers[view], self._state.resend
        with self._state.use() as connection:
            (every,) = connection.execute("SELECT COUNT(*) FROM entity WHERE view = ?", (number,)).fetchone()
            query = "SELECT COUNT(*) FROM entity WHERE view = ? AND (due <= ? OR id > ?)"
            values = (number, wall, 2**62 if behind is None else behind)
            (due,) = connection.execute(query, values).fetchone()
        return every, due

    def rows(self, wall: float, count: int) -> list[Entity]:
        """Those that have to be written by `wall`, at most `count`; the same ones again until they are settled."""
        self._behind = self._state.resend
        found = self._entities("due <= ? ORDER BY due", wall, count)
        if self._state.resend is not None and len(found) < count:
            known = {entity.id for entity in found}
            left = count - len(found)
            more = self._entities("id > ? AND blob NOT NULL ORDER BY id", self._state.resend, left)
            self._behind = more[-1].id if len(more) == left else None
            found += [entity for entity in more if entity.id not in known]
        return found

    def settle(self, written: Iterable[tuple[float | None, float, int]]) -> None:
        """The rows given last are written: (due, ends, id) of each from now on. `ends` stays where it is sooner."""
        with self._state.change() as connection:
            connection.executemany("UPDATE entity SET due = ?, ends = MIN(ends, ?) WHERE id = ?", written)
            self._resend(connection, self._behind)

    def owe(self, view: int, keys: Iterable[bytes]) -> None:
        """These could not be written: they are due, and the changelog has to be told."""
        rows = [(self._state.numbers[view], key) for key in keys]
        with self._state.change() as connection:
            connection.executemany(
                "UPDATE entity SET due = 0, is_logged = 0 WHERE view = ? AND key = ? AND blob NOT NULL", rows
            )

    def everything(self, mark: bytes) -> None:
        """The store has lost what was written, and has another mark now."""
        with self._state.change() as connection:
            connection.execute("UPDATE part SET resend = 0, mark = ?", (mark,))
        self._state.resend, self._state.mark = 0, mark

    def unlogged(self, count: int) -> tuple[list[int], list[Change]]:
        """At most `count` entities that the changelog does not hold: their ids, and what it has to hold."""
        with self._state.use() as connection:
            query = "SELECT id, view, key, blob, due, ends FROM entity WHERE NOT is_logged LIMIT ?"
            found = connection.execute(query, (count,)).fetchall()
        index = self._state.numbers.index
        changes = [Change(index(view), *rest) for _, view, *rest in found]
        return [row[0] for row in found], changes

    def idle(self, watermarks: Sequence[float], count: int) -> list[tuple[int, bytes]]:
        """(view, key) of at most `count` entities that nothing is left of; view GONE: keys of the changelog."""
        found: list[tuple[int, bytes]] = []
        with self._state.use() as connection:
            for view, watermark in [(GONE, 0.0), *enumerate(watermarks)]:
                query = "SELECT key FROM entity WHERE view = ? AND ends <= ? AND due IS NULL LIMIT ?"
                number = GONE if view == GONE else self._state.numbers[view]
                values = (number, watermark, count - len(found))
                found += [(view, key) for (key,) in connection.execute(query, values)]
        return found

    def _entities(self, where: str, since: float, count: int) -> list[Entity]:
        with self._state.use() as connection:
            query = f"SELECT id, view, key, blob FROM entity WHERE {where} LIMIT ?"
            rows = connection.execute(query, (since, count)).fetchall()
        index = self._state.numbers.index
        return [Entity(id_, index(view), key, blob) for id_, view, key, blob in rows]

    def _resend(self, connection: sqlite3.Connection, behind: int | None) -> None:
        if behind != self._state.resend:
            connection.execute("UPDATE part SET resend = ?", (behind,))
            self._state.resend = behind


def unlog(state: State) -> None:
    """The changelog holds nothing of this."""
    with state.change() as connection:
        connection.execute("UPDATE entity SET is_logged = 0 WHERE blob NOT NULL")
