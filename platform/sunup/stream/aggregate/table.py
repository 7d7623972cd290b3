"""One view in one partition: what its entities did, in tiles.

Pure: no clock, no file. Everything in it follows from the partition's records alone, in their order; how they were cut
into batches, and whether an entity was kept in memory or loaded again, changes nothing, to the last bit.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sunup.stream.aggregate.event import Event
from sunup.stream.aggregate.tiling.blob import States, nothing, pack, unpack
from sunup.stream.aggregate.tiling.layout import Floats, Ints, Layout, Value
from sunup.stream.aggregate.tiling.recent import Recent
from sunup.stream.aggregate.tiling.tiles import ALWAYS, NEVER, Tiles
from sunup.types import Aggregated

TILES_END: Final = 2**32  # a tile is kept as 32 bits
_TOGETHER_MIN: Final = 24  # fewer events than this are taken one by one sooner than at once
_SLOTS: Final = 64  # at first


class Taken(NamedTuple):
    """`before[i]`: the values before event i, one per aggregation in order; and what became of the events."""

    before: list[tuple[Value, ...]]
    aggregated: int
    late: int
    duplicate: int


class Values(NamedTuple):
    """An entity's values online. `at`: their event timestamp; `due`: the time of day at which they change by
    themselves, because a tile leaves a window, None: never again. Seconds since the epoch."""

    values: tuple[Value, ...]
    at: float
    due: float | None


class _Work(NamedTuple):
    """A batch as arrays, one element per event."""

    slots: Ints
    q: Ints
    shares: Floats  # [lanes, events]
    taken: NDArray[np.bool_]
    ids: NDArray[np.uint64]
    known: NDArray[np.bool_]  # taken, and with an id
    times: Floats


class Table:
    """The entities in memory. `watermark`: the newest event time of the partition.

    Times of events are finite; one before 1970 is late. Values that are NaN or infinite are taken for null, and so are
    sums and means that overflow.
    """

    def __init__(self, spec: Aggregated, watermark: float = -inf) -> None:
        self.watermark = watermark
        self._layout = Layout(spec)
        self._hop = spec.hop_s
        self._late_s = spec.late_s
        self._width = len(spec.columns)
        self._index: dict[bytes, int] = {}
        self._free: list[int] = []
        self._newest = np.zeros(0)
        self._tiles, self._recent = Tiles(self._layout), Recent()
        self._keys: list[bytes] = []  # of each slot
        (self.nothing,) = pack(nothing(self._layout), self._layout)  # `changed` of an entity that nothing is left of
        self._dirty = np.zeros(0, np.bool_)  # changed since `changed`
        self._given = np.zeros(0, np.bool_)  # given by `changed`, not kept yet

    def __len__(self) -> int:
        return len(self._index)

    def __repr__(self) -> str:
        return f"Table({len(self)} entities, {int(self._dirty.sum())} changed, watermark {self.watermark})"

    @property
    def forgotten(self) -> int:
        """Ids of events that an entity had more of than AGGREGATE_IDS_MAX: copies of those are not known any more, and
        which they are depends on when `changed` was called."""
        return self._recent.forgotten

    def lacks(self, keys: Iterable[bytes]) -> list[bytes]:
        """Those of `keys` that are not in memory, each once."""
        index = self._index
        return [key for key in dict.fromkeys(keys) if key not in index]

    def load(self, found: Mapping[bytes, bytes | None]) -> None:
        """Entities into memory, as `changed` gave them (None: nothing is stored); what is there already stays.

        ValueError, in words, for a blob that is damaged or of another layout; then nothing is loaded.
        """
        keys = self.lacks(found)
        stored = [(at, blob) for at, key in enumerate(keys) if (blob := found[key]) is not None]
        states = unpack([blob for _, blob in stored], self._layout) if stored else None
        slots = self._slots(len(keys))
        for key, slot in zip(keys, slots.tolist(), strict=True):
            self._index[key] = slot
            self._keys[slot] = key
        if states is not None:
            slots = slots[[at for at, _ in stored]]
            self._newest[slots] = states.newest
            self._tiles.segments.put(slots, states.tiles, states.tile_rows)
            self._recent.put(slots, states.ids, states.id_rows)

    def _slots(self, count: int) -> Ints:
        """Slots for new entities, with nothing in them."""
        free = self._free
        if len(free) < count:
            old = len(self._newest)
            new = max(_SLOTS, old * 3 // 2, old + count)
            free.extend(range(new - 1, old - 1, -1))
            self._newest = np.append(self._newest, np.zeros(new - old))
            self._keys.extend([b""] * (new - old))
            nothing = np.zeros(new - old, np.bool_)
            self._dirty, self._given = np.append(self._dirty, nothing), np.append(self._given, nothing)
            self._tiles.widen(new)
            self._recent.segments.widen(new)
        slots = np.array([free.pop() for _ in range(count)], np.int64)
        self._newest[slots] = -inf
        return slots

    @np.errstate(over="ignore", invalid="ignore")  # a sum that overflows is null
    def take(self, events: Sequence[Event]) -> Taken:
        """Events in the partition's order, every key of them loaded: the values before each, then it is applied."""
        if not events:
            return Taken([], 0, 0, 0)
        _, keys, clock, ids, rows = zip(*events, strict=True)
        slots = [self._index[key] for key in keys]
        times = np.array(clock, np.float64)
        marks = np.maximum.accumulate(np.maximum(times, self.watermark))
        edges = marks - self._late_s
        late = (times < edges) | (times < 0.0) | (times >= TILES_END * float(self._hop))
        copies = self._recent.copies(events, slots, np.where(late, inf, edges))
        taken = ~late
        taken[copies] = False
        known = taken
        if None in ids:
            known = taken & np.array([id is not None for id in ids])
            ids = tuple(id or 0 for id in ids)
        self.watermark = float(marks[-1])
        q = np.floor_divide(np.maximum(times, edges), self._hop).astype(np.int64)
        shares = self._layout.shares([*zip(*rows, strict=True)])
        work = _Work(np.array(slots), q, shares, taken, np.array(ids, np.uint64), known, times)
        parts = self._apply(work)
        self._dirty[work.slots[taken]] = True
        late_count = int(late.sum())
        return Taken(self._layout.values(parts), len(events) - late_count - len(copies), late_count, len(copies))

    def _apply(self, work: _Work) -> Floats:
        """The parts before each event. The first event of every entity is taken at once with those of the others, then
        the second, and so on; where few entities have more, those are taken one by one."""
        parts = np.empty((len(self._layout.parts), len(work.slots)))
        order = np.argsort(work.slots, kind="stable")
        sorted_slots = work.slots[order]
        firsts = np.flatnonzero(np.diff(sorted_slots, prepend=-1))
        sizes = np.diff(firsts, append=len(order))
        turn = 0
        while True:
            more = sizes > turn
            at = order[firsts[more] + turn]
            if len(at) < _TOGETHER_MIN:
                break
            parts[:, at] = self._tiles.step(work.slots[at], work.q[at], work.shares[:, at], work.taken[at])
            self._note(work, at)
            turn += 1
        for first, size in zip(firsts[more].tolist(), sizes[more].tolist(), strict=True):
            self._apply_one_by_one(work, order[first + turn : first + size], parts)
        return parts

    def _apply_one_by_one(self, work: _Work, places: Ints, parts: Floats) -> None:
        slot = int(work.slots[places[0]])
        q, taken = work.q[places].tolist(), work.taken[places].tolist()
        for at, tile, is_taken in zip(places.tolist(), q, taken, strict=True):
            parts[:, at] = self._tiles.step_one(slot, tile, work.shares[:, at], is_taken)
        self._note_all(work, slot, places)

    def _note(self, work: _Work, at: Ints) -> None:
        """Newest times and ids of events of different entities."""
        taken = at[work.taken[at]]
        slots = work.slots[taken]
        self._newest[slots] = np.maximum(self._newest[slots], work.times[taken])
        known = at[work.known[at]]
        self._recent.add(work.slots[known], work.ids[known], work.times[known])

    def _note_all(self, work: _Work, slot: int, at: Ints) -> None:
        """The same of one entity."""
        self._newest[slot] = max(self._newest[slot], work.times[at[work.taken[at]]].max(initial=-inf))
        known = at[work.known[at]]
        self._recent.add_all(slot, work.ids[known], work.times[known])

    def changed(self) -> Mapping[bytes, bytes | None]:
        """The entities that changed since `kept`, as bytes (see blob.py); None: nothing is left of it."""
        self._given |= self._dirty
        self._dirty[:] = False
        slots = np.flatnonzero(self._given)
        if not len(slots):
            return {}
        self._prune(slots)
        tiles, recent = self._tiles.segments, self._recent.segments
        sizes, ids = tiles.size[slots], recent.size[slots]
        columns = [[column[each.rows(slots)[0]] for column in each.columns] for each in (recent, tiles)]
        blobs = pack(States(self._newest[slots], ids, sizes, *columns), self._layout)
        left = ((sizes > 0) | (ids > 0)).tolist()
        keys = [self._keys[slot] for slot in slots.tolist()]
        return {key: blob if some else None for key, blob, some in zip(keys, blobs, left, strict=True)}

    def _prune(self, slots: Ints) -> None:
        """Away with tiles that no event or caller can ask for any more, and with ids whose copies would be late."""
        self._recent.prune(slots, self.watermark - self._late_s)
        tiles = self._tiles.segments
        rows, owner = tiles.rows(slots)
        tiles.keep(slots, rows, owner, tiles.columns[0][rows] > self._edge() - self._layout.windows[-1])

    def kept(self) -> None:
        """What `changed` gave last is stored."""
        self._given[:] = False

    @np.errstate(over="ignore", invalid="ignore")
    def values(self, keys: Sequence[bytes], wall: float) -> list[Values]:
        """The values of entities in memory as of the tile of `wall` (seconds since the epoch), or of the newest one
        that is known to have begun, by the entity's events or by the watermark."""
        now = max(int(wall // self._hop), self._edge())
        slots = np.array([self._index[key] for key in keys], np.int64)
        newest = self._tiles.newest(slots)
        q = np.maximum(newest, now)
        parts, due = self._tiles.read(slots, q, newest)
        at = np.maximum(self._newest[slots], q * float(self._hop)).tolist()
        walls: list[float | None] = (due * float(self._hop)).tolist()
        if due.max(initial=0) == ALWAYS:
            walls = [None if never else wall for wall, never in zip(walls, (due == ALWAYS).tolist(), strict=True)]
        return list(map(Values, self._layout.values(parts), at, walls))

    def drop(self, keys: Iterable[bytes]) -> None:
        """Entities out of memory; those that changed since they were kept stay."""
        index = self._index
        slots = np.array([index[key] for key in dict.fromkeys(keys) if key in index], np.int64)
        slots = slots[~(self._dirty[slots] | self._given[slots])]
        self._tiles.clear(slots)
        self._recent.segments.clear(slots)
        for slot in slots.tolist():
            del index[self._keys[slot]]
            self._keys[slot] = b""
            self._free.append(slot)

    def _edge(self) -> int:
        """The oldest tile that anything can be asked as of."""
        return NEVER if self.watermark == -inf else int((self.watermark - self._late_s) // self._hop)
