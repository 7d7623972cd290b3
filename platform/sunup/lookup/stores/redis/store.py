"""Feast's Redis online store: pre-packed HMGETs over one connection, replies matched by their order.

Layout (feast/infra/online_stores/redis.py): one hash per entity key for all of its views, under `entity key + project`;
field `murmur3_32("view:feature")` (4 bytes, little endian) holds the Value, field `_ts:view` the Timestamp. One HMGET
per entity therefore serves all of its views. The client library costs 69 us of CPU where this file costs 16, and half
a second to import, and it is not used: one server, with password, database and TLS, needs little.
"""

import asyncio
import logging
import struct
import time
from typing import Any

import mmh3

from sunup.limits import STORE_CONNECT_SECONDS_MAX, STORE_RETRY_SECONDS
from sunup.lookup.plan import Entity, ReadPlan
from sunup.lookup.store import Answer, Keys, Reading, Store, StoreUnavailable, Told, slots
from sunup.lookup.stores.redis.address import Address
from sunup.lookup.stores.redis.link import Link
from sunup.lookup.values import timestamp

_log = logging.getLogger("sunup.lookup")


def _command(*words: bytes) -> bytes:
    """One command in RESP."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


class RedisStore(Store):
    """The store behind one connection, reconnected in the background for as long as the store is open."""

    inline = False

    def __init__(self, address: Address, plan: ReadPlan) -> None:
        self._address = address
        self._head = [b"*%d\r\n$5\r\nHMGET\r\n$" % (slots(entity).width + 2) for entity in plan.entities]
        self._tail = [_fields_of(entity, plan.project) for entity in plan.entities]
        self._times = [slots(entity).times for entity in plan.entities]
        self._project_bytes = len(plan.project.encode())
        self._link: Link | None = None
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
        parts = self._commands(keys)
        if not parts:
            return [[] for _ in keys]
        return self._answer(keys, await link.request(b"".join(parts), len(parts), deadline))

    def ask(self, keys: Keys, deadline: float, told: Told) -> Reading:
        parts = self._commands(keys)
        if self._link is None or not parts:
            return super().ask(keys, deadline, told)

        def replied(replies: list[Any] | StoreUnavailable) -> None:
            try:
                answer = self._answer(keys, replies) if type(replies) is list else replies
            except StoreUnavailable as error:
                answer = error
            told(answer)

        return self._link.ask(b"".join(parts), len(parts), deadline, replied)

    def _commands(self, keys: Keys) -> list[bytes]:
        """One HMGET for each key."""
        parts, extra = [], self._project_bytes
        for head, tail, wanted in zip(self._head, self._tail, keys, strict=True):
            for key in wanted:
                parts.append(b"%b%d\r\n%b%b" % (head, len(key) + extra, key, tail))  # noqa: PERF401  # mostly one
        return parts

    def _answer(self, keys: Keys, replies: list[Any]) -> Answer:
        """The replies by entity, with their times read. Raises StoreUnavailable for one that is an error."""
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

    async def _linked(self, deadline: float) -> Link:
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

    async def _greeted(self) -> Link:
        """A new connection that has authenticated, chosen its database and answered a PING."""
        at, loop = self._address, asyncio.get_running_loop()
        _, link = await loop.create_connection(lambda: Link(loop, self._lost), at.host, at.port, ssl=at.tls)
        try:
            await self._greet(link)
        except BaseException:  # cancelled by the time limit too: no half-open connection may stay
            link.drop()
            raise
        return link

    async def _greet(self, link: Link) -> None:
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

    def _lost(self, link: Link, reason: str) -> None:
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
