"""The tiles of many entities, read and filled for thousands of events at a time.

What a value comes to is a function of the tiles in its window and nothing else: those before the tile it is asked as
of are merged first, in one reduction over exactly them, then that tile's own. No number is ever subtracted, so sums do
not drift, and a table that was loaded again says the same to the last bit.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sunup.stream.aggregate.tiling.layout import Floats, Ints, Layout
from sunup.stream.aggregate.tiling.segments import Segments

NEVER: Final = -(2**62)  # a tile that no event is in
ALWAYS: Final = 2**62  # a tile that does not come
_FIRST: Final = np.zeros(1, np.int64)


class Read(NamedTuple):
    """`parts`: [parts, entities]; `due`: the tile as of which it will have changed by itself, ALWAYS: none."""

    parts: Floats
    due: Ints


class Tiles:
    """Slots of entities. What closed tiles come to is kept per slot for the tile it was last asked as of."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lanes_of = np.array([part.lane for part in layout.parts])
        self._empty = layout.empty[self._lanes_of]
        self.segments = Segments([np.int64, *(np.float64 for _ in layout.lanes)])
        self._asked = np.zeros(0, np.int64)
        self._due = np.zeros(0, np.int64)
        self._closed = np.zeros((len(layout.parts), 0))

    def widen(self, slots: int) -> None:
        """Make it that many slots."""
        more = slots - len(self._asked)
        self._asked = np.append(self._asked, np.full(more, NEVER))
        self._due = np.append(self._due, np.full(more, ALWAYS))
        self._closed = np.concatenate((self._closed, np.zeros((len(self._closed), more))), axis=1)
        self.segments.widen(slots)

    def clear(self, slots: Ints) -> None:
        """Forget these."""
        self.segments.clear(slots)
        self._asked[slots] = NEVER

    def newest(self, slots: Ints) -> Ints:
        """The newest tile of each, NEVER without one."""
        segments = self.segments
        size = segments.size[slots]
        tiles = segments.columns[0]
        found: Ints = np.where(size > 0, tiles[(segments.start[slots] + size - 1) * (size > 0)], NEVER)
        return found

    def read(self, slots: Ints, q: Ints, newest: Ints) -> Read:
        """As of tiles `q`, none before the newest; nothing is kept of it."""
        other = self._asked[slots] != q
        parts, due = self._closed[:, slots], self._due[slots]
        parts[:, other], due[other] = self._empty[:, None], ALWAYS
        some = np.flatnonzero(other & (newest > q - self._layout.windows[-1]))
        if len(some):
            parts[:, some], due[some] = self._merge(slots[some], q[some])
        headed = np.flatnonzero(newest == q)
        self._add_heads(parts, headed, slots[headed])
        due[headed] = np.minimum(due[headed], q[headed] + self._layout.windows[0])
        return Read(parts, due)

    def step(self, slots: Ints, q: Ints, shares: Floats, taken: NDArray[np.bool_]) -> Floats:
        """One event of each slot, no slot twice: the parts before it, as of tile `q`; if it is `taken` then its shares
        [lanes, events] go into that tile."""
        parts = np.empty((len(self._lanes_of), len(slots)))
        newest = self.newest(slots)
        for at in np.flatnonzero(newest > q).tolist():
            parts[:, at] = self.step_one(int(slots[at]), int(q[at]), shares[:, at], bool(taken[at]))
        rest = np.flatnonzero(newest <= q)
        slots, q, newest = slots[rest], q[rest], newest[rest]
        other = self._asked[slots] != q
        if other.any():
            of = slots[other]
            self._closed[:, of], self._due[of] = self._merge(of, q[other])
            self._asked[of] = q[other]
        before = self._closed[:, slots]
        headed = np.flatnonzero(newest == q)
        self._add_heads(before, headed, slots[headed])
        parts[:, rest] = before
        self._fill(slots, q, newest, shares[:, rest], taken[rest])
        return parts

    def step_one(self, slot: int, q: int, share: Floats, taken: bool) -> Floats:
        """The same for one event, which may be of any tile."""
        layout, segments = self._layout, self.segments
        start = int(segments.start[slot])
        tiles = segments.columns[0][start : start + int(segments.size[slot])]
        place = len(tiles) - 1  # of tile q, or where it would be
        if place < 0 or tiles[place] != q:
            place = int(tiles.searchsorted(q))
        there = place < len(tiles) and tiles[place] == q
        if self._asked[slot] != q:
            self._merge_one(slot, start, tiles[:place], q)
        parts: Floats = self._closed[:, slot].copy()
        if there:
            for at, lane in enumerate(self._lanes_of.tolist()):
                parts[at] = layout.merges[lane](parts[at], segments.columns[lane + 1][start + place])
        if taken:
            row = start + place
            if not there:
                row = segments.insert(slot, place)
                segments.columns[0][row] = q
            for at, merge in enumerate(layout.merges):
                column = segments.columns[at + 1]
                column[row] = merge(column[row] if there else layout.empty[at], share[at])
        return parts

    def _fill(self, slots: Ints, q: Ints, newest: Ints, shares: Floats, taken: NDArray[np.bool_]) -> None:
        """Shares into the newest tiles, which begin here where they are not there yet."""
        segments = self.segments
        fresh = np.flatnonzero(taken & (newest < q))
        rows = segments.append(slots[fresh])
        segments.columns[0][rows] = q[fresh]
        for at, empty in enumerate(self._layout.empty.tolist()):
            segments.columns[at + 1][rows] = empty
        filled = np.flatnonzero(taken)
        rows = segments.start[slots[filled]] + segments.size[slots[filled]] - 1
        for at, merge in enumerate(self._layout.merges):
            column = segments.columns[at + 1]
            column[rows] = merge(column[rows], shares[at, filled])

    def _add_heads(self, parts: Floats, places: Ints, slots: Ints) -> None:
        """The newest tiles of slots, merged into the columns `places` of `parts`."""
        rows = self.segments.start[slots] + self.segments.size[slots] - 1
        for at, lane in enumerate(self._lanes_of.tolist()):
            merged = self._layout.merges[lane](parts[at, places], self.segments.columns[lane + 1][rows])
            parts[at, places] = merged

    def _merge(self, slots: Ints, q: Ints) -> tuple[Floats, Ints]:
        """What the tiles before `q` in each window come to, and as of which tile the first of them leaves."""
        rows, owner = self.segments.rows(slots)
        tiles, ends = self.segments.columns[0][rows], q[owner]
        parts = np.repeat(self._empty[:, None], len(slots), axis=1)
        due = np.full(len(slots), ALWAYS)
        for window in self._layout.windows:
            inside = np.flatnonzero((tiles < ends) & (tiles > ends - window))
            if not len(inside):
                continue
            owners, picked = owner[inside], rows[inside]
            firsts = np.flatnonzero(np.diff(owners, prepend=-1))
            some = owners[firsts]
            due[some] = np.minimum(due[some], tiles[inside[firsts]] + window)
            for at, part in enumerate(self._layout.parts):
                if part.tiles == window:
                    numbers = self.segments.columns[part.lane + 1][picked]
                    parts[at, some] = self._layout.merges[part.lane].reduceat(numbers, firsts)
        return parts, due

    def _merge_one(self, slot: int, start: int, tiles: NDArray[Any], q: int) -> None:
        """The same for one slot, kept: `tiles` are those of it before `q`."""
        due = ALWAYS
        for window in self._layout.windows:
            first = int(tiles.searchsorted(q - window, "right"))
            if first < len(tiles):
                due = min(due, int(tiles[first]) + window)
            for at, part in enumerate(self._layout.parts):
                if part.tiles == window:
                    numbers = self.segments.columns[part.lane + 1][start + first : start + len(tiles)]
                    found = self._layout.merges[part.lane].reduceat(numbers, _FIRST)[0] if len(numbers) else None
                    self._closed[at, slot] = self._empty[at] if found is None else found
        self._due[slot], self._asked[slot] = due, q
