"""Who reads which partition, as the workers say, and which of them to replace because what they read stands still."""

import asyncio
from collections.abc import Collection, Mapping
from contextlib import suppress

from sunup.engine.local.state import Revision
from sunup.engine.local.workers import Role, Workers
from sunup.limits import DRAIN_SECONDS_MAX, STREAM_PASSED_RECORDS_MAX, STREAM_STALL_SECONDS
from sunup.scale.topic import Topic


class Readers:
    """The workers of one stream by name, and what each reads. Times: monotonic seconds."""

    def __init__(self) -> None:
        self._since: dict[int, dict[str, float]] = {}  # partition -> who says to read it, from when on

    def heard(self, name: str, partitions: Collection[int], now: float) -> None:
        """A worker said what it reads."""
        for number in partitions:
            self._since.setdefault(number, {}).setdefault(name, now)
        for number, names in self._since.items():
            if number not in partitions:
                names.pop(name, None)

    def forget(self, name: str) -> None:
        """A worker has ended."""
        self.heard(name, (), 0.0)

    def of(self, number: int) -> tuple[str, float] | None:
        """Who reads a partition, and since when: of several who say so the last, for the others will learn of it."""
        names = self._since.get(number)
        return max(names.items(), key=lambda one: one[1]) if names else None

    def read_by(self, name: str) -> list[int]:
        """The partitions a worker reads."""
        return [number for number in self._since if (found := self.of(number)) and found[0] == name]


def stuck(
    topic: Topic,
    readers: Readers,
    ready: Mapping[str, float],
    now: float,
    *,
    without: Collection[int],
    troubled: Collection[str],
    replaced: float = 0.0,
) -> tuple[list[int], list[str]]:
    """The partitions that stand still though they should not, and the workers to replace for it.

    `ready`: worker -> since when it could read. `without`: paused partitions. `troubled`: workers that know what keeps
    them, which a replacement would not mend. Whose partition nobody says to read, any worker may be at fault, unless
    one was `replaced` lately, at that time: the others have yet to say what they read in its place. That others of its
    reader are read before it means nothing until STREAM_PASSED_RECORDS_MAX records have passed it.
    """
    numbers, names = list[int](), set[str]()
    for number, (since, passed) in topic.still().items():
        known = readers.of(number)
        reader, begun = known if known and known[0] in ready else ("", max(replaced, *(ready.values() or [now])))
        suspects = {reader} if reader else set(ready)
        if number in without or now - max(since, begun) <= STREAM_STALL_SECONDS or suspects & set(troubled):
            continue
        waits_its_turn = reader and topic.is_read(readers.read_by(reader), now - STREAM_STALL_SECONDS)
        if not waits_its_turn or passed > STREAM_PASSED_RECORDS_MAX:
            numbers.append(number)
            names |= suspects
    return numbers, sorted(names)


async def taken_over(workers: Workers, *revisions: Revision) -> None:
    """Wait until nobody reads the topics of these functions for another revision. Those who do are told to end, and
    killed when they do not."""
    reading = [(one.revision, worker) for one in revisions for worker in workers.of(one.function, Role.STREAM)]
    ends = [worker.ended.wait() for number, worker in reading if worker.birth.revision != number]
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS_MAX + 1):
            await asyncio.gather(*ends)
