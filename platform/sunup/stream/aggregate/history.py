"""The values of stream feature views from a table of past events: what training sees, and what the stream must equal.

Whole arrays at a time and apart from how the stream keeps its tiles: nothing here is used when a record is scored, and
nothing of that is used here, so that each checks the other.

    point_in_time    each row's values before it, of a history that is complete: what a model is trained on
    replayed         the same as one reader of the topic works it out, in the order the events came: late and doubled
                     ones are left out
    as_of            each entity's values at a moment, after everything that happened: what is read online then

Events are sorted by entity, tile and order; whatever a value is made of is then a few runs of neighbours. A run is
summed over halves of halves (`_reduced`), so that neither its length nor what lies before it costs digits.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sunup.types import Aggregated, Aggregation

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]
Features: TypeAlias = dict[str, Floats]
"""Feature -> [rows], in float64. Of a window without events min, max and mean are NaN; counts and sums are 0."""

_Combine: TypeAlias = Callable[[Floats, Floats], Floats]
_COMBINED: Final[Mapping[str, tuple[_Combine, float]]] = {
    "sum": (np.add, 0.0),
    "count": (np.add, 0.0),
    "min": (np.minimum, np.inf),
    "max": (np.maximum, -np.inf),
}


@dataclass(frozen=True, slots=True)
class History:
    """Events in parallel arrays [n]. `entity`: anything that sorts, equal where the entity is; `time`: their own, in
    seconds since the epoch; `values`: event field -> float64, NaN: null or absent; for a field that is only counted any
    number will do. `id`: by which copies are known, None: nothing is; `partition`: of the topic, None: all are in one.
    """

    entity: NDArray[Any]
    time: Floats
    values: Mapping[str, Floats]
    id: NDArray[Any] | None = None
    partition: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.time)

    def only(self, chosen: Bools | Ints) -> "History":
        """The chosen events, in the order of `chosen`."""
        return replace(
            self,
            entity=self.entity[chosen],
            time=self.time[chosen],
            values={name: column[chosen] for name, column in self.values.items()},
            id=None if self.id is None else self.id[chosen],
            partition=None if self.partition is None else self.partition[chosen],
        )


class Replayed(NamedTuple):
    """What a reader of the topic made of each event [n]: `before`, the values its score was given, and whether it was
    aggregated; if not, it was late or a duplicate."""

    before: Features
    aggregated: Bools
    late: Bools
    duplicate: Bools


def point_in_time(
    spec: Aggregated, history: History, entity: NDArray[Any] | None = None, time: Floats | None = None
) -> Features:
    """The features of `spec` for rows (`entity` [m], `time` [m] in seconds), each made of strictly earlier events.

    Without rows they are the events themselves: each sees those before it in time, of one and the same time those
    before it in the table, and never itself. Ids and partitions play no part: the history is taken to be complete, in
    whatever order it is. Equals what the stream gives the score of each event, where none comes late or twice.
    """
    order = np.argsort(history.time, kind="stable")
    rank = np.empty(len(history), np.int64)
    rank[order] = np.arange(len(history))
    if entity is None or time is None:
        asked, time, bound = history.entity, history.time, rank
    else:
        asked, bound = entity, np.searchsorted(history.time[order], time, side="left").astype(np.int64)
    group, rows = _groups(history.entity, asked)
    newest = _tile(time, spec)
    return _features(spec, _Sorted.of(history, group, rank, spec), _Asked(rows, newest, newest, bound))


def as_of(spec: Aggregated, history: History, entity: NDArray[Any], time: Floats) -> Features:
    """The features of entities `entity` [m] at the moments `time` [m], after all of `history` happened.

    As they are read online then: of whole tiles, up to the one that holds the moment, or the entity's newest one if
    that is ahead. Pass only what was aggregated: `history.only(replayed(...).aggregated)`.
    """
    group, rows = _groups(history.entity, entity)
    newest = _tile(time, spec)
    if len(history):
        ahead = np.full(int(max(group.max(), rows.max(initial=0))) + 1, np.iinfo(np.int64).min)
        np.maximum.at(ahead, group, _tile(history.time, spec))
        newest = np.maximum(newest, ahead[rows])
    order, all_of_it = np.arange(len(history)), np.full(len(rows), len(history), np.int64)
    return _features(spec, _Sorted.of(history, group, order, spec), _Asked(rows, newest, newest + 1, all_of_it))


def replayed(spec: Aggregated, history: History) -> Replayed:
    """What one reader per partition makes of `history` in the order it is given, which is that of the topic.

    Of each partition the newest event time so far is the watermark. An event more than `spec.late_s` older is late;
    one with the id of an aggregated event of its entity that is not yet so old is a duplicate. Each event's values are
    as of its own time, or of the oldest that could still come, where that is newer.
    """
    if not len(history):
        none = np.zeros(0, np.bool_)
        return Replayed({each.feature: np.zeros(0) for each in spec.aggregations}, none, none, none)
    partition = np.zeros(len(history), np.int64) if history.partition is None else history.partition
    _, place = np.unique(partition, return_inverse=True)
    _, entities = np.unique(history.entity, return_inverse=True)
    group = place.astype(np.int64) * (int(entities.max()) + 1) + entities
    oldest = _watermarks(place, history.time) - spec.late_s
    late = history.time < oldest
    duplicate = _duplicates(history, group, oldest, late)
    aggregated = ~late & ~duplicate
    arrival = np.flatnonzero(aggregated)
    index = _Sorted.of(history.only(aggregated), group[aggregated], arrival, spec)
    newest = _tile(np.maximum(history.time, oldest), spec)
    # Nothing that is aggregated from here on is older than `oldest`: the tiles before its own do not change any more.
    rows = _Asked(group, newest, _tile(oldest, spec), np.arange(len(history)))
    return Replayed(_features(spec, index, rows), aggregated, late, duplicate)


def _tile(time: Floats, spec: Aggregated) -> Ints:
    return np.floor_divide(time, spec.hop_s).astype(np.int64)


def _groups(entity: NDArray[Any], asked: NDArray[Any]) -> tuple[Ints, Ints]:
    """Entities as numbers from 0 on, those of the events and those asked for."""
    _, number = np.unique(np.concatenate([entity, asked]), return_inverse=True)
    number = number.astype(np.int64).ravel()
    return number[: len(entity)], number[len(entity) :]


def _watermarks(place: NDArray[Any], time: Floats) -> Floats:
    """Of each event, the newest time before it in its partition; before the first one, that one's own time."""
    found = np.empty(len(time))
    for number in range(int(place.max()) + 1):
        mine = np.flatnonzero(place == number)
        times = time[mine]
        found[mine] = np.maximum.accumulate(np.concatenate([times[:1], times[:-1]]))
    return found


def _duplicates(history: History, group: Ints, oldest: Floats, late: Bools) -> Bools:
    found = np.zeros(len(history), np.bool_)
    if history.id is None:
        return found
    _, number = np.unique(history.id, return_inverse=True)
    order = np.lexsort((np.arange(len(history)), number, group))
    order = order[~late[order]]
    again = (np.diff(group[order]) == 0) & (np.diff(number.ravel()[order]) == 0)
    kept = -np.inf  # the newest time of this entity and id that was aggregated
    for at in np.flatnonzero(again):  # few: copies are rare
        first, copy = order[at], order[at + 1]
        if not found[first]:
            kept = history.time[first] if at == 0 or not again[at - 1] else max(kept, history.time[first])
        found[copy] = kept >= oldest[copy]
    return found


class _Sorted(NamedTuple):
    """Events by group, tile and order. `values`: as History has them; `tiles`: of each tile with events one number for
    group and tile, ascending; `starts`: where it begins, and the end; `orders`: of each event one number for the place
    of its tile in `tiles` and its order, ascending: place * wide + order. Tile k of group g is
    g * span + k - low + 1."""

    values: Mapping[str, Floats]
    tiles: Ints
    starts: Ints
    orders: Ints
    low: int
    span: int
    wide: int

    @classmethod
    def of(cls, history: History, group: Ints, order: Ints, spec: Aggregated) -> "_Sorted":
        """`group`, `order` [n]: of each event; orders are unique and not negative."""
        tile = _tile(history.time, spec)
        low, high = (int(tile.min()), int(tile.max())) if len(tile) else (0, 0)
        span = high - low + 3  # one tile more on either side, for what lies outside
        number = group * span + (tile - low + 1)
        by = np.lexsort((order, number))
        tiles, starts = np.unique(number[by], return_index=True)
        starts = np.append(starts, len(by)).astype(np.int64)
        place = np.repeat(np.arange(len(tiles)), np.diff(starts))
        wide = int(order.max(initial=0)) + 2
        values = {name: np.asarray(column, np.float64)[by] for name, column in history.values.items()}
        return cls(values, tiles, starts, place * wide + order[by], low, span, wide)

    def first(self, group: Ints, tile: Ints) -> Ints:
        """The place in `tiles` of the first tile of each group that is not before `tile`, or of the next group's."""
        within = np.clip(tile - self.low + 1, 0, self.span)
        return np.searchsorted(self.tiles, group * self.span + within).astype(np.int64)

    def before(self, place: Ints, order: Ints) -> Ints:
        """Where the events of the tile at each `place` end that are before `order`."""
        return np.searchsorted(self.orders, place * self.wide + np.minimum(order, self.wide - 1)).astype(np.int64)


class _Asked(NamedTuple):
    """Rows of `group` as of the tile `newest`. Of tiles from `open_from` on only events with an order less than `bound`
    count; of older ones all do."""

    group: Ints
    newest: Ints
    open_from: Ints
    bound: Ints


def _features(spec: Aggregated, events: _Sorted, rows: _Asked) -> Features:
    made: dict[tuple[str, str, int], Floats] = {}
    runs: dict[int, list[tuple[Ints, Ints]]] = {}

    def value(function: str, each: Aggregation) -> Floats:
        key = (function, each.column, each.window_s)
        if key not in made:
            if each.window_s not in runs:
                runs[each.window_s] = _runs(events, rows, each.window_s // spec.hop_s)
            made[key] = _over(events.values[each.column], runs[each.window_s], function)
        return made[key]

    found = {}
    for each in spec.aggregations:
        if each.function in ("sum", "count"):
            found[each.feature] = value(each.function, each)
            continue
        count = value("count", each)
        total = value("sum" if each.function == "mean" else each.function, each)
        divisor = np.maximum(count, 1) if each.function == "mean" else 1.0
        found[each.feature] = np.where(count > 0, total / divisor, np.nan)
    return found


def _runs(events: _Sorted, rows: _Asked, tiles: int) -> list[tuple[Ints, Ints]]:
    """For every row the events of its last so many tiles as runs [start, stop): that of all tiles which are closed,
    then, one list entry each, what counts of the open ones."""
    begin, end = rows.newest - tiles + 1, rows.newest + 1
    first, behind = events.first(rows.group, begin), events.first(rows.group, end)
    opened = events.first(rows.group, np.clip(rows.open_from, begin, end))
    runs = [(events.starts[first], events.starts[opened])]
    for number in range(int((behind - opened).max(initial=0))):
        place = np.minimum(opened + number, behind)
        start = events.starts[place]
        stop = np.where(place < behind, events.before(place, rows.bound), start)
        runs.append((start, np.maximum(stop, start)))
    return runs


def _over(column: Floats, runs: list[tuple[Ints, Ints]], function: str) -> Floats:
    combine, nothing = _COMBINED[function]
    null = np.isnan(column)
    values = (~null).astype(np.float64) if function == "count" else np.where(null, nothing, column)
    found = np.full(len(runs[0][0]), nothing)
    for start, stop in runs:
        found = combine(found, _reduced(values, start, stop, combine, nothing))
    return found


def _reduced(values: Floats, start: Ints, stop: Ints, combine: _Combine, nothing: float) -> Floats:
    """values[start:stop] combined, for every row: runs of one value, two, four, ..., as the bits of its length say."""
    found, at, length, width = np.full(len(start), nothing), start.copy(), stop - start, 1
    longest = int(length.max(initial=0))
    while width <= longest:
        taken = np.flatnonzero(length & width)
        found[taken] = combine(found[taken], values[at[taken]])
        at[taken] += width
        values = combine(values[:-width], values[width:])
        width *= 2
    return found
