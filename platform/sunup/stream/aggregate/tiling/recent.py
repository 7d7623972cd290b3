"""The ids of recent events, by which a second copy of one is known."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunup.limits import AGGREGATE_IDS_MAX
from sunup.stream.aggregate.event import Event
from sunup.stream.aggregate.tiling.layout import Floats, Ints
from sunup.stream.aggregate.tiling.segments import Segments

_SPARE = 100_000  # ids that may be remembered beyond those that are needed, before they are gone through


class Recent:
    """Per slot of an entity the ids of its events, in the order they came, and their times."""

    def __init__(self) -> None:
        self.forgotten = 0  # ids that were too many
        self.segments = Segments([np.uint64, np.float64])
        # All ids there are, and some that are gone: what is not among them is new, which is quick to see.
        self._seen: set[int | None] = {None}

    def copies(self, events: Sequence[Event], slots: Sequence[int], edges: Floats) -> list[int]:
        """The places of `events` whose id their entity had already, at a time not before their `edges`, in those
        before it or among these. One that is older than its edge is none, and makes none."""
        ids = [event.id for event in events]
        fresh = set(ids)
        if fresh == {None}:
            return []
        if len(fresh) == len(ids) and self._seen.isdisjoint(fresh):
            self._seen |= fresh
            return []
        often = {id for id, count in Counter(ids).items() if count > 1}
        suspects = [at for at, id in enumerate(ids) if id in often or id in self._seen]
        self._seen |= fresh
        found, times = [], dict[tuple[int, int], float]()
        for at in suspects:
            event, slot, edge = events[at], slots[at], float(edges[at])
            if event.id is None or event.time < edge:
                continue
            before = times.get((slot, event.id))
            if (self._last(slot, event.id) if before is None else before) >= edge:
                found.append(at)
            else:
                times[slot, event.id] = event.time
        return found

    def _last(self, slot: int, id: int) -> float:
        """When the entity had an event of this id last; -inf: not as far as is known."""
        segments = self.segments
        rows = slice(int(segments.start[slot]), int(segments.start[slot] + segments.size[slot]))
        (places,) = np.nonzero(segments.columns[0][rows] == np.uint64(id))
        return float(segments.columns[1][rows][places].max(initial=-np.inf))

    def add(self, slots: Ints, ids: NDArray[np.uint64], times: Floats) -> None:
        """One event of each slot, no slot twice."""
        rows = self.segments.append(slots)
        self.segments.columns[0][rows] = ids
        self.segments.columns[1][rows] = times

    def add_all(self, slot: int, ids: NDArray[np.uint64], times: Floats) -> None:
        """Events of one slot."""
        rows = self.segments.extend(slot, len(ids))
        self.segments.columns[0][rows] = ids
        self.segments.columns[1][rows] = times

    def put(self, slots: Ints, size: Ints, columns: Sequence[NDArray[Any]]) -> None:
        """What was stored of empty slots."""
        self.segments.put(slots, size, columns)
        self._seen.update(columns[0].tolist())

    def prune(self, slots: Ints, edge: float) -> None:
        """Away with ids of these slots that are older, and with the first ones of a slot that has too many."""
        rows, owner = self.segments.rows(slots)
        self.segments.keep(slots, rows, owner, self.segments.columns[1][rows] >= edge)
        size = self.segments.size[slots]
        if size.max(initial=0) > AGGREGATE_IDS_MAX:
            rows, owner = self.segments.rows(slots)
            left = np.cumsum(size)[owner] - np.arange(len(rows))  # with itself, to the last one of its slot
            self.segments.keep(slots, rows, owner, left <= AGGREGATE_IDS_MAX)
            self.forgotten += int((left > AGGREGATE_IDS_MAX).sum())
        if len(self._seen) > 2 * int(self.segments.size.sum()) + _SPARE:
            rows, _ = self.segments.rows(np.flatnonzero(self.segments.size))
            self._seen = {None, *self.segments.columns[0][rows].tolist()}
