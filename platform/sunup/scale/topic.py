"""What is known of an input topic over time: lag, rate, the age of what waits. Pure: time is given."""

from collections import deque
from collections.abc import Mapping
from typing import Final

RATE_SECONDS: Final = 10.0  # the rate is the mean of about this long
ENDS_KEPT: Final = 1000  # per partition: when its end was seen where, to tell the age of what waits


class Topic:
    """What is known of an input topic: (position, end) per partition, and when its ends were where."""

    def __init__(self) -> None:
        self.partitions: dict[int, tuple[int, int]] = {}
        self.moved_at = 0.0  # monotonic seconds: when a position last went on, or nothing waited
        self._ends: dict[int, deque[tuple[float, int]]] = {}
        self._positions: deque[tuple[float, int]] = deque()
        self._moved = False

    @property
    def lag(self) -> int:
        """Records waiting."""
        return sum(max(0, end - position) for position, end in self.partitions.values())

    def see(self, partitions: Mapping[int, tuple[int, int]], now: float) -> None:
        """Note what the watcher saw."""
        total = sum(position for position, _ in partitions.values())
        before = self._positions[-1][1] if self._positions else total  # what was read earlier is no news
        self.partitions = dict(partitions)
        if total > before or not self.lag:
            self.moved_at = now
        self._moved = self._moved or total > before
        self._positions.append((now, total))
        while len(self._positions) > 1 and self._positions[1][0] <= now - RATE_SECONDS:
            self._positions.popleft()  # the last one before the span stays: where the span begins
        for number, (position, end) in partitions.items():
            ends = self._ends.setdefault(number, deque())
            if (not ends or end > ends[-1][1]) and len(ends) < ENDS_KEPT:
                ends.append((now, end))
            while ends and ends[0][1] <= position:
                ends.popleft()

    def take_moved(self) -> bool:
        """Whether records were read since this was last asked."""
        moved, self._moved = self._moved, False
        return moved

    def rate(self, now: float) -> float:
        """Records read per second, lately."""
        if not self._positions:
            return 0.0
        before = [total for at, total in self._positions if at <= now - RATE_SECONDS]
        first = before[-1] if before else self._positions[0][1]
        return (self._positions[-1][1] - first) / RATE_SECONDS

    def oldest_seconds(self, now: float) -> float | None:
        """About how long the oldest record that waits has waited, as far as it was watched; None when none waits."""
        return max((now - ends[0][0] for ends in self._ends.values() if ends), default=None) if self.lag else None
