"""The master that Sentinels name: found before every attempt to connect, and followed when it moves.

Source: "Guidelines for Redis clients with support for Redis Sentinel" of the Redis documentation: ask a Sentinel with
SENTINEL get-master-addr-by-name, verify the role of what it names, ask again whenever the connection is lost. A master
that stalls breaks no connection, and one that was cut off from its Sentinels goes on answering what it still has:
so they are also asked once in a while.
"""

import asyncio
import logging
import random
import time

from sunup.limits import DISCOVERY_SECONDS_MAX, SENTINEL_LOOK_SECONDS
from sunup.lookup.store import StoreUnavailable
from sunup.lookup.stores.redis.address import Address, Sentinels
from sunup.lookup.stores.redis.connect import Lost, command, connect, dialled
from sunup.lookup.stores.redis.link import Link

_log = logging.getLogger("sunup.lookup")


class Follower:
    """Keeps `dial` on the master. One link to the Sentinel that answered last is kept."""

    def __init__(self, place: Sentinels) -> None:
        self._place = place
        # The one that answered last is first; workers do not all begin with the same.
        self._sentinels = random.sample(place.sentinels, len(place.sentinels))
        self._question = command(b"SENTINEL", b"get-master-addr-by-name", place.name.encode())
        self._link: Link | None = None
        self._asking = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._known: Address | None = None  # where the master was when it was last connected to
        self.dial = dialled(place, self._connect)

    def __repr__(self) -> str:
        return f"Follower({self._place!r})"

    def start(self) -> None:
        """Look from now on."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._follow(), name="feature store master")

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._forget()

    async def master(self) -> Address:
        """Where the master is. Raises StoreUnavailable when no Sentinel says so.

        Without any Sentinel the last known master will do, as long as it is one.
        """
        async with self._asking:
            failures = []
            for sentinel in list(self._sentinels):
                try:
                    async with asyncio.timeout(DISCOVERY_SECONDS_MAX):
                        host, port = await self._ask(sentinel)
                except (OSError, TimeoutError, StoreUnavailable) as error:
                    self._forget()
                    self._sentinels.append(self._sentinels.pop(0))
                    failures.append(f"{sentinel.host}:{sentinel.port} {str(error) or 'no answer in time'}")
                else:
                    return self._place.data.at(host, port)
        if self._known is None:
            raise StoreUnavailable(f"no Sentinel names the master {self._place.name}: {'; '.join(failures)}")
        return self._known

    async def _connect(self, on_lost: Lost) -> Link:
        self._known = await self.master()
        return await connect(self._known, on_lost, master=True)

    async def _ask(self, sentinel: Address) -> tuple[str, int]:
        if self._link is None:
            self._link = await connect(sentinel, self._lost)
        (reply,) = await self._link.request(self._question, 1, time.monotonic() + DISCOVERY_SECONDS_MAX)
        if not isinstance(reply, list):  # nil: no such master; or an error
            raise StoreUnavailable(str(reply) if reply is not None else "knows no such master")
        return reply[0].decode(), int(reply[1])

    def _forget(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.drop()

    def _lost(self, link: Link, _reason: str) -> None:
        if link is self._link:
            self._link = None

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(SENTINEL_LOOK_SECONDS * (0.75 + 0.5 * random.random()))
            known = self._known
            try:
                master = await self.master()
            except StoreUnavailable:
                continue  # the connection, if there is one, serves on; else its own attempts say why
            if known is self._known and known is not None and master != known:
                await self.dial.again(f"the master is {master} now, no longer {known}")
