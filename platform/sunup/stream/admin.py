"""What people do to a stream from outside: see what is in its topics, and move its group.

Whoever does it is in no group, and takes nothing away from those who are. One file per backend, one contract.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from sunup.stream.broker import Record


class Admin(Protocol):
    """Constructing one connects to nothing. Every method blocks no longer than STREAM_BROKER_SECONDS_MAX and raises
    BrokerError and nothing else. One thread at a time."""

    def span(self, topic: str) -> Mapping[int, tuple[int, int]]:
        """Partition -> the offset of its oldest record and the one its next record will get. Raises TOPIC_MISSING."""
        ...

    def origin(self, topic: str) -> str:
        """What tells this topic from any other one, of that name too: on another broker, or made anew. A kind, a colon
        and an id; "" where the broker does not say."""
        ...

    def at(self, topic: str, wall: float) -> Mapping[int, int]:
        """Partition -> the offset of its first record that was written at `wall` (seconds since the epoch) or later;
        of a partition without one its end."""
        ...

    def read(self, topic: str, partition: int, offset: int, records_max: int) -> Sequence[Record]:
        """Committed records from `offset` on, or from the oldest kept; fewer than `records_max` if they are large, none
        at the end."""
        ...

    def positions(self, group: str, topic: str) -> Mapping[int, int]:
        """Partition -> the group's position, of those it has committed."""
        ...

    def move(self, group: str, topic: str, positions: Mapping[int, int]) -> None:
        """Set positions of a group. Raises FENCED while somebody reads in it."""
        ...

    def ensure_compacted(self, topic: str, partitions: int) -> None:
        """Make a topic that keeps the newest record of each key, where there is none; one with fewer partitions gets
        more. Raises NOT_PERMITTED, and FAILED where one of that name is something else; either says what to do."""
        ...

    def close(self) -> None:
        """Let go of everything. May be called after an error, and twice."""
        ...
