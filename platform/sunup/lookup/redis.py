"""Feast's Redis online store: pre-packed HMGETs over one connection, replies matched by their order.

Layout (feast/infra/online_stores/redis.py): one hash per entity key for all of its views, under `entity key + project`;
field `murmur3_32("view:feature")` (4 bytes, little endian) holds the Value, field `_ts:view` the Timestamp. One HMGET
per entity therefore serves all of its views. The client library costs 69 us of CPU where this file costs 16, and half
a second to import, and it is not used: one server, with password, database and TLS, needs little.
"""

import asyncio
import logging
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import hiredis
import mmh3

from sunup.limits import STORE_CONNECT_SECONDS_MAX, STORE_INFLIGHT_MAX, STORE_RETRY_SECONDS, STORE_STALL_SECONDS_MAX
from sunup.lookup.plan import Entity, ReadPlan
from sunup.lookup.store import Answer, Keys, StoreUnavailable, slots
from sunup.lookup.values import timestamp

_log = logging.getLogger("sunup.lookup")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a Redis server is. `tls` None: plain TCP."""

    host: str
    port: int
    db: int = 0
    username: str = ""
    password: str = ""
    tls: ssl.SSLContext | None = None

    def __repr__(self) -> str:
        return f"{self.host}:{self.port}/{self.db}{' over TLS' if self.tls else ''}"  # never the password


def _command(*words: bytes) -> bytes:
    """One command in RESP."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


class _Request:
    """Commands written together and the replies that came so far."""

    __slots__ = ("count", "deadline", "future", "replies")

    def __init__(self, future: "asyncio.Future[list[Any]]", count: int, deadline: float) -> None:
        self.future = future
        self.count = count
        self.deadline = deadline
        self.replies: list[Any] = []


class _Link(asyncio.Protocol):
    """One connection. Redis answers in order, so the oldest request owns the next reply.

    A request whose deadline passes stays in the queue without its caller: its replies are taken off the wire and
    dropped, so no reply is ever given to another request. If they do not come within STORE_STALL_SECONDS_MAX either,
    the connection is dropped. One timer serves all requests: a timer per call would cost more than the call's parsing.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_lost: Callable[["_Link", str], None]) -> None:
        self._loop = loop
        self._on_lost = on_lost
        self._reader = hiredis.Reader()
        self._waiting: deque[_Request] = deque()
        self._unsent: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def __repr__(self) -> str:
        return f"<_Link {len(self._waiting)} waiting>"

    def request(self, data: bytes, count: int, deadline: float) -> "asyncio.Future[list[Any]]":
        """Send commands that get `count` replies; the future holds them, or StoreUnavailable."""
        if self._transport is None or len(self._waiting) >= STORE_INFLIGHT_MAX:
            raise StoreUnavailable("the connection is closed" if self._transport is None else "too many reads waiting")
        if time.monotonic() > deadline:
            raise StoreUnavailable("the deadline passed before the read")
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        self._waiting.append(_Request(future, count, deadline))
        self._unsent.append(data)
        if len(self._unsent) == 1:
            self._loop.call_soon(self._flush)
        if self._timer is None or deadline < self._timer_at:
            self._arm(deadline)
        return future

    def _flush(self) -> None:
        """Send what this turn of the loop asked for in one write: with many callers, a system call for all of them."""
        data = b"".join(self._unsent)
        self._unsent.clear()
        if self._transport is not None:
            self._transport.write(data)

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
                if not request.future.done():
                    request.future.set_result(replies)
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
            request = self._waiting.popleft()
            if not request.future.done():
                request.future.set_exception(StoreUnavailable(reason))
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
        for request in self._waiting:
            if request.future.done():
                continue
            if request.deadline <= now:
                request.future.set_exception(StoreUnavailable("the deadline passed"))
            else:
                next_at = min(next_at, request.deadline)
        if self._waiting:
            self._arm(max(next_at, now + 0.001))  # a stalled store must not turn the loop into a timer queue


class RedisStore:
    """The store behind one connection, reconnected in the background for as long as the store is open."""

    inline = False

    def __init__(self, address: Address, plan: ReadPlan) -> None:
        self._address = address
        self._head = [b"*%d\r\n$5\r\nHMGET\r\n$" % (slots(entity).width + 2) for entity in plan.entities]
        self._tail = [_fields_of(entity, plan.project) for entity in plan.entities]
        self._times = [slots(entity).times for entity in plan.entities]
        self._project_bytes = len(plan.project.encode())
        self._link: _Link | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()  # the last attempt to connect has ended, either way
        self._failure = ""  # why the last attempt failed; "" while none has

    def __repr__(self) -> str:
        state = "connected" if self._link else f"down: {self._failure}" if self._failure else "connecting"
        return f"<RedisStore {self._address} {state}>"

    async def open(self) -> None:
        """Connect, waiting for the first attempt's end; on failure keep trying every STORE_RETRY_SECONDS."""
        self._reconnect()
        await self._settled.wait()

    def read_now(self, keys: Keys, deadline: float) -> Answer:  # noqa: ARG002
        raise StoreUnavailable("a Redis store cannot be read inline")

    async def read(self, keys: Keys, deadline: float) -> Answer:
        link = self._link or await self._linked(deadline)
        parts, extra = [], self._project_bytes
        for head, tail, wanted in zip(self._head, self._tail, keys, strict=True):
            parts += [b"%b%d\r\n%b%b" % (head, len(key) + extra, key, tail) for key in wanted]
        if not parts:
            return [[] for _ in keys]
        replies = await link.request(b"".join(parts), len(parts), deadline)
        answer, at = [], 0
        for wanted, times in zip(keys, self._times, strict=True):
            found = replies[at : at + len(wanted)]
            at += len(wanted)
            for one in found:
                if type(one) is not list:
                    raise StoreUnavailable(f"the store refused a read: {one}")
                for slot in times:
                    one[slot] = timestamp(one[slot])
            answer.append(found)
        return answer

    async def close(self) -> None:
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
        link, self._link = self._link, None
        if link is not None:
            link.drop()
        self._settled, self._failure = asyncio.Event(), ""  # the next open may be on another loop

    async def _linked(self, deadline: float) -> _Link:
        """The connection, waited for while an attempt is under way whose like has not failed yet."""
        self._reconnect()
        if not self._failure:
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._settled.wait()
            except TimeoutError:
                raise StoreUnavailable("the deadline passed while connecting") from None
        if self._link is None:
            raise StoreUnavailable(f"not connected to {self._address}: {self._failure}")
        return self._link

    def _reconnect(self) -> None:
        if self._link is None and self._connecting is None:
            self._settled.clear()
            self._connecting = asyncio.get_running_loop().create_task(self._connect(), name="feature store connect")

    async def _connect(self) -> None:  # with timeout(), as wait_for() can lose a cancellation until Python 3.12
        while True:
            try:
                async with asyncio.timeout(STORE_CONNECT_SECONDS_MAX):
                    self._link = await self._greeted()
            except (OSError, TimeoutError, StoreUnavailable) as error:
                if not self._failure:
                    _log.warning("feature store %s does not answer: %r; trying again", self._address, error)
                self._failure = str(error) or "no answer in time"
                self._settled.set()
                await asyncio.sleep(STORE_RETRY_SECONDS)
                continue
            if self._failure:
                _log.warning("feature store %s answers again", self._address)
            self._failure = ""
            self._connecting = None
            self._settled.set()
            return

    async def _greeted(self) -> _Link:
        """A new connection that has authenticated, chosen its database and answered a PING."""
        at, loop = self._address, asyncio.get_running_loop()
        _, link = await loop.create_connection(lambda: _Link(loop, self._lost), at.host, at.port, ssl=at.tls)
        try:
            await self._greet(link)
        except BaseException:  # cancelled by the time limit too: no half-open connection may stay
            link.drop()
            raise
        return link

    async def _greet(self, link: _Link) -> None:
        at, words = self._address, []
        if at.password:
            user = [at.username.encode()] if at.username else []
            words.append(_command(b"AUTH", *user, at.password.encode()))
        if at.db:
            words.append(_command(b"SELECT", b"%d" % at.db))
        words.append(_command(b"PING"))
        for reply in await link.request(b"".join(words), len(words), time.monotonic() + STORE_CONNECT_SECONDS_MAX):
            if isinstance(reply, Exception):
                raise StoreUnavailable(f"refused: {reply}")

    def _lost(self, link: _Link, reason: str) -> None:
        if link is self._link:
            _log.warning("feature store %s: %s; reconnecting", self._address, reason)
            self._link = None
            self._reconnect()


def _fields_of(entity: Entity, project: str) -> bytes:
    """What follows the entity key in an HMGET: the rest of the key, then every field, in slot order."""
    fields = []
    for view in entity.views:
        fields += [struct.pack("<I", mmh3.hash(f"{view.stored}:{f.name}", signed=False)) for f in view.features]
        fields.append(f"_ts:{view.stored}".encode())
    return project.encode() + b"\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(field), field) for field in fields)
