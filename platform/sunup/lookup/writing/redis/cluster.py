"""A cluster: every command goes to the master that serves its key's slot, and where that one sends it instead."""

import random
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sunup.limits import CLUSTER_REDIRECTS_MAX, DISCOVERY_SECONDS_MAX, STORE_CONNECT_SECONDS_MAX
from sunup.lookup.store import StoreUnavailable
from sunup.lookup.stores.redis.address import Address, Cluster
from sunup.lookup.stores.redis.connect import command
from sunup.lookup.stores.redis.slots import SLOTS, ranges, redirect, slot_of
from sunup.lookup.writing.redis.wire import Asked, Wire

_SLOTS = command(b"CLUSTER", b"SLOTS")
_ASKING = command(b"ASKING")


class _Sent(NamedTuple):
    """One command: its place among all, and whether its node must be told that it was sent there."""

    place: int
    data: bytes
    asking: bool = False


class Masters:
    """The nodes that serve slots. `first`: commands each new connection begins with."""

    def __init__(self, place: Cluster, first: Sequence[bytes]) -> None:
        self._place = place
        self._first = first
        self._wires: dict[Address, Wire] = {}
        self._table: list[Address | None] = []  # per slot who serves it; empty: to be read

    def __repr__(self) -> str:
        return f"{self._place}"

    def ask(self, asked: Sequence[Asked], deadline: float) -> list[Any]:
        """See Servers. A node that fails keeps nobody from asking the others first: what they take is taken."""
        replies: list[Any] = [None] * len(asked)
        try:
            self._known(deadline)
            groups: dict[Address, list[_Sent]] = {}
            for place, each in enumerate(asked):
                groups.setdefault(self._serving(slot_of(each.key)), []).append(_Sent(place, each.data))
            for _ in range(1 + CLUSTER_REDIRECTS_MAX):
                groups = self._round(groups, replies, deadline)
                if not groups:
                    return replies
        except StoreUnavailable:
            self.close()
            raise
        self.close()
        raise StoreUnavailable(f"{self._place}: redirected more than {CLUSTER_REDIRECTS_MAX} times")

    def everywhere(self, data: bytes, deadline: float) -> list[Any]:
        """See Servers."""
        try:
            self._known(deadline)
            nodes = dict.fromkeys(node for node in self._table if node is not None)
            return [reply for (reply,) in self._said(dict.fromkeys(nodes, (data, 1)), deadline)]
        except StoreUnavailable:
            self.close()
            raise

    def close(self) -> None:
        wires, self._wires, self._table = self._wires, {}, []
        for wire in wires.values():
            wire.close()

    def _serving(self, slot: int) -> Address:
        node = self._table[slot]
        if node is None:
            raise StoreUnavailable(f"no node of the {self._place} serves slot {slot}")
        return node

    def _round(
        self, groups: Mapping[Address, Sequence[_Sent]], replies: list[Any], deadline: float
    ) -> dict[Address, list[_Sent]]:
        """Ask each node for its own; what they send elsewhere, by where."""
        asked = {
            node: (
                b"".join([_ASKING + each.data if each.asking else each.data for each in own]),
                len(own) + sum(each.asking for each in own),
            )
            for node, own in groups.items()
        }
        again: dict[Address, list[_Sent]] = {}
        for (node, own), got in zip(groups.items(), self._said(asked, deadline), strict=True):
            rest = iter(got)
            for each in own:
                reply = (next(rest), next(rest))[1] if each.asking else next(rest)  # ASKING has one, too
                where = redirect(reply) if isinstance(reply, Exception) else None
                if where is None:
                    replies[each.place] = reply
                    continue
                there = node.at(where.host or node.host, where.port)
                if not where.ask:
                    self._table[where.slot] = there
                again.setdefault(there, []).append(each._replace(asking=where.ask))
        return again

    def _said(self, data: Mapping[Address, tuple[bytes, int]], deadline: float) -> list[list[Any]]:
        """The replies of each node, all of which work at once. Raises the first failure behind the last reply."""
        failure: StoreUnavailable | None = None
        waiting: list[tuple[Wire | None, int]] = []
        for node, (words, count) in data.items():
            try:
                wire = self._wire(node, deadline)
                wire.send(words, deadline)
                waiting.append((wire, count))
            except StoreUnavailable as error:
                failure = failure or error
                waiting.append((None, 0))
        answers = []
        for sent, count in waiting:
            try:
                answers.append(sent.receive(count, deadline) if sent is not None else [])
            except StoreUnavailable as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return answers

    def _wire(self, node: Address, deadline: float) -> Wire:
        wire = self._wires.pop(node, None)
        if wire is not None and not wire.idle:
            wire.close()
            wire = None
        if wire is None:
            soon = min(deadline, time.monotonic() + STORE_CONNECT_SECONDS_MAX)
            wire = Wire(node, soon, first=self._first)
        self._wires[node] = wire
        return wire

    def _known(self, deadline: float) -> None:
        """Read the slots, of whoever says them, unless they are known."""
        if self._table:
            return
        failures = []
        for seed in random.sample(self._place.seeds, len(self._place.seeds)):
            wire = None
            try:
                soon = min(deadline, time.monotonic() + DISCOVERY_SECONDS_MAX)
                wire = Wire(seed, soon)
                self._table = _table(seed, wire.ask(_SLOTS, 1, soon)[0])
            except StoreUnavailable as error:
                failures.append(error.message)
            else:
                return
            finally:
                if wire is not None:
                    wire.close()
        raise StoreUnavailable("; ".join(failures))


def _table(by: Address, reply: Any) -> list[Address | None]:
    """Per slot who serves it, as the server at `by` says."""
    table: list[Address | None] = [None] * SLOTS
    for each in ranges(reply):
        table[each.first : each.last + 1] = [by.at(each.host or by.host, each.port)] * (each.last + 1 - each.first)
    return table
