"""A store around a store: what was read of a key may be used again for as long as its views say.

Nobody else knows of it. A value keeps the event time it was stored with, so its age is checked at every use as if it
had just been read. Whatever is read of a key is new for all of its views: a key is asked for when any of its views must
be, and is not asked for when every view of it is remembered. So the views of a key always come from one read, and a
view whose key is asked for anyway, because of another view, is as new as that one. Only where the store does not answer
is less than a whole key used: the views that may be, with the others missing.
"""

import asyncio
import logging
import math
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

from sunup.clock import Clock, SystemClock
from sunup.limits import FEATURE_CACHE_BYTES_MAX, FEATURE_CACHE_KEYS_MAX, STORE_LOG_SECONDS
from sunup.lookup.plan import Entity, ReadPlan
from sunup.lookup.store import Answer, Found, Keys, Reading, Store, StoreUnavailable, Told, nothing, slots
from sunup.observer import Tell
from sunup.recent import Recent

_LOG: Final = logging.getLogger("sunup.lookup")
_ENTRY_BYTES: Final = 400  # bytes of one entry beside its key and values: tuples, floats, its place in the dictionary


class _Remembered(NamedTuple):
    """One key as it was read. `good_until`: monotonic seconds, per view; `all_until`: the soonest of them."""

    all_until: float
    good_until: tuple[float, ...]
    found: Found


class _Part:
    """One entity: per view how long it may be used (0: not at all), where it lies in a Found, how old it may be."""

    def __init__(self, entity: Entity) -> None:
        layout = slots(entity)
        ends = zip(entity.views, layout.starts, layout.times, strict=True)
        self.views = [(view.cache_s or 0.0, start, time_slot, view.age_s_max) for view, start, time_slot in ends]
        self.names = [f"features:{view.name}" for view in entity.views if view.cache_s]

    def remembered(self, found: Found, now: float, wall: float) -> _Remembered:
        """What was just read. A value that will be too old before its time is read again then, not served as stale."""
        until = []
        for cache_s, _, time_slot, age_max in self.views:
            at = found[time_slot]
            left = math.inf if at is None else at + age_max - wall
            until.append(now + (left if 0.0 < left < cache_s else cache_s))
        return _Remembered(min(until), tuple(until), list(found))

    def salvaged(self, kept: _Remembered, now: float) -> Found | None:
        """What may still be used of a key, the rest missing; None where nothing may."""
        if all(now >= until for until in kept.good_until):
            return None
        found = list(kept.found)
        for (_, start, time_slot, _), until in zip(self.views, kept.good_until, strict=True):
            if now >= until:
                found[start : time_slot + 1] = [None] * (time_slot + 1 - start)
        return found


class CachedStore(Store):
    """`store` with a memory, for a plan some of whose views have `cache_s`. Belongs to one event loop.

    What is remembered is bounded in keys and bytes; a key that is not stored is remembered, too. `caches`: names of
    what it counts, one per view with a cache; `tell` hears of them, and may be replaced.
    """

    def __init__(
        self,
        store: Store,
        plan: ReadPlan,
        *,
        clock: Clock | None = None,
        keys_max: int = FEATURE_CACHE_KEYS_MAX,
        bytes_max: int = FEATURE_CACHE_BYTES_MAX,
    ) -> None:
        self.inline = store.inline
        self.caches = tuple(f"features:{view.name}" for view in plan.views if view.cache_s)
        self.tell: Tell = _unheard
        self._store = store
        self._clock = clock or SystemClock()
        self._parts = [
            _Part(entity) if any(view.cache_s for view in entity.views) else None for entity in plan.entities
        ]
        self._nothing = nothing(plan)
        self._kept: Recent[tuple[int, bytes], _Remembered] = Recent(entries_max=keys_max, bytes_max=bytes_max)
        self._log_at = -math.inf

    def __repr__(self) -> str:
        return f"<CachedStore {self._kept!r} of {self._store!r}>"

    async def open(self) -> None:
        """See Store."""
        await self._store.open()

    async def close(self) -> None:
        """See Store. Forgets nothing: time does that."""
        await self._store.close()

    def recall(self, keys: Keys) -> Answer | None:
        """The answer, where all of it is remembered; else None. Waits for nothing, whatever the store is."""
        now, answer = self._clock.now(), []
        for number, wanted in enumerate(keys):
            founds = []
            for key in wanted:
                kept = self._kept.get((number, key))
                if kept is None or now >= kept.all_until:
                    return None
                founds.append(list(kept.found))
            answer.append(founds)
        self._count(keys, keys)
        return answer

    def read_now(self, keys: Keys, deadline: float) -> Answer:
        now = self._clock.now()
        partly, missing = self._look(keys, now)
        if not any(missing):
            return partly  # type: ignore[return-value]  # nothing of it is None
        try:
            fresh = self._store.read_now(missing, deadline)
        except StoreUnavailable as error:
            return self._salvage(keys, partly, error, now)
        return self._filled(keys, partly, fresh, now)

    async def read(self, keys: Keys, deadline: float) -> Answer:
        now = self._clock.now()
        partly, missing = self._look(keys, now)
        if not any(missing):
            return partly  # type: ignore[return-value]  # nothing of it is None
        try:
            fresh = await self._store.read(missing, deadline)
        except StoreUnavailable as error:
            return self._salvage(keys, partly, error, now)
        return self._filled(keys, partly, fresh, now)

    def ask(self, keys: Keys, deadline: float, told: Told) -> Reading:
        now, loop = self._clock.now(), asyncio.get_running_loop()
        partly, missing = self._look(keys, now)
        if not any(missing):
            return loop.call_soon(told, partly)  # type: ignore[arg-type]  # nothing of it is None

        def answered(answer: Answer | Exception) -> None:
            try:
                if isinstance(answer, StoreUnavailable):
                    answer = self._salvage(keys, partly, answer, now)
                elif not isinstance(answer, Exception):
                    answer = self._filled(keys, partly, answer, now)
            except Exception as error:  # what `read` would raise
                answer = error
            told(answer)

        try:
            return self._store.ask(missing, deadline, answered)
        except StoreUnavailable as error:
            return loop.call_soon(told, self._salvage(keys, partly, error, now))

    def _look(self, keys: Keys, now: float) -> tuple[list[list[Found | None]], list[list[bytes]]]:
        """What is remembered, with None for what is not; and, per entity, the keys to read."""
        partly: list[list[Found | None]] = []
        missing: list[list[bytes]] = []
        for number, wanted in enumerate(keys):
            founds: list[Found | None] = []
            asked: list[bytes] = []
            for key in wanted:
                kept = self._kept.get((number, key))
                if kept is not None and now < kept.all_until:
                    founds.append(list(kept.found))
                else:
                    founds.append(None)
                    asked.append(key)
            partly.append(founds)
            missing.append(asked)
        self._count(keys, partly)
        return partly, missing

    def _count(self, keys: Keys, found: Sequence[Sequence[object]]) -> None:
        for part, wanted, founds in zip(self._parts, keys, found, strict=True):
            if part is not None and wanted:
                hits = len(founds) - sum(one is None for one in founds)
                for name in part.names:
                    self.tell(name, len(wanted), hits)

    def _filled(self, keys: Keys, partly: list[list[Found | None]], fresh: Answer, read_at: float) -> Answer:
        """The whole answer. What was read is good from when it was asked for: it may have been read at once."""
        wall = self._clock.wall()
        answer = []
        for number, (wanted, founds, read) in enumerate(zip(keys, partly, fresh, strict=True)):
            part, came = self._parts[number], iter(read)
            whole = []
            for key, known in zip(wanted, founds, strict=True):
                found = next(came) if known is None else known
                if known is None and part is not None:
                    size = _ENTRY_BYTES + sum(map(sys.getsizeof, (key, found, *found)))
                    self._kept.put((number, key), part.remembered(found, read_at, wall), size)
                whole.append(found)
            answer.append(whole)
        return answer

    def _salvage(self, keys: Keys, partly: list[list[Found | None]], error: StoreUnavailable, now: float) -> Answer:
        """What is remembered, when the store does not answer; the rest is missing. Raises `error` where that is all."""
        some = any(known is not None for founds in partly for known in founds)
        answer = []
        for number, (wanted, founds) in enumerate(zip(keys, partly, strict=True)):
            part = self._parts[number]
            whole = []
            for key, known in zip(wanted, founds, strict=True):
                kept = self._kept.get((number, key)) if known is None and part is not None else None
                found = part.salvaged(kept, now) if kept is not None and part is not None else known
                some = some or found is not None
                whole.append(list(self._nothing[number]) if found is None else found)
            answer.append(whole)
        if not some:
            raise error
        if now >= self._log_at:
            self._log_at = now + STORE_LOG_SECONDS
            _LOG.warning("remembered features are served, others are missing: %s", error.message)
        return answer


def cached(store: Store, plan: ReadPlan) -> Store:
    """`store`, with a memory if a view of the plan asks for one."""
    return CachedStore(store, plan) if any(view.cache_s for view in plan.views) else store


def _unheard(cache: str, looked: int, found: int) -> None:
    """Nobody counts."""
