"""One connection to a Redis server: commands out, replies matched by their order, callers let go at their deadline."""

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from typing import Any, cast

import hiredis

from sunup.limits import STORE_INFLIGHT_MAX, STORE_STALL_SECONDS_MAX
from sunup.lookup.store import StoreUnavailable
from sunup.lookup.stores.waiting import Replied, Request, Waiting, settling

_log = logging.getLogger("sunup.lookup")


class Link(asyncio.Protocol):
    """One connection. Redis answers in order, so the oldest request owns the next reply.

    A write per call would cost more than its parsing: what is asked for in one turn of the loop leaves together.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_lost: Callable[["Link", str], None]) -> None:
        self._loop = loop
        self._on_lost = on_lost
        self._reader = hiredis.Reader()
        self._waiting = Waiting(loop, self._stalled)
        self._unsent: list[bytes] = []
        self._transport: asyncio.Transport | None = None

    def __repr__(self) -> str:
        return f"<Link {len(self._waiting.queue)} waiting>"

    def request(self, data: bytes, count: int, deadline: float) -> "asyncio.Future[list[Any]]":
        """Send commands that get `count` replies; the future holds them, or StoreUnavailable."""
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        self.ask(data, count, deadline, settling(future))
        return future

    def ask(self, data: bytes, count: int, deadline: float, told: Replied) -> Request:
        """The same for a caller that is told within the read that brings the last reply. `told` must not raise."""
        if self._transport is None or len(self._waiting.queue) >= STORE_INFLIGHT_MAX:
            raise StoreUnavailable("the connection is closed" if self._transport is None else "too many reads waiting")
        if time.monotonic() > deadline:
            raise StoreUnavailable("the deadline passed before the read")
        request = Request(told, count, deadline)
        self._waiting.add(request)
        if not self._unsent:
            self._loop.call_soon(self._send)  # behind the calls that are begun in this turn
        self._unsent.append(data)
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
        reader, waiting = self._reader, self._waiting.queue
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
        reason = f"the connection was lost ({error or 'closed by the server'})"
        self._waiting.end(reason)
        self._on_lost(self, reason)

    def _stalled(self) -> None:
        _log.warning("feature store gave no reply for %.1f s; reconnecting", STORE_STALL_SECONDS_MAX)
        self.drop()
