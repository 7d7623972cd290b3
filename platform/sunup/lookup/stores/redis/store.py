"""Feast's Redis online store on one server: pre-packed HMGETs over one connection, replies matched by their order.

The server is the one a URL names, or the master that Sentinels name. The client library costs 69 us of CPU where this
costs 16, and half a second to import, and it is not used: authentication, databases, TLS and discovery need little.
"""

from typing import Any

from sunup.lookup.plan import ReadPlan
from sunup.lookup.store import Answer, Keys, Reading, Store, StoreUnavailable, Told
from sunup.lookup.stores.redis.address import Address, Sentinels
from sunup.lookup.stores.redis.connect import dial
from sunup.lookup.stores.redis.reads import Reads
from sunup.lookup.stores.redis.sentinel import Follower
from sunup.lookup.values import timestamp


class RedisStore(Store):
    """The store behind one connection, reconnected in the background for as long as the store is open."""

    inline = False

    def __init__(self, place: Address | Sentinels, plan: ReadPlan) -> None:
        self._place = place
        self._reads = Reads(plan)
        self._follower: Follower | None = None
        if isinstance(place, Sentinels):
            self._follower = Follower(place)
            self._dial = self._follower.dial
        else:
            self._dial = dial(place)

    def __repr__(self) -> str:
        return f"<RedisStore {self._place} {self._dial!r}>"

    async def open(self) -> None:
        """Connect, waiting for the first attempt's end; on failure keep trying."""
        await self._dial.open()
        if self._follower is not None:
            self._follower.start()

    def read_now(self, keys: Keys, deadline: float) -> Answer:  # noqa: ARG002
        raise StoreUnavailable("a Redis store cannot be read inline")

    async def read(self, keys: Keys, deadline: float) -> Answer:
        link = self._dial.link or await self._dial.linked(deadline)
        parts = self._commands(keys)
        if not parts:
            return [[] for _ in keys]
        return self._answer(keys, await link.request(b"".join(parts), len(parts), deadline))

    def ask(self, keys: Keys, deadline: float, told: Told) -> Reading:
        link, parts = self._dial.link, self._commands(keys)
        if link is None or not parts:
            return super().ask(keys, deadline, told)

        def replied(replies: list[Any] | StoreUnavailable) -> None:
            try:
                answer = self._answer(keys, replies) if type(replies) is list else replies
            except StoreUnavailable as error:
                answer = error
            told(answer)

        return link.ask(b"".join(parts), len(parts), deadline, replied)

    def _commands(self, keys: Keys) -> list[bytes]:
        """One HMGET for each key."""
        reads = self._reads
        parts, extra = [], reads.extra
        for head, tail, wanted in zip(reads.heads, reads.tails, keys, strict=True):
            for key in wanted:
                parts.append(b"%b%d\r\n%b%b" % (head, len(key) + extra, key, tail))  # noqa: PERF401  # mostly one
        return parts

    def _answer(self, keys: Keys, replies: list[Any]) -> Answer:
        """The replies by entity, with their times read. Raises StoreUnavailable for one that is an error."""
        answer, at = [], 0
        for number, (wanted, times) in enumerate(zip(keys, self._reads.times, strict=True)):
            found = replies[at : at + len(wanted)]
            at += len(wanted)
            for index, reply in enumerate(found):
                one = reply
                if type(reply) is not list:
                    one = found[index] = self._reads.refused(number, reply)
                for slot in times:
                    one[slot] = timestamp(one[slot])
            answer.append(found)
        return answer

    async def close(self) -> None:
        if self._follower is not None:
            await self._follower.close()
        await self._dial.close()
