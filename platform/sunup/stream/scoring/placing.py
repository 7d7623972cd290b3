"""Are all events of an entity in one partition? Only there they are aggregated together.

A worker sees the partitions it reads, so it looks at what decides where a record goes: its key. Events of one entity
under two record keys, or under none, are where chance has put them, unless their producer chooses partitions itself.
"""

from collections.abc import Sequence

from sunup.limits import AGGREGATE_PLACES_MAX
from sunup.stream.aggregate.event import Event
from sunup.stream.broker import Record


class Placing:
    """Remembers the record key of up to AGGREGATE_PLACES_MAX entities of each of `views` views: a topic that is keyed
    by something else shows it within its first records."""

    def __init__(self, views: int) -> None:
        self._keys: list[dict[bytes, bytes]] = [{} for _ in range(views)]

    def __repr__(self) -> str:
        return f"Placing({[len(keys) for keys in self._keys]})"

    def misplaced(self, records: Sequence[Record], events: Sequence[Sequence[Event | None]]) -> list[int]:
        """Of each view, how many of its events may be in another partition than others of their entity. Records of a
        topic with several partitions; 0.1 us each and view."""
        return [self._count(keys, records, some) for keys, some in zip(self._keys, events, strict=True)]

    @staticmethod
    def _count(keys: dict[bytes, bytes], records: Sequence[Record], events: Sequence[Event | None]) -> int:
        count = 0
        for record, event in zip(records, events, strict=True):
            if event is not None:
                key = record.key
                if key is None or keys.setdefault(event.key, key) != key:
                    count += 1
        if len(keys) > AGGREGATE_PLACES_MAX:
            keys.clear()
        return count
