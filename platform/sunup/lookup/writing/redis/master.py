"""One server, or the master that Sentinels name: who that is is asked before every attempt to connect, and while
connected once in a while, for a master that was cut off from its Sentinels goes on taking writes that will be lost."""

import random
import time
from collections.abc import Sequence
from typing import Any

from sunup.limits import DISCOVERY_SECONDS_MAX, SENTINEL_LOOK_SECONDS, STORE_CONNECT_SECONDS_MAX
from sunup.lookup.store import StoreUnavailable
from sunup.lookup.stores.redis.address import Address, Sentinels
from sunup.lookup.stores.redis.connect import command
from sunup.lookup.writing.redis.wire import Asked, Wire


class Master:
    """The one server that is written to. `first`: commands each new connection begins with."""

    def __init__(self, place: Address | Sentinels, first: Sequence[bytes]) -> None:
        self._place = place
        self._first = first
        self._wire: Wire | None = None
        self._watch = Watch(place) if isinstance(place, Sentinels) else None

    def __repr__(self) -> str:
        return f"{self._place}"

    def ask(self, asked: Sequence[Asked], deadline: float) -> list[Any]:
        """See Servers."""
        return self._said(b"".join([each.data for each in asked]), len(asked), deadline)

    def everywhere(self, data: bytes, deadline: float) -> list[Any]:
        """See Servers."""
        return self._said(data, 1, deadline)

    def close(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()
        if self._watch is not None:
            self._watch.close()

    def _said(self, data: bytes, count: int, deadline: float) -> list[Any]:
        try:
            return self._connected(deadline).ask(data, count, deadline)
        except StoreUnavailable:
            self.close()
            raise

    def _connected(self, deadline: float) -> Wire:
        wire, self._wire = self._wire, None
        if wire is not None and not (wire.idle and (self._watch is None or self._watch.agrees(wire.at, deadline))):
            wire.close()
            wire = None
        if wire is None:
            at = self._place if isinstance(self._place, Address) else self._named(deadline)
            soon = min(deadline, time.monotonic() + STORE_CONNECT_SECONDS_MAX)
            wire = Wire(at, soon, master=self._watch is not None, first=self._first)
        self._wire = wire
        return wire

    def _named(self, deadline: float) -> Address:
        assert self._watch is not None
        return self._watch.master(deadline)


class Watch:
    """What Sentinels say, over one connection to the one that answered last."""

    def __init__(self, place: Sentinels) -> None:
        self._place = place
        self._question = command(b"SENTINEL", b"get-master-addr-by-name", place.name.encode())
        self._sentinels = random.sample(place.sentinels, len(place.sentinels))
        self._wire: Wire | None = None
        self._known: Address | None = None  # whom the last answer named
        self._look_at = 0.0

    def __repr__(self) -> str:
        return f"Watch({self._place!r})"

    def agrees(self, at: Address, deadline: float) -> bool:
        """Whether `at` is the master still, as far as anybody says: without a Sentinel it is."""
        now = time.monotonic()
        if now < self._look_at:
            return True
        self._look_at = now + SENTINEL_LOOK_SECONDS
        try:
            return self._asked(self._sentinels[0], deadline) == at
        except StoreUnavailable:
            self.close()
            self._sentinels.append(self._sentinels.pop(0))  # the next one is asked next time: a write waits for one
            return True

    def master(self, deadline: float) -> Address:
        """Where the master is; the last known one will do where no Sentinel answers. Raises StoreUnavailable."""
        failures = []
        for sentinel in tuple(self._sentinels):
            try:
                self._known = self._asked(sentinel, deadline)
            except StoreUnavailable as error:
                self.close()
                self._sentinels.append(self._sentinels.pop(0))
                failures.append(error.message)
            else:
                self._look_at = time.monotonic() + SENTINEL_LOOK_SECONDS
                return self._known
        if self._known is None:
            raise StoreUnavailable(f"no Sentinel names the master {self._place.name}: {'; '.join(failures)}")
        return self._known

    def close(self) -> None:
        """Let go of the connection."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    def _asked(self, sentinel: Address, deadline: float) -> Address:
        until = min(deadline, time.monotonic() + DISCOVERY_SECONDS_MAX)
        if self._wire is not None and not (self._wire.idle and self._wire.at == sentinel):
            self.close()
        if self._wire is None:
            self._wire = Wire(sentinel, until)
        (reply,) = self._wire.ask(self._question, 1, until)
        if not isinstance(reply, list):  # nil: no such master; or an error
            raise StoreUnavailable(f"{sentinel} {str(reply) if reply is not None else 'knows no such master'}")
        return self._place.data.at(reply[0].decode(), int(reply[1]))
