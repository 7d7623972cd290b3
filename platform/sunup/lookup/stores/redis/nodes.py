"""The nodes of a Redis cluster and which of them serves which slot: read when opened, read again when in doubt."""

import asyncio
import logging
import random
import time
from typing import Any

from sunup.clock import SystemClock
from sunup.limits import CLUSTER_LOOK_SECONDS, DISCOVERY_SECONDS_MAX, STORE_CONNECT_SECONDS_MAX
from sunup.lookup.circuit import Circuit
from sunup.lookup.store import PartUnavailable, StoreUnavailable
from sunup.lookup.stores.redis.address import Address, Cluster
from sunup.lookup.stores.redis.connect import command, connect, dial
from sunup.lookup.stores.redis.link import Link
from sunup.lookup.stores.redis.slots import SLOTS, Redirect, ranges

_log = logging.getLogger("sunup.lookup")
_SLOTS = command(b"CLUSTER", b"SLOTS")
_UNKNOWN = "its slots are not known yet"


class Node:
    """One server of the cluster, with a circuit of its own: one that does not answer costs the calls that need it."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.dial = dial(address)
        self.circuit = Circuit(SystemClock())

    def __repr__(self) -> str:
        return f"Node({self.address} {self.dial!r}, {self.circuit!r})"

    async def begin(self, data: bytes, count: int, now: float, deadline: float) -> "asyncio.Future[list[Any]]":
        """Send `count` commands. Raises StoreUnavailable; so does the future, which holds the replies."""
        if self.circuit.troubled:
            self.circuit.admit(now, deadline)
        link = self.dial.link or await self.dial.linked(deadline)
        return link.request(data, count, deadline)


class Nodes:
    """All that serve slots. One task reads the slots, and only while there is a doubt about them."""

    def __init__(self, place: Cluster) -> None:
        self._place = place
        self._nodes: dict[tuple[str, int], Node] = {}
        self._table: list[Node | None] = [None] * SLOTS
        self._unused: set[Node] = set()  # nodes that had no slots when last looked; what is under way there may end
        self._looking: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()  # the first look has ended, either way
        self._failure = _UNKNOWN  # why the last look failed
        self._doubted = False
        self._look_at = 0.0

    def __repr__(self) -> str:
        up = sum(node.dial.link is not None for node in self._nodes.values())
        state = f"down: {self._failure}" if self._failure else f"{up} of {len(self._nodes)} nodes connected"
        return f"{self._place} {state}"

    async def open(self) -> None:
        """Read the slots and connect to who serves any, waiting for the first attempts' end; on failure keep trying."""
        self.doubt()
        await self._settled.wait()
        await asyncio.gather(*(node.dial.open() for node in self._nodes.values()))

    async def known(self, deadline: float) -> None:
        """Wait for the first look at the slots. Raises StoreUnavailable while nobody says what they are."""
        if self._failure and not self._settled.is_set():
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._settled.wait()
            except TimeoutError:
                raise StoreUnavailable("the deadline passed while connecting") from None
        if self._failure and not self._nodes:
            self.doubt()
            raise StoreUnavailable(f"not connected to {self._place}: {self._failure}")

    def serving(self, slot: int) -> Node:
        """Who serves `slot`. Raises PartUnavailable where nobody does."""
        node = self._table[slot]
        if node is None:
            self.doubt()
            raise PartUnavailable(f"no node of the {self._place} serves slot {slot}")
        return node

    def redirected(self, where: Redirect, by: Node) -> Node:
        """Who serves a slot instead of `by`, who said so."""
        node = self._node(where.host or by.address.host, where.port)
        if not where.ask:
            self._table[where.slot] = node
            self.doubt()
        return node

    def doubt(self) -> None:
        """The slots may have changed: read them, at once unless that was done just now."""
        self._doubted = True
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look(), name="feature store slots")

    async def close(self) -> None:
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
        await asyncio.gather(*(node.dial.close() for node in self._nodes.values()))
        self._nodes, self._table, self._unused = {}, [None] * SLOTS, set()
        self._settled, self._failure, self._look_at = asyncio.Event(), _UNKNOWN, 0.0  # opened again, maybe elsewhere

    def _node(self, host: str, port: int) -> Node:
        node = self._nodes.get((host, port))
        if node is None:
            node = self._nodes[host, port] = Node(self._place.seeds[0].at(host, port))
            node.dial.begin()
        return node

    async def _look(self) -> None:
        while self._doubted:
            await asyncio.sleep(max(0.0, self._look_at - time.monotonic()))
            self._doubted = False
            try:
                await self._read_slots()
            except StoreUnavailable as error:
                if not self._failure or not self._settled.is_set():
                    _log.warning("feature store %s does not say who serves what: %s", self._place, error.message)
                self._failure, self._doubted = error.message, True
            else:
                self._failure = ""
            self._look_at = time.monotonic() + CLUSTER_LOOK_SECONDS * (0.75 + 0.5 * random.random())
            self._settled.set()
        self._looking = None

    async def _read_slots(self) -> None:
        """Ask connected nodes, the ones that answer first; without any, the seeds."""
        up = [node for node in self._nodes.values() if node.dial.link is not None]
        failures = []
        for node in sorted(up, key=lambda node: (node.circuit.troubled, random.random())):
            try:
                await self._take(node.dial.link, node.address.host)
            except StoreUnavailable as error:
                failures.append(f"{node.address}: {error.message}")
            else:
                return
        for seed in random.sample(self._place.seeds, len(self._place.seeds)):
            link = None
            try:
                async with asyncio.timeout(STORE_CONNECT_SECONDS_MAX):
                    link = await connect(seed, _unheard)
                await self._take(link, seed.host)
            except (OSError, TimeoutError, StoreUnavailable) as error:
                failures.append(f"{seed}: {str(error) or 'no answer in time'}")
            else:
                return
            finally:
                if link is not None:
                    link.drop()
        raise StoreUnavailable("; ".join(failures))

    async def _take(self, link: Link | None, host: str) -> None:
        """Have the slots as the server at `link`, on `host`, says. Raises StoreUnavailable."""
        if link is None:
            raise StoreUnavailable("the connection was lost")
        (reply,) = await link.request(_SLOTS, 1, time.monotonic() + DISCOVERY_SECONDS_MAX)
        table: list[Node | None] = [None] * SLOTS
        for each in list(ranges(reply)):
            node = self._node(each.host or host, each.port)
            table[each.first : each.last + 1] = [node] * (each.last + 1 - each.first)
        self._table = table
        await self._part(set(self._nodes.values()) - set(table))

    async def _part(self, unused: set[Node]) -> None:
        """Close nodes that had no slots at the last look either, and those that are gone."""
        gone = {node for node in unused if node in self._unused or node.dial.link is None}
        self._unused = unused - gone
        self._nodes = {key: node for key, node in self._nodes.items() if node not in gone}
        await asyncio.gather(*(node.dial.close() for node in gone))


def _unheard(_link: Link, _reason: str) -> None:
    """A link that is used once and dropped."""
