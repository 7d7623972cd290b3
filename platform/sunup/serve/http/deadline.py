"""A deadline that moves with every request without a timer for every request."""

import asyncio
from collections.abc import Callable
from math import inf


class Deadline:
    """Calls `passed` once after each deadline that is neither moved nor lifted in time.

    The timer stays where it is when the deadline moves away from it; when it rings it is set again. So a connection
    that is busy for an hour sets a timer once per idle time, not once per request.
    """

    __slots__ = ("_at", "_loop", "_passed", "_timer", "_timer_at")

    def __init__(self, loop: asyncio.AbstractEventLoop, passed: Callable[[], None]) -> None:
        self._loop = loop
        self._passed = passed
        self._at = inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf

    def __repr__(self) -> str:
        return f"Deadline(in={self._at - self._loop.time():.3f})"

    @property
    def left(self) -> float:
        """Seconds until it passes; infinity when there is none."""
        return self._at - self._loop.time()

    def set(self, seconds: float) -> None:
        """`seconds` from now, instead of what was set before."""
        self._at = at = self._loop.time() + seconds
        if at < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = at
            self._timer = self._loop.call_at(at, self._ring)

    def lift(self) -> None:
        """None, until it is set again."""
        self._at = inf

    def close(self) -> None:
        """None for good: the timer holds on to its owner."""
        self._at = inf
        if self._timer is not None:
            self._timer.cancel()

    def _ring(self) -> None:
        self._timer, self._timer_at = None, inf
        left = self._at - self._loop.time()
        if left <= 0:
            self._at = inf
            self._passed()
        elif left < inf:
            self.set(left)
