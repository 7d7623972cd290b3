"""Many short lists in a few long arrays: one segment of rows per entity, so that thousands change in one operation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunup.stream.aggregate.tiling.layout import Ints

_ROWS: int = 64  # at first
_ROOM: int = 2  # rows a segment gets when it gets its first


class Segments:
    """`columns` share the rows: slot s has the rows from `start[s]`, `size[s]` of them, with space for `room[s]`.

    A segment that outgrows its room moves to the end; what it leaves is reclaimed when the end of the arrays is met.
    """

    def __init__(self, dtypes: Sequence[type[Any]]) -> None:
        self.columns: list[NDArray[Any]] = [np.empty(_ROWS, dtype) for dtype in dtypes]
        self.start = np.zeros(0, np.int64)
        self.size = np.zeros(0, np.int64)
        self.room = np.zeros(0, np.int64)
        self._end = 0

    def widen(self, slots: int) -> None:
        """Make it that many slots; new ones are empty."""
        more = np.zeros(slots - len(self.size), np.int64)
        self.start, self.size, self.room = (np.append(each, more) for each in (self.start, self.size, self.room))

    def clear(self, slots: Ints) -> None:
        """Forget the rows of these slots."""
        self.size[slots] = self.room[slots] = 0

    def append(self, slots: Ints) -> Ints:
        """One more row for each of these slots, no slot twice: where it is. The row's content is arbitrary."""
        full = slots[self.size[slots] == self.room[slots]]
        if len(full):
            self._move(full, np.maximum(self.size[full] * 2, _ROOM))
        rows = self.start[slots] + self.size[slots]
        self.size[slots] += 1
        return rows

    def extend(self, slot: int, count: int) -> slice:
        """That many more rows for one slot: where they are."""
        size = int(self.size[slot])
        if size + count > self.room[slot]:
            self._move(np.array([slot]), np.array([max(size * 2, size + count)]))
        self.size[slot] = size + count
        start = int(self.start[slot])
        return slice(start + size, start + size + count)

    def insert(self, slot: int, place: int) -> int:
        """One more row at `place` of a slot's: where it is. What was there and behind it moves on."""
        last = int(self.append(np.array([slot]))[0])
        at = int(self.start[slot]) + place
        for column in self.columns:
            column[at + 1 : last + 1] = column[at:last].copy()
        return at

    def rows(self, slots: Ints) -> tuple[Ints, Ints]:
        """The rows of these slots, one slot after the other, and the place in `slots` each is of."""
        size = self.size[slots]
        ends = np.cumsum(size)
        owner = np.repeat(np.arange(len(slots)), size)
        return (self.start[slots] - ends + size)[owner] + np.arange(len(owner)), owner

    def put(self, slots: Ints, size: Ints, columns: Sequence[NDArray[Any]]) -> None:
        """Give empty slots their rows, one slot after the other."""
        self._move(slots, size)
        self.size[slots] = size
        rows, _ = self.rows(slots)
        for ours, theirs in zip(self.columns, columns, strict=True):
            ours[rows] = theirs

    def keep(self, slots: Ints, rows: Ints, owner: Ints, wanted: NDArray[np.bool_]) -> None:
        """Of what `rows` gave for these slots only what is wanted."""
        if wanted.all():
            return
        kept = rows[wanted]
        self.size[slots] = np.bincount(owner[wanted], minlength=len(slots))
        to, _ = self.rows(slots)
        for column in self.columns:
            column[to] = column[kept]

    def _move(self, slots: Ints, room: Ints) -> None:
        """These segments to the end, each with `room` rows."""
        wanted = int(room.sum())
        if self._end + wanted > len(self.columns[0]):
            self._reclaim(wanted)
        rows, owner = self.rows(slots)
        starts = self._end + np.cumsum(room) - room
        to = rows + (starts - self.start[slots])[owner]
        for column in self.columns:
            column[to] = column[rows]
        self.start[slots], self.room[slots] = starts, room
        self._end += wanted

    def _reclaim(self, wanted: int) -> None:
        """New arrays without the gaps, with place for `wanted` more rows and half of all there is."""
        slots = np.flatnonzero(self.size)
        rows, _ = self.rows(slots)
        self.start = np.cumsum(self.room) - self.room
        self._end = int(self.room.sum())
        to, _ = self.rows(slots)
        length = max(_ROWS, (self._end + wanted) * 3 // 2)
        for at, column in enumerate(self.columns):
            fresh = np.empty(length, column.dtype)
            fresh[to] = column[rows]
            self.columns[at] = fresh
