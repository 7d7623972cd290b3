"""Time as a parameter: one clock, so that every decision can be tested on a timeline without sleeping."""

import time
from typing import Protocol


class Clock(Protocol):
    """Source of time. `now` is monotonic seconds; `wall` is seconds since the Unix epoch (UTC)."""

    def now(self) -> float: ...

    def wall(self) -> float: ...


class SystemClock:
    """The machine's clocks."""

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


class ManualClock:
    """A clock that moves only when told to, for tests and simulations."""

    def __init__(self, now: float = 0.0, wall: float = 1_700_000_000.0) -> None:
        self._now = now
        self._wall = wall

    def now(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._wall

    def advance(self, seconds: float) -> None:
        """Move both clocks forward by `seconds`."""
        self._now += seconds
        self._wall += seconds
