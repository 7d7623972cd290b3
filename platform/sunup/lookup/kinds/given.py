"""A lookup whose stream feature views are not read: their values come with the rows, exact as of each record.

A stream worker that aggregates a view knows its values before every record; the online store knows them a moment later.
"""

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Final, TypeAlias

import msgspec

from sunup.errors import CallError, FeaturesMissing
from sunup.lookup.join import Lookup
from sunup.lookup.keys import bad_key, key_maker
from sunup.lookup.kinds.ages import AgedLookup
from sunup.lookup.plan import Feature, ReadPlan, View, entity_columns
from sunup.lookup.store import Reading, Store
from sunup.types import Aggregated, Features, Field, GivenRows, Row

Convert: TypeAlias = Callable[[Any], Any]

_FLOAT: Final = struct.Struct("<f")
_EXACT: Final = {("count", "INT64"), *((each, "DOUBLE") for each in ("sum", "min", "max", "mean"))}


def unaggregated(plan: ReadPlan) -> ReadPlan:
    """What is left to read of a plan whose aggregated views are given."""
    left = tuple(
        msgspec.structs.replace(entity, views=views)
        for entity in plan.entities
        if (views := tuple(view for view in entity.views if view.aggregated is None))
    )
    return msgspec.structs.replace(plan, entities=left, columns=entity_columns(left))


class GivenLookup(Lookup):
    """A Lookup of a plan with aggregated views. `store`: of the plan that `unaggregated` leaves.

    Rows come as GivenRows: per row the values of each aggregated view, in the plan's order, each view's in the order of
    its aggregations; None: null. A null is a missing value like any other. TypeError for rows without values.
    """

    def __init__(self, plan: ReadPlan, store: Store, request: Sequence[Field]) -> None:
        super().__init__(unaggregated(plan), store, request)
        self.columns = plan.columns
        self.views = [view.name for view in plan.views]
        self._overlay = _Overlay(plan, request)

    def read_now(self, rows: Sequence[Row], *, now: float, wall: float, until: float = math.inf) -> Features:
        return self._overlay(super().read_now(rows, now=now, wall=wall, until=until), rows)

    async def read(self, rows: Sequence[Row], *, now: float, wall: float, until: float = math.inf) -> Features:
        return self._overlay(await super().read(rows, now=now, wall=wall, until=until), rows)

    def ask(
        self,
        rows: Sequence[Row],
        *,
        now: float,
        wall: float,
        until: float = math.inf,
        told: Callable[[Features | Exception], None],
    ) -> Reading | None:
        def found(what: Features | Exception) -> None:
            try:
                laid = what if isinstance(what, Exception) else self._overlay(what, rows)
            except Exception as error:  # what `read` would raise
                laid = error
            told(laid)

        return super().ask(rows, now=now, wall=wall, until=until, told=found)

    def recall(self, rows: Sequence[Row], *, wall: float) -> Features | None:
        found = super().recall(rows, wall=wall)
        return None if found is None else self._overlay(found, rows)


class AgedGivenLookup(GivenLookup, AgedLookup):
    """The same, which says the age of each row's views; of what is given it is 0."""


class _Overlay:
    """Puts given values where their columns are. Half a microsecond a row."""

    def __init__(self, plan: ReadPlan, request: Sequence[Field]) -> None:
        views = [(view, view.aggregated) for view in plan.views if view.aggregated is not None]
        pairs = [pair for view, how in views for pair in _paired(view, how)]
        read = [field.name for field in entity_columns(unaggregated(plan).entities)]
        columns = [*read, *(feature.column for feature, _ in pairs)]
        self._order = {field.name: at for at, field in enumerate(entity_columns(plan.entities))}
        self._arrange = _arranger([columns.index(name) for name in self._order])
        self._given = [(feature.column, feature.stand_in) for feature, _ in pairs]
        kinds = [(at, feature.value_type) for at, (feature, function) in enumerate(pairs)
                 if (function, feature.value_type) not in _EXACT]  # fmt: skip
        self._conversions = [(at, as_stored(kind)) for at, kind in kinds]
        self._rejects = plan.on_missing == "reject"
        # Of entities that nothing is read of: a record that has no key is refused as it would be if there were.
        positions = {field.name: at for at, field in enumerate(request)}
        unread = [each for each in plan.entities if all(view.aggregated is not None for view in each.views)]
        self._unread = [(key_maker(each.join_keys, positions), each.join_keys) for each in unread]
        self._fresh = {view.name: 0.0 for view, _ in views}
        self._aging = _Aging(plan)

    def __call__(self, found: Features, rows: Sequence[Row]) -> Features:
        if not isinstance(rows, GivenRows):
            raise TypeError("the rows come without values of the views that are aggregated")
        given = rows.given if not self._conversions else [self._converted(row) for row in rows.given]
        gone = [at for at, row in enumerate(given) if None in row]
        defaulted, failed = found.defaulted, found.failed
        if gone:
            given, defaulted, failed = self._mended(found, rows, given, gone)
        arrange = self._arrange
        return Features(
            [arrange(read + laid) for read, laid in zip(found.values, given, strict=True)],
            defaulted=defaulted,
            stale=found.stale,
            ages={**found.ages, **self._fresh},
            failed=failed,
            row_ages=None if found.row_ages is None else self._aging(found.row_ages, rows.given),
        )

    def _converted(self, row: Row) -> Row:
        values = list(row)
        for at, convert in self._conversions:
            if values[at] is not None:
                values[at] = convert(values[at])
        return tuple(values)

    def _mended(
        self, found: Features, rows: Sequence[Row], given: Sequence[Row], gone: Sequence[int]
    ) -> tuple[list[Row], list[tuple[str, ...]], Mapping[int, CallError]]:
        """Stand-ins for what is null, which rows have some, and which fail of it."""
        mended, failed = list(given), dict(found.failed)
        defaulted: list[tuple[str, ...]] = list(found.defaulted or [()] * len(given))
        for at in gone:
            if at in failed:
                continue
            pairs = list(zip(self._given, given[at], strict=True))
            missing = [name for (name, _), value in pairs if value is None]
            bare = [name for (name, stand_in), value in pairs if value is None and stand_in is None]
            if (error := bad_key(rows[at], self._unread)) is not None:
                failed[at] = error
            elif named := missing if self._rejects else bare:
                failed[at] = FeaturesMissing(f"no usable value of {', '.join(named)} for this record")
            mended[at] = tuple([stand_in if value is None else value for (_, stand_in), value in pairs])
            defaulted[at] = tuple(sorted([*defaulted[at], *missing], key=self._order.__getitem__))
        return mended, defaulted, failed


class _Aging:
    """Features.row_ages of all views, of those that are read."""

    def __init__(self, plan: ReadPlan) -> None:
        read = [view.name for view in plan.views if view.aggregated is None]
        self._spans: list[slice] = []
        start = 0
        given = [view for view in plan.views if view.aggregated is not None]
        for view in given:
            self._spans.append(slice(start, start + len(view.features)))
            start += len(view.features)
        names = [*read, *(view.name for view in given)]
        self._arrange = _arranger([names.index(view.name) for view in plan.views])

    def __call__(
        self, read: Sequence[tuple[float | None, ...]], given: Sequence[Row]
    ) -> list[tuple[float | None, ...]]:
        found = read or [()] * len(given)
        return [self._arrange(ages + self._ages(row)) for ages, row in zip(found, given, strict=True)]

    def _ages(self, row: Row) -> tuple[float | None, ...]:
        return tuple([None if all(value is None for value in row[span]) else 0.0 for span in self._spans])


def as_stored(kind: str) -> Convert:
    """From a number that was aggregated to the value that is read of a feature of that Feast type, once stored: see
    writing.encode. None where it has none. Raises ValueError for a type that holds no number."""
    if kind == "DOUBLE":
        return float
    if kind == "FLOAT":
        return _single
    if kind in ("INT32", "INT64"):
        return partial(_whole, 31 if kind == "INT32" else 63)
    raise ValueError(f"a {kind} feature cannot be aggregated")


def _single(value: float) -> float:
    try:
        rounded: float = _FLOAT.unpack(_FLOAT.pack(value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)
    return rounded


def _whole(bits: int, value: float) -> int | None:
    if not math.isfinite(value):
        return None
    whole = round(value)
    return whole if -(1 << bits) <= whole < 1 << bits else None


def _paired(view: View, how: Aggregated) -> list[tuple[Feature, str]]:
    """The features of a view as their values are given, and by what function they come about."""
    features = {feature.name: feature for feature in view.features}
    return [(features[each.feature], each.function) for each in how.aggregations]


def _arranger(places: Sequence[int]) -> Callable[[Row], Row]:
    if list(places) == list(range(len(places))):
        return _same
    return itemgetter(*places)


def _same(row: Row) -> Row:
    return row
