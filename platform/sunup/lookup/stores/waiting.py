"""Requests on a connection whose replies come in order: who owns the next one, and who is let go at their deadline."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from sunup.limits import STORE_STALL_SECONDS_MAX
from sunup.lookup.store import StoreUnavailable

Replied: TypeAlias = Callable[[list[Any] | StoreUnavailable], None]


class Request:
    """`count` commands sent together and their replies so far. `told`: None once the caller was told, or left."""

    __slots__ = ("count", "deadline", "replies", "told")

    def __init__(self, told: Replied, count: int, deadline: float) -> None:
        self.told: Replied | None = told
        self.count = count
        self.deadline = deadline
        self.replies: list[Any] = []

    def cancel(self) -> None:
        """The caller left. The replies are still taken off the wire."""
        self.told = None

    def tell(self, what: list[Any] | StoreUnavailable) -> None:
        """Tell the caller, if that was not done and the caller is still there."""
        told, self.told = self.told, None
        if told is not None:
            told(what)


class Waiting:
    """The requests of one connection; the oldest, `queue[0]`, owns the next reply. Its link takes them out.

    A request whose deadline passes stays in the queue without its caller: its replies are taken off the wire and
    dropped, so no reply is ever given to another request. If they do not come within STORE_STALL_SECONDS_MAX either,
    `stalled` is called, which ends the connection. One timer serves all requests: a timer per call would cost more than
    the call's parsing.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, stalled: Callable[[], None]) -> None:
        self._loop = loop
        self._stalled = stalled
        self.queue: deque[Request] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def add(self, request: Request) -> None:
        """One more, which was sent behind all others."""
        self.queue.append(request)
        if self._timer is None or request.deadline < self._timer_at:
            self._arm(request.deadline)

    def end(self, reason: str) -> None:
        """The connection is gone: tell everybody."""
        if self._timer is not None:
            self._timer.cancel()
        while self.queue:
            self.queue.popleft().tell(StoreUnavailable(reason))

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(max(0.0, at - time.monotonic()), self._expire)

    def _expire(self) -> None:
        """Let go of callers whose deadline passed, and of the connection when it has stalled."""
        self._timer = None
        now = time.monotonic()
        if self.queue and now > self.queue[0].deadline + STORE_STALL_SECONDS_MAX:
            self._stalled()
            return
        next_at = self.queue[0].deadline + STORE_STALL_SECONDS_MAX if self.queue else 0.0
        for request in tuple(self.queue):  # who is told may ask again
            if request.told is None:
                continue
            if request.deadline <= now:
                request.tell(StoreUnavailable("the deadline passed"))
            else:
                next_at = min(next_at, request.deadline)
        if self.queue:
            self._arm(max(next_at, now + 0.001))  # a stalled store must not turn the loop into a timer queue


def settling(future: "asyncio.Future[list[Any]]") -> Replied:
    """A caller that waits in a future."""
    return partial(_settle, future)


def _settle(future: "asyncio.Future[list[Any]]", what: list[Any] | StoreUnavailable) -> None:
    if future.done():
        return
    if isinstance(what, StoreUnavailable):
        future.set_exception(what)
    else:
        future.set_result(what)
