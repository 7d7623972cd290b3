"""What a function needs over time: its declared bounds, its window, its set times and its history. Pure."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from sunup.limits import REST_SECONDS_MAX, SILENCES_KEPT_SECONDS
from sunup.scale.history import History
from sunup.scale.learned import LearnedWindow
from sunup.scale.policy import Bounds, Sample, decide
from sunup.scale.schedule import Schedule, Warm
from sunup.scale.window import WindowMax


class Needs:
    """Of one function, across its revisions. `kept`: what `unsaved` gave to an earlier engine. Times are monotonic
    seconds (`now`) and Unix seconds (`wall`)."""

    __slots__ = (
        "_bounds",
        "_cold_seconds",
        "_history",
        "_idle_s",
        "_keep_at",
        "_kept",
        "_learned",
        "_schedule",
        "_window",
        "_worker_bytes",
    )

    def __init__(self, kept: bytes) -> None:
        self._kept = kept
        self._history: History | None = None  # only where it is learned from: most functions do without its 1 KB
        self._keep_at = 0.0
        self.declare(Bounds(0, 1, 1), math.inf, auto=False, warm=())

    def declare(self, bounds: Bounds, idle_s: float, *, auto: bool, warm: Iterable[Warm]) -> None:
        """What the revision that is routed from now on says. `auto`: the idle time is learned."""
        self._bounds = bounds
        if auto and self._history is None:
            self._history = History.unpack(self._kept)
        self._learned = LearnedWindow(idle_s, self._history) if auto and self._history is not None else None
        self._idle_s = idle_s
        self._window = self._learned or WindowMax(idle_s)
        entries = tuple(warm)
        self._schedule = Schedule(entries) if entries else None
        self._cold_seconds = math.inf
        self._worker_bytes = 0.0

    def workers(self, sample: Sample, now: float, wall: float) -> int:
        """How many workers there should be: `decide`, with at least as many as a set time asks for."""
        bounds = self._bounds
        if self._schedule is not None:
            bounds = bounds._replace(min=max(bounds.min, min(bounds.max, self._schedule.least(wall))))
        return decide(bounds, self._window, sample, now)

    def rest_seconds(self, workers: int) -> float:
        """How long a function that nobody calls need not be looked at, unless something happens to it."""
        if self._schedule is not None or self._learned is not None:
            return 0.0
        return min(REST_SECONDS_MAX, self._idle_s / 10) if workers else math.inf

    def hold(self, now: float, workers: float) -> None:
        """Keep so many for the idle time, though no call was seen: after a deploy, or found running."""
        self._window.hold(now, workers)

    def started(self, cold_seconds: float) -> None:
        """A worker was born in so many seconds. The least seen of a revision counts: a busy machine only adds."""
        self._cold_seconds = min(self._cold_seconds, cold_seconds)

    def weighed(self, worker_bytes: Sequence[int]) -> None:
        """What each of its workers holds. The most seen of a revision counts: one that is being born holds little."""
        if self._learned is not None and worker_bytes and math.isfinite(self._cold_seconds):
            self._worker_bytes = max(self._worker_bytes, sum(worker_bytes) / len(worker_bytes))
            self._learned.price(self._cold_seconds, self._worker_bytes)

    def wakes_in(self, now: float, wall: float) -> float | None:
        """Seconds until workers are wanted though nobody calls; None if that is not foreseen."""
        set_time = None if self._schedule is None else self._schedule.next(wall)
        expected = None if self._learned is None else self._learned.wakes_at(now)
        known = [*([] if set_time is None else [set_time - wall]), *([] if expected is None else [expected - now])]
        return min(known, default=None)

    def unsaved(self, now: float) -> bytes | None:
        """What was learned since this last gave something, if it is time to write it down."""
        if self._learned is None or self._history is None or now < self._keep_at:
            return None
        before, self._kept = self._kept, self._history.pack()
        self._keep_at = now + SILENCES_KEPT_SECONDS
        return self._kept if self._kept != before else None

    @property
    def facts(self) -> dict[str, Any]:
        """What `platform status` shows under "idle"; nothing where the time is declared."""
        return {} if self._learned is None else {"idle": self._learned.facts()}
