"""A reader's place in its group: which partitions it has, and had to give up.

The group shares partitions out cooperatively: a partition that moves is first given up, by a reader that knows it, and
given to another one when all have joined again. Until this reader joins again, which it does only while it polls, what
it polled is its own to commit.

A place belongs to a name (static membership): whoever comes back with the same one, while the session of the dead one
lasts, has its partitions at once, and the others notice nothing. kafka-python leaves such places occupied when it is
closed; here they are left.
"""

import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import Any, Final

from kafka import KafkaAdminClient, errors
from kafka.admin import MemberToRemove
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.structs import TopicPartition

from sunup.stream.kafka.clients import Clients

_KNOW_MS: Final = 1000  # ms to ask for the topic's partitions
_LOOK_SECONDS: Final = 0.002  # s between looks at whether somebody waits for what the group has answered
_JOIN_MS: Final = 10  # ms a poll waits for the group before it looks for records of what the reader has


class Membership:
    """Of one KafkaConsumer, before it has subscribed."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._group = reader._coordinator
        self._wait: Callable[..., bool] = self._group.poll
        self._group.poll = self._poll
        self._share: Callable[[], Awaitable[bytes]] = self._group._do_join_and_sync_async
        self._group._do_join_and_sync_async = self._shared
        self._is_waited_for = False
        self._group.is_dynamic_member = lambda: True  # of those who leave
        self._changes = _Changes(reader)

    @property
    def is_joining(self) -> bool:
        """Whether the group is sharing partitions out."""
        return bool(self._group.rebalance_in_progress())

    def join(self, topic: str) -> None:
        """The next poll joins."""
        self._reader.subscribe([topic], listener=self._changes)
        # A leader that does not know a topic's partitions yet shares none out, and all have to join again.
        known = self._reader._cluster.request_update()
        with suppress(errors.RetriableError):
            self._reader._net.run(self._reader._manager.wait_for, known, _KNOW_MS)

    def poll(
        self, seconds: float, records_max: int, mine: Collection[TopicPartition]
    ) -> dict[TopicPartition, list[Any]]:
        """kafka-python's. `mine`: partitions with records that were polled before and not committed; raises
        CommitFailedError when the reader has had to give one of them up, which it does nowhere else."""
        self._refuse(mine)
        self._changes.given_up.clear()
        found: dict[TopicPartition, list[Any]] = self._reader.poll(timeout_ms=seconds * 1000, max_records=records_max)
        self._refuse(mine)
        self._changes.is_lost = False  # what was found, was found after that
        return found

    def keep(self) -> None:
        """Stay, and be given nothing. A sharing out that has begun ends; no other one begins, and the group waits."""
        if self.is_joining:
            self._mend()
            self._wait_for_group(_JOIN_MS)
        else:
            self._group.poll_heartbeat()

    def check(self) -> None:
        """Raises CommitFailedError when the group has let this reader go."""
        if self._changes.is_lost or self._group.group_metadata().generation_id < 0:
            raise errors.CommitFailedError

    def leave(self, clients: Clients) -> None:
        """When the group is in the middle of sharing out; else closing the reader does it. The group's broker answers
        nothing else on that connection until all have joined."""
        member = self._group.group_metadata()
        if self.is_joining and member.member_id:
            self._group.reset_generation()
            admin = clients.open(KafkaAdminClient)
            try:
                # Both of them, so that it is not the place of whoever has taken it over.
                gone = MemberToRemove(member_id=member.member_id, group_instance_id=member.group_instance_id)
                admin.remove_group_members(member.group_id, [gone])
            finally:
                admin.close()

    def without(self, numbers: Collection[int]) -> None:
        """Read nothing of these partitions, whenever they are given to this reader."""
        self._changes.without = frozenset(numbers)
        self._reader.pause(*self._reader.assignment())
        self._resume()

    def settle(self, until: float) -> None:
        """Let a sharing out that has begun end: meanwhile the group refuses positions outside of transactions. What
        was given up in it is nobody's before this reader joins again."""
        while self.is_joining and (left := until - time.monotonic()) > 0:
            self._mend()
            self._wait_for_group(left * 1000)
        self.check()

    def _refuse(self, mine: Collection[TopicPartition]) -> None:
        if not self._changes.given_up.isdisjoint(mine):
            raise errors.CommitFailedError

    def _resume(self) -> None:
        self._reader.resume(
            *(each for each in self._reader.assignment() if each.partition not in self._changes.without)
        )

    def _poll(self, timeout_ms: float | None = None) -> bool:
        """In place of the coordinator's: a reader that has partitions goes on with them while the others join."""
        self._mend()
        if not self._group.need_rejoin():
            return self._wait(timeout_ms=timeout_ms)
        if not self._reader.assignment():
            return self._wait_for_group(max(_JOIN_MS, timeout_ms or 0.0))
        self._wait_for_group(_JOIN_MS)
        return True

    def _wait_for_group(self, timeout_ms: float) -> bool:
        self._is_waited_for = True
        try:
            return self._wait(timeout_ms=timeout_ms)
        finally:
            self._is_waited_for = False

    async def _shared(self) -> bytes:
        """In place of the coordinator's: kafka-python 3.0.12 forgets what the group has answered between two polls, and
        joins again. So the answer is only given while a poll waits for it."""
        try:
            return await self._share()
        finally:
            while not self._is_waited_for:
                await self._reader._net.sleep(_LOOK_SECONDS)

    def _mend(self) -> None:
        """kafka-python 3.0.12 forgets for good that it was joining if a poll ends while it joins for new partitions."""
        if self.is_joining and not self._group.need_rejoin():
            self._group.request_rejoin()


class _Changes(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    """What the group gives and takes. Called on the consumer's own thread, while the reader waits for the group."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.without: frozenset[int] = frozenset()
        self.given_up: set[TopicPartition] = set()
        self.is_lost = False

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Before anything of them can be read."""
        self._reader.pause(*(each for each in assigned if each.partition in self.without))

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        self.given_up.update(revoked)

    def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        """The group has let this reader go: it must not claim them when it joins again, as kafka-python would."""
        self.given_up.update(lost)
        self.is_lost = True
        for assignor in self._reader._coordinator._assignors.values():
            assignor.member_assignment = None
