"""From the rows of a call to its feature columns: keys, one read of the store, freshness, defaults.

Rules. A value absent or NULL is missing; one older than its view's ttl or max_age is stale (Feast does not enforce
either). Both take the column's declared default; a float column without one becomes NaN, what the training frame
holds for a missing value; any other column without one fails its row with FeaturesMissing, as every row with a missing
or stale value does when the plan says `reject`. A store that does not answer in time makes every value missing.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from sunup.errors import CallError, FeaturesMissing, FeaturesUnread
from sunup.limits import LOOKUP_ROWS_PER_DEADLINE, STORE_LOG_SECONDS
from sunup.lookup.cache import CachedStore
from sunup.lookup.circuit import CircuitOpen
from sunup.lookup.keys import KEY_ERRORS, bad_key, key_maker
from sunup.lookup.plan import Entity, ReadPlan, View
from sunup.lookup.store import Answer, Found, Reading, Store, StoreUnavailable, slots
from sunup.lookup.together import Known, together
from sunup.lookup.values import decoder
from sunup.types import Features, Field, Row

_log = logging.getLogger("sunup.lookup")

# What went wrong in one entity's part of a row: (missing, stale, without a default) column names.
Trouble: TypeAlias = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
NO_TROUBLE: Final[Trouble] = ((), (), ())


class Lookup:
    """Reads the features of a plan for rows of a function's request fields.

    `columns`: the feature columns, in the order of a row of `Features.values`; `views`: the names of their views.
    `inline`: use `read_now` for a call of up to LOOKUP_ROWS_PER_DEADLINE rows; otherwise, and always for stores across
    a network, await `read`.
    """

    def __init__(self, plan: ReadPlan, store: Store, request: Sequence[Field]) -> None:
        positions = {field.name: at for at, field in enumerate(request)}
        self.columns = plan.columns
        self.views = [view.name for view in plan.views]
        self.inline = store.inline
        self.cache = store if isinstance(store, CachedStore) else None
        self._store = store
        self.deadline_s = plan.deadline_ms / 1000  # of LOOKUP_ROWS_PER_DEADLINE rows
        self._rejects = plan.on_missing == "reject"
        known: dict[str, Known] = {}
        self._entities = [_EntityPart(entity, known) for entity in plan.entities]
        self._makers = [key_maker(entity.join_keys, positions) for entity in plan.entities]
        self._join_keys = [entity.join_keys for entity in plan.entities]
        self._log_at = -math.inf
        # Told of every lookup without its store: whether it was refused, without the store being asked.
        self.on_failure: Callable[[bool], None] = lambda _refused: None

    def __repr__(self) -> str:
        return f"<Lookup {len(self.columns)} columns from {self._store!r}>"

    async def open(self) -> None:
        """Connect to the store. Does not fail: a store that is down is tried again while defaults are served."""
        await self._store.open()

    async def close(self) -> None:
        await self._store.close()

    def read_now(self, rows: Sequence[Row], *, now: float, wall: float, until: float = math.inf) -> Features:
        """Features of `rows` from an inline store. `now`, `until`: monotonic seconds; `wall`: seconds since the epoch.

        Waits no longer than the plan's deadline and not past `until`. Errors are per row, in `Features.failed`.
        """
        keys, picks, bad = self._keys(rows)
        try:
            answer = self._store.read_now(keys, self._deadline(len(rows), now, until))
        except StoreUnavailable as error:
            return self._without_store(len(rows), bad, error, now)
        return self._join(len(rows), picks, bad, answer, wall)

    async def read(self, rows: Sequence[Row], *, now: float, wall: float, until: float = math.inf) -> Features:
        """As `read_now`, for any store."""
        keys, picks, bad = self._keys(rows)
        try:
            answer = await self._store.read(keys, self._deadline(len(rows), now, until))
        except StoreUnavailable as error:
            return self._without_store(len(rows), bad, error, now)
        return self._join(len(rows), picks, bad, answer, wall)

    def ask(
        self,
        rows: Sequence[Row],
        *,
        now: float,
        wall: float,
        until: float = math.inf,
        told: Callable[[Features | Exception], None],
    ) -> Reading | None:
        """As `read`, for a caller that awaits nothing: `told` hears the features, in a later turn of the loop or, where
        None is given back, already. Nobody hears anything of a reading that is cancelled."""
        keys, picks, bad = self._keys(rows)

        def answered(answer: Answer | Exception) -> None:
            found: Features | Exception
            try:
                if isinstance(answer, StoreUnavailable):
                    found = self._without_store(len(rows), bad, answer, now)
                else:
                    found = answer if isinstance(answer, Exception) else self._join(len(rows), picks, bad, answer, wall)
            except Exception as error:  # what `read` would raise
                found = error
            told(found)

        try:
            return self._store.ask(keys, self._deadline(len(rows), now, until), answered)
        except StoreUnavailable as error:
            answered(error)
            return None

    def recall(self, rows: Sequence[Row], *, wall: float) -> Features | None:
        """As `read_now`, from the store's cache alone; None without one, or where it does not hold all of it."""
        if self.cache is None:
            return None
        keys, picks, bad = self._keys(rows)
        answer = self.cache.recall(keys)
        return None if answer is None else self._join(len(rows), picks, bad, answer, wall)

    def _deadline(self, rows: int, now: float, until: float) -> float:
        """The plan's deadline is for a call of ordinary size: reading ten thousand keys is work, not slowness."""
        return min(until, now + self.deadline_s * max(1, -(-rows // LOOKUP_ROWS_PER_DEADLINE)))

    def _keys(self, rows: Sequence[Row]) -> tuple[list[list[bytes]], list[list[int]] | None, dict[int, CallError]]:
        """Distinct keys per entity, and per entity which of them each row uses (None: one row, the first)."""
        if len(rows) == 1:
            row = rows[0]
            try:
                return [[maker(row)] for maker in self._makers], None, {}
            except KEY_ERRORS:
                return [[] for _ in self._makers], None, {0: self._bad_key(row)}
        made: list[tuple[bytes, ...]] = []
        bad: dict[int, CallError] = {}
        for index, row in enumerate(rows):
            try:
                made.append(tuple([maker(row) for maker in self._makers]))
            except KEY_ERRORS:
                bad[index] = self._bad_key(row)
                made.append(())
        keys, picks = [], []
        for number in range(len(self._makers)):
            seen: dict[bytes, int] = {}
            picks.append([seen.setdefault(each[number], len(seen)) if each else -1 for each in made])
            keys.append(list(seen))
        return keys, picks, bad

    def _bad_key(self, row: Row) -> CallError:
        error = bad_key(row, zip(self._makers, self._join_keys, strict=True))
        assert error is not None, "a row whose keys can all be made was called bad"
        return error

    def _join(
        self, count: int, picks: list[list[int]] | None, bad: dict[int, CallError], answer: Answer, wall: float
    ) -> Features:
        ages: dict[str, float] = {}
        if picks is None and not bad:
            row: Row = ()
            troubles = []
            for part, found in zip(self._entities, answer, strict=True):
                piece, trouble = part.decode(found[0], wall, ages)
                row += piece
                if trouble is not None:
                    troubles.append(trouble)
            if not troubles:
                return Features((row,), ages=ages)
            return self._troubled([row], {0: _merged(troubles)}, bad, ages)
        return self._join_many(count, picks or [[-1]] * len(answer), bad, answer=answer, wall=wall)

    def _join_many(
        self, count: int, picks: list[list[int]], bad: dict[int, CallError], *, answer: Answer, wall: float
    ) -> Features:
        """Every distinct key is decoded once, however many rows use it."""
        ages: dict[str, float] = {}
        values: list[Row] = [()] * count
        troubles: dict[int, list[Trouble]] = {}
        for part, founds, pick in zip(self._entities, answer, picks, strict=True):
            pieces = [part.decode(found, wall, ages) for found in founds]
            values = [row + pieces[key][0] if key >= 0 else row for row, key in zip(values, pick, strict=True)]
            wrong = {key: trouble for key, (_, trouble) in enumerate(pieces) if trouble is not None}
            if wrong:
                for index, key in enumerate(pick):
                    if key in wrong:
                        troubles.setdefault(index, []).append(wrong[key])
        for index in bad:
            values[index] = (None,) * len(self.columns)
        return self._troubled(values, {index: _merged(each) for index, each in troubles.items()}, bad, ages)

    def _troubled(
        self,
        values: list[Row],
        troubles: Mapping[int, Trouble],
        bad: Mapping[int, CallError],
        ages: Mapping[str, float],
        rejected: type[FeaturesMissing] = FeaturesMissing,
    ) -> Features:
        """Features with what was defaulted, stale or rejected, per row."""
        if not troubles:
            return Features(values, ages=ages, failed=bad)
        failed = dict(bad)
        for index, (missing, stale, bare) in troubles.items():
            named = missing + stale if self._rejects else bare
            if named:
                failed[index] = rejected(f"no usable value of {', '.join(named)} for this record")
        rows = range(len(values))
        return Features(
            values,
            defaulted=[troubles.get(index, NO_TROUBLE)[0] for index in rows],
            stale=[troubles.get(index, NO_TROUBLE)[1] for index in rows],
            ages=ages,
            failed=failed,
        )

    def _without_store(self, count: int, bad: dict[int, CallError], error: StoreUnavailable, now: float) -> Features:
        self.on_failure(isinstance(error, CircuitOpen))
        if now >= self._log_at:  # a store that is down fails every call; the metrics count them
            self._log_at = now + STORE_LOG_SECONDS
            _log.warning("features are defaulted or rejected: %s", error.message)
        defaults = tuple([value for part in self._entities for value in part.stand_ins])
        trouble = _merged([part.all_missing for part in self._entities])
        troubles = {i: trouble for i in range(count) if i not in bad}
        return self._troubled([defaults] * count, troubles, bad, {}, FeaturesUnread)


class _ViewPart:
    """One view of an entity: where its values lie in a Found, how to read them, what stands in for them."""

    def __init__(self, view: View, start: int, time_slot: int, known: dict[str, Known]) -> None:
        self.name = view.name
        self.start = start
        self.time_slot = time_slot
        self.age_max = view.age_s_max
        self.columns = [feature.column for feature in view.features]
        self.decoders = [decoder(feature.value_type) for feature in view.features]
        self.together = together([feature.value_type for feature in view.features], start, known)
        self.stand_ins = [feature.stand_in for feature in view.features]
        self.bare = frozenset(f.column for f in view.features if f.stand_in is None)


class _EntityPart:
    """One entity's share of a row."""

    def __init__(self, entity: Entity, known: dict[str, Known]) -> None:
        layout = slots(entity)
        self._views = [_ViewPart(*each, known) for each in zip(entity.views, layout.starts, layout.times, strict=True)]
        self.stand_ins = [value for view in self._views for value in view.stand_ins]
        self.all_missing = _merged([_trouble(view, tuple(view.columns), ()) for view in self._views])

    def decode(self, found: Found, wall: float, ages: dict[str, float]) -> tuple[Row, Trouble | None]:
        """The entity's values in column order; `ages` keeps the largest age per view. The hot loop of a call."""
        values: Row = ()
        troubles: list[Trouble] | None = None
        for view in self._views:
            time_slot = view.time_slot
            at = found[time_slot]
            piece = view.together(found)
            odd = piece is None
            if piece is None:
                raws = found[view.start : time_slot]
                piece = tuple([decode(raw) for decode, raw in zip(view.decoders, raws, strict=True)])
            age = math.inf if at is None else wall - at if wall > at else 0.0
            if at is not None and age > ages.get(view.name, -1.0):
                ages[view.name] = age
            if age > view.age_max or (odd and None in piece):
                piece, trouble = _mended(view, piece, age > view.age_max)
                troubles = [*troubles, trouble] if troubles else [trouble]
            values += piece
        return values, _merged(troubles) if troubles else None


def _mended(view: _ViewPart, piece: Row, stale: bool) -> tuple[Row, Trouble]:
    """`piece` with stand-ins for what is missing, or for all of it when `stale`."""
    missing = tuple([name for name, value in zip(view.columns, piece, strict=True) if value is None])
    old = tuple([name for name in view.columns if name not in missing]) if stale else ()
    mended = [
        stand_in if stale or value is None else value for value, stand_in in zip(piece, view.stand_ins, strict=True)
    ]
    return tuple(mended), _trouble(view, missing, old)


def _trouble(view: _ViewPart, missing: tuple[str, ...], stale: tuple[str, ...]) -> Trouble:
    return missing, stale, tuple([name for name in missing + stale if name in view.bare])


def _merged(troubles: Sequence[Trouble]) -> Trouble:
    if len(troubles) == 1:
        return troubles[0]
    missing, stale, bare = (tuple([name for each in troubles for name in each[kind]]) for kind in range(3))
    return missing, stale, bare
