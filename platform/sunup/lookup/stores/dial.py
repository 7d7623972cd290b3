"""A connection to a store that is made again in the background for as long as somebody wants it."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from sunup.limits import STORE_CONNECT_SECONDS_MAX, STORE_RETRY_SECONDS, STORE_SPREAD_SECONDS
from sunup.lookup.store import StoreUnavailable

_log = logging.getLogger("sunup.lookup")


class Droppable(Protocol):
    """A connection."""

    def drop(self) -> None:
        """Close at once; everything waiting fails."""


L = TypeVar("L", bound=Droppable)


class Dial(Generic[L]):
    """One connection to `where`, made by `connect`, which raises OSError or StoreUnavailable when it cannot be.

    `link` is None while there is none; whoever loses it says so (`lost`), which begins the next attempt. Workers that
    lost theirs at the same instant come back within STORE_SPREAD_SECONDS, and then at intervals of their own.
    """

    def __init__(self, where: object, connect: Callable[[], Awaitable[L]]) -> None:
        self._where = where
        self._connect = connect
        self.link: L | None = None
        self._attempts: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()  # the last attempt has ended, either way
        self._failure = ""  # why the last attempt failed; "" while none has

    def __repr__(self) -> str:
        return "connected" if self.link else f"down: {self._failure}" if self._failure else "connecting"

    def begin(self) -> None:
        """Start connecting unless that is done or under way; on failure once more within STORE_RETRY_SECONDS."""
        self._begin(spread=0.0)

    async def open(self) -> None:
        """Connect, waiting for the first attempt's end."""
        self.begin()
        await self._settled.wait()

    async def linked(self, deadline: float) -> L:
        """The connection, waited for while an attempt is under way whose like has not failed yet."""
        self.begin()
        if not self._failure:
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._settled.wait()
            except TimeoutError:
                raise StoreUnavailable("the deadline passed while connecting") from None
        if self.link is None:
            raise StoreUnavailable(f"not connected to {self._where}: {self._failure}")
        return self.link

    def lost(self, link: L, reason: str) -> None:
        """`link` is gone."""
        if link is self.link:
            _log.warning("feature store %s: %s; reconnecting", self._where, reason)
            self.link = None
            self._begin(spread=STORE_SPREAD_SECONDS)

    async def again(self, why: str) -> None:
        """It is another server now: let go of the link, or of the attempt to make one, and connect."""
        _log.warning("feature store %s: %s; reconnecting", self._where, why)
        await self._let_go()
        self.begin()

    async def close(self) -> None:
        """End attempts and the connection. May be opened again, on another loop too."""
        await self._let_go()
        self._settled, self._failure = asyncio.Event(), ""

    def _begin(self, *, spread: float) -> None:
        if self.link is None and self._attempts is None:
            self._settled.clear()
            attempts = self._keep_trying(spread)
            self._attempts = asyncio.get_running_loop().create_task(attempts, name="feature store connect")

    async def _let_go(self) -> None:
        attempts, self._attempts = self._attempts, None
        if attempts is not None:
            attempts.cancel()
            await asyncio.gather(attempts, return_exceptions=True)
        link, self.link = self.link, None
        if link is not None:
            link.drop()

    async def _keep_trying(self, spread: float) -> None:  # timeout(): wait_for() can lose a cancellation until 3.12
        await asyncio.sleep(spread * random.random())
        while True:
            try:
                async with asyncio.timeout(STORE_CONNECT_SECONDS_MAX):
                    self.link = await self._connect()
            except (OSError, TimeoutError, StoreUnavailable) as error:
                if not self._failure:
                    _log.warning("feature store %s does not answer: %r; trying again", self._where, error)
                self._failure = str(error) or "no answer in time"
                self._settled.set()
                await asyncio.sleep(STORE_RETRY_SECONDS * (0.5 + 0.5 * random.random()))
                continue
            if self._failure:
                _log.warning("feature store %s answers again", self._where)
            self._failure = ""
            self._attempts = None
            self._settled.set()
            return
