"""A connection to a store that is made again in the background for as long as somebody wants it."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from sunup.limits import STORE_CONNECT_SECONDS_MAX, STORE_RETRY_SECONDS
from sunup.lookup.store import StoreUnavailable

_log = logging.getLogger("sunup.lookup")


class Droppable(Protocol):
    """A connection."""

    def drop(self) -> None:
        """Close at once; everything waiting fails."""


L = TypeVar("L", bound=Droppable)


class Dial(Generic[L]):
    """One connection to `where`, made by `connect`, which raises OSError or StoreUnavailable when it cannot be.

    `link` is None while there is none; whoever loses it says so (`lost`), which begins the next attempt.
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
        """Start connecting unless that is done or under way; on failure once more after STORE_RETRY_SECONDS."""
        if self.link is None and self._attempts is None:
            self._settled.clear()
            self._attempts = asyncio.get_running_loop().create_task(self._keep_trying(), name="feature store connect")

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
            self.begin()

    async def close(self) -> None:
        """End attempts and the connection. May be opened again, on another loop too."""
        attempts, self._attempts = self._attempts, None
        if attempts is not None:
            attempts.cancel()
            await asyncio.gather(attempts, return_exceptions=True)
        link, self.link = self.link, None
        if link is not None:
            link.drop()
        self._settled, self._failure = asyncio.Event(), ""

    async def _keep_trying(self) -> None:  # with timeout(), as wait_for() can lose a cancellation until Python 3.12
        while True:
            try:
                async with asyncio.timeout(STORE_CONNECT_SECONDS_MAX):
                    self.link = await self._connect()
            except (OSError, TimeoutError, StoreUnavailable) as error:
                if not self._failure:
                    _log.warning("feature store %s does not answer: %r; trying again", self._where, error)
                self._failure = str(error) or "no answer in time"
                self._settled.set()
                await asyncio.sleep(STORE_RETRY_SECONDS)
                continue
            if self._failure:
                _log.warning("feature store %s answers again", self._where)
            self._failure = ""
            self._attempts = None
            self._settled.set()
            return
