"""A connection to a store across a network that is made again, in the background, for as long as it is wanted."""

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
    """What a connection is to `Connection`: its link."""

    def drop(self) -> None:
        """Close at once; everything waiting fails."""


L = TypeVar("L", bound=Droppable)


class Connection(Generic[L]):
    """One link to `name`, made by `connect` (OSError or StoreUnavailable: it cannot be), and again when it is lost.

    `link` is None while there is none; whoever holds it says when it is gone (`lost`). Workers that lose a store at the
    same instant come back within STORE_SPREAD_SECONDS, and then at intervals of their own.
    """

    def __init__(self, connect: Callable[[], Awaitable[L]], name: str) -> None:
        self._connect = connect
        self._name = name
        self.link: L | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()  # the last attempt to connect has ended, either way
        self._failure = ""  # why the last attempt failed; "" while none has

    def __repr__(self) -> str:
        state = "connected" if self.link else f"down: {self._failure}" if self._failure else "connecting"
        return f"{self._name} {state}"

    async def open(self) -> None:
        """Connect, waiting for the first attempt's end; on failure keep trying."""
        self.start()
        await self._settled.wait()

    def start(self) -> None:
        """Connect, without waiting, unless that is done or under way."""
        self._reconnect(spread=0.0)

    async def linked(self, deadline: float) -> L:
        """The link, waited for while an attempt is under way whose like has not failed yet."""
        if self.link is not None:
            return self.link
        self.start()
        if not self._failure:
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._settled.wait()
            except TimeoutError:
                raise StoreUnavailable("the deadline passed while connecting") from None
        if self.link is None:
            raise StoreUnavailable(f"not connected to {self._name}: {self._failure}")
        return self.link

    def lost(self, link: L, reason: str) -> None:
        """`link` is gone."""
        if link is self.link:
            _log.warning("feature store %s: %s; reconnecting", self._name, reason)
            self.link = None
            self._reconnect(spread=STORE_SPREAD_SECONDS)

    async def close(self) -> None:
        """Let go of link and attempts. It may be opened again, on another loop too."""
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
        link, self.link = self.link, None
        if link is not None:
            link.drop()
        self._settled, self._failure = asyncio.Event(), ""

    def _reconnect(self, *, spread: float) -> None:
        if self.link is None and self._connecting is None:
            self._settled.clear()
            name = "feature store connect"
            self._connecting = asyncio.get_running_loop().create_task(self._keep_trying(spread), name=name)

    async def _keep_trying(self, spread: float) -> None:  # timeout(), as wait_for() can lose a cancellation until 3.12
        await asyncio.sleep(spread * random.random())
        while True:
            try:
                async with asyncio.timeout(STORE_CONNECT_SECONDS_MAX):
                    self.link = await self._connect()
            except (OSError, TimeoutError, StoreUnavailable) as error:
                if not self._failure:
                    _log.warning("feature store %s does not answer: %r; trying again", self._name, error)
                self._failure = str(error) or "no answer in time"
                self._settled.set()
                await asyncio.sleep(STORE_RETRY_SECONDS * (0.5 + 0.5 * random.random()))
                continue
            if self._failure:
                _log.warning("feature store %s answers again", self._name)
            self._failure = ""
            self._connecting = None
            self._settled.set()
            return
