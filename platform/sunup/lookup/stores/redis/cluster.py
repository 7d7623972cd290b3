"""Feast's Redis online store on a cluster: a call's keys go out by node, one write each, and come back in their order.

A node that sends keys elsewhere (MOVED, ASK) is followed within the call. A call whose node does not answer goes
without its features, all of them: it cannot be told apart from one with absent keys otherwise.
"""

import asyncio
import time
from typing import Any, NamedTuple

from sunup.limits import CLUSTER_REDIRECTS_MAX
from sunup.lookup.plan import ReadPlan
from sunup.lookup.store import Answer, Keys, PartUnavailable, Store, StoreUnavailable
from sunup.lookup.stores.redis.address import Cluster
from sunup.lookup.stores.redis.connect import command
from sunup.lookup.stores.redis.nodes import Node, Nodes
from sunup.lookup.stores.redis.reads import Reads
from sunup.lookup.stores.redis.slots import redirect, slot_of
from sunup.lookup.values import timestamp

_ASKING = command(b"ASKING")


class _Read(NamedTuple):
    """One key of a call. `place`: where its reply goes; `asking`: its node must be told that it was redirected here."""

    place: int
    slot: int
    data: bytes
    asking: bool = False


class ClusterStore(Store):
    """The store on all nodes of a cluster that serve slots, each behind one connection."""

    inline = False

    def __init__(self, place: Cluster, plan: ReadPlan) -> None:
        self._reads = Reads(plan)
        self._nodes = Nodes(place)

    def __repr__(self) -> str:
        return f"<ClusterStore {self._nodes!r}>"

    async def open(self) -> None:
        """Read the slots and connect to every node, waiting for the first attempts' end; on failure keep trying."""
        await self._nodes.open()

    def read_now(self, keys: Keys, deadline: float) -> Answer:  # noqa: ARG002
        raise StoreUnavailable("a Redis store cannot be read inline")

    async def read(self, keys: Keys, deadline: float) -> Answer:
        reads = self._packed(keys)
        if not reads:
            return [[] for _ in keys]
        if time.monotonic() > deadline:
            raise StoreUnavailable("the deadline passed before the read")
        await self._nodes.known(deadline)
        replies = await self._replies(reads, deadline)
        answer, at = [], 0
        for number, (wanted, times) in enumerate(zip(keys, self._reads.times, strict=True)):
            found = [self._found(number, reply) for reply in replies[at : at + len(wanted)]]
            at += len(wanted)
            for one in found:
                for slot in times:
                    one[slot] = timestamp(one[slot])
            answer.append(found)
        return answer

    async def close(self) -> None:
        await self._nodes.close()

    def _packed(self, keys: Keys) -> list[_Read]:
        packing = self._reads
        packed: list[_Read] = []
        for head, tail, wanted in zip(packing.heads, packing.tails, keys, strict=True):
            for key in wanted:
                data = b"%b%d\r\n%b%b" % (head, len(key) + packing.extra, key, tail)
                packed.append(_Read(len(packed), slot_of(key + packing.suffix), data))
        return packed

    def _found(self, number: int, reply: Any) -> list[Any]:
        if type(reply) is list:
            return reply
        try:
            return self._reads.refused(number, reply)
        except StoreUnavailable as error:  # CLUSTERDOWN, LOADING: one node says so
            self._nodes.doubt()
            raise PartUnavailable(error.message) from error

    async def _replies(self, reads: list[_Read], deadline: float) -> list[Any]:
        """A reply per read, redirections followed."""
        replies: list[Any] = [None] * len(reads)
        groups: dict[Node, list[_Read]] = {}
        for read in reads:
            groups.setdefault(self._nodes.serving(read.slot), []).append(read)
        for _ in range(1 + CLUSTER_REDIRECTS_MAX):
            again: dict[Node, list[_Read]] = {}
            for (node, asked), got in zip(groups.items(), await self._round(groups, deadline), strict=True):
                for read, reply in zip(asked, got, strict=True):
                    where = None if type(reply) is list else redirect(reply)
                    if where is None:
                        replies[read.place] = reply
                    else:
                        there = self._nodes.redirected(where, node)
                        again.setdefault(there, []).append(read._replace(asking=where.ask))
            if not again:
                return replies
            groups = again
        raise PartUnavailable(f"redirected more than {CLUSTER_REDIRECTS_MAX} times")

    async def _round(self, groups: dict[Node, list[_Read]], deadline: float) -> list[list[Any]]:
        """Ask every node for its reads, all at once; replies by node, in its reads' order."""
        now = time.monotonic()
        futures: list[asyncio.Future[list[Any]]] = []
        answers: list[list[Any]] = []
        node = None
        try:
            for node, reads in groups.items():
                parts = [_ASKING + read.data if read.asking else read.data for read in reads]
                count = len(parts) + sum(read.asking for read in reads)
                futures.append(await node.begin(b"".join(parts), count, now, deadline))
            for (node, reads), future in zip(groups.items(), futures, strict=True):
                answers.append(_without_asking(reads, await future))
                if node.circuit.troubled:
                    node.circuit.succeeded()
        except StoreUnavailable as error:
            assert node is not None
            if error.counts:
                node.circuit.failed(now)
                self._nodes.doubt()
            raise PartUnavailable(f"node {node.address}: {error.message}") from error
        finally:
            for future in futures:
                _forget(future)
        return answers


def _without_asking(reads: list[_Read], replies: list[Any]) -> list[Any]:
    """One reply per read: ASKING has one, too."""
    if len(replies) == len(reads):
        return replies
    rest = iter(replies)
    return [(next(rest), next(rest))[1] if read.asking else next(rest) for read in reads]


def _forget(future: "asyncio.Future[list[Any]]") -> None:
    """Nobody waits for it any more: its replies are taken off the wire and dropped."""
    if not future.cancel() and not future.cancelled():
        future.exception()  # or the loop would report one that nobody saw
