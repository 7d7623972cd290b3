"""What is known of an input topic over time: lag, rate, age of what waits, what stands still. Pure: time is given."""

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

RATE_SECONDS: Final = 10.0  # the rate is the mean of about this long
ENDS_KEPT: Final = 1000  # per partition: when its end was seen where, to tell the age of what waits


class Still(NamedTuple):
    """A partition whose records wait. `since`: monotonic seconds, when the group's position last moved or nothing
    waited; `passed`: records the group has read of other partitions from then on."""

    since: float
    passed: int


class Topic:
    """What is known of an input topic: (position, end) per partition, and when its ends were where."""

    def __init__(self) -> None:
        self.partitions: dict[int, tuple[int, int]] = {}
        self._still: dict[int, tuple[float, int]] = {}  # see Still: since, and the records read of all until then
        self._last: dict[int, float] = {}  # when records were last read of each
        self._read = 0  # records read since this was made
        self._ends: dict[int, deque[tuple[float, int]]] = {}
        self._reads: deque[tuple[float, int]] = deque()
        self._moved = False

    @property
    def lag(self) -> int:
        """Records waiting."""
        return self.waiting()

    def waiting(self, without: Collection[int] = ()) -> int:
        """Records waiting in partitions other than these."""
        return sum(max(0, end - at) for number, (at, end) in self.partitions.items() if number not in without)

    def see(self, partitions: Mapping[int, tuple[int, int]], now: float) -> None:
        """Note what the watcher saw. A position that was moved back is no progress, and nothing stands still by it."""
        before, self.partitions = self.partitions, dict(partitions)
        # What was read before a partition was watched is no news.
        news = {number: at - before.get(number, (at, 0))[0] for number, (at, _) in partitions.items()}
        self._last |= {number: now for number, read in news.items() if read > 0}
        read = sum(read for read in news.values() if read > 0)
        self._read += read
        self._moved = self._moved or read > 0
        self._reads.append((now, self._read))
        while len(self._reads) > 1 and self._reads[1][0] <= now - RATE_SECONDS:
            self._reads.popleft()  # the last one before the span stays: where the span begins
        for number, (at, end) in partitions.items():
            if number not in self._still or at >= end or news[number]:
                self._still[number] = now, self._read
            self._age(number, at, end, now)

    def still(self) -> dict[int, Still]:
        """Every partition where records wait."""
        waiting = [number for number, (at, end) in self.partitions.items() if at < end]
        return {number: Still(self._still[number][0], self._read - self._still[number][1]) for number in waiting}

    def is_read(self, numbers: Iterable[int], since: float) -> bool:
        """Whether records of any of these were read after `since`."""
        return any(self._last.get(number, 0.0) > since for number in numbers)

    def take_moved(self) -> bool:
        """Whether records were read since this was last asked."""
        moved, self._moved = self._moved, False
        return moved

    def rate(self, now: float) -> float:
        """Records read per second, lately."""
        if not self._reads:
            return 0.0
        before = [total for at, total in self._reads if at <= now - RATE_SECONDS]
        first = before[-1] if before else self._reads[0][1]
        return (self._reads[-1][1] - first) / RATE_SECONDS

    def ages(self, now: float) -> dict[int, float]:
        """About how long the oldest record that waits in each partition has waited, as far as it was watched; only
        partitions where one does."""
        return {number: now - ends[0][0] for number, ends in self._ends.items() if ends and number in self.partitions}

    def _age(self, number: int, at: int, end: int, now: float) -> None:
        ends = self._ends.setdefault(number, deque())
        if (not ends or end > ends[-1][1]) and len(ends) < ENDS_KEPT:
            ends.append((now, end))
        while ends and ends[0][1] <= at:
            ends.popleft()
