"""One connection to a Redis server: commands out, replies matched by their order, callers let go at their deadline."""

import asyncio
import logging
import socket
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias, cast

import hiredis

from sunup.limits import STORE_INFLIGHT_MAX, STORE_STALL_SECONDS_MAX
from sunup.lookup.store import StoreUnavailable

_log = logging.getLogger("sunup.lookup")


Replied: TypeAlias = Callable[[list[Any] | StoreUnavailable], None]


class _Request:
    """Commands written together and the replies that came so far. `told`: None once its caller was told, or left."""

    __slots__ = ("count", "deadline", "replies", "told")

    def __init__(self, told: Replied, count: int, deadline: float) -> None:
        self.told: Replied | None = told
        self.count = count
        self.deadline = deadline
        self.replies: list[Any] = []

    def cancel(self) -> None:
        self.told = None

    def tell(self, what: list[Any] | StoreUnavailable) -> None:
        told, self.told = self.told, None
        if told is not None:
            told(what)


class Link(asyncio.Protocol):
    """One connection. Redis answers in order, so the oldest request owns the next reply.

    A request whose deadline passes stays in the queue without its caller: its replies are taken off the wire and
    dropped, so no reply is ever given to another request. If they do not come within STORE_STALL_SECONDS_MAX either,
    the connection is dropped. One timer serves all requests: a timer per call would cost more than the call's parsing.
    So would a write per call: what is asked for in one turn of the loop leaves together.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_lost: Callable[["Link", str], None]) -> None:
        self._loop = loop
        self._on_lost = on_lost
        self._reader = hiredis.Reader()
        self._waiting: deque[_Request] = deque()
        self._unsent: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def __repr__(self) -> str:
        return f"<Link {len(self._waiting)} waiting>"

    def request(self, data: bytes, count: int, deadline: float) -> "asyncio.Future[list[Any]]":
        """Send commands that get `count` replies; the future holds them, or StoreUnavailable."""
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        self.ask(data, count, deadline, partial(_settle, future))
        return future

    def ask(self, data: bytes, count: int, deadline: float, told: Replied) -> _Request:
        """The same for a caller that is told within the read that brings the last reply. `told` must not raise."""
        if self._transport is None or len(self._waiting) >= STORE_INFLIGHT_MAX:
            raise StoreUnavailable("the connection is closed" if self._transport is None else "too many reads waiting")
        if time.monotonic() > deadline:
            raise StoreUnavailable("the deadline passed before the read")
        request = _Request(told, count, deadline)
        self._waiting.append(request)
        if not self._unsent:
            self._loop.call_soon(self._send)  # behind the calls that are begun in this turn
        self._unsent.append(data)
        if self._timer is None or deadline < self._timer_at:
            self._arm(deadline)
        return request

    def _send(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self._transport is not None:
            self._transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))

    def drop(self) -> None:
        """Close at once; everything waiting fails."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        # A peer that vanished without a word is noticed even when nobody asks for features.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def data_received(self, data: bytes) -> None:
        reader, waiting = self._reader, self._waiting
        try:
            reader.feed(data)
            while waiting:
                request = waiting[0]
                replies, count = request.replies, request.count
                while len(replies) < count:
                    reply = reader.gets()
                    if reply is False:
                        return
                    replies.append(reply)
                waiting.popleft()
                request.tell(replies)
            unasked = reader.gets() is not False
        except hiredis.ProtocolError as error:
            _log.warning("feature store sent what is not Redis protocol: %s", error)
            unasked = True
        if unasked:
            self.drop()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        reason = f"the connection was lost ({error or 'closed by the server'})"
        while self._waiting:
            self._waiting.popleft().tell(StoreUnavailable(reason))
        self._on_lost(self, reason)

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(max(0.0, at - time.monotonic()), self._expire)

    def _expire(self) -> None:
        """Let go of callers whose deadline passed, and of the connection when it has stalled."""
        self._timer = None
        now = time.monotonic()
        if self._waiting and now > self._waiting[0].deadline + STORE_STALL_SECONDS_MAX:
            _log.warning("feature store gave no reply for %.1f s; reconnecting", STORE_STALL_SECONDS_MAX)
            self.drop()
            return
        next_at = self._waiting[0].deadline + STORE_STALL_SECONDS_MAX if self._waiting else 0.0
        for request in tuple(self._waiting):  # who is told may ask again
            if request.told is None:
                continue
            if request.deadline <= now:
                request.tell(StoreUnavailable("the deadline passed"))
            else:
                next_at = min(next_at, request.deadline)
        if self._waiting:
            self._arm(max(next_at, now + 0.001))  # a stalled store must not turn the loop into a timer queue


def _settle(future: "asyncio.Future[list[Any]]", what: list[Any] | StoreUnavailable) -> None:
    if future.done():
        return
    if isinstance(what, StoreUnavailable):
        future.set_exception(what)
    else:
        future.set_result(what)
