"""Tiles made again of the records that the topic still holds: what `platform stream replay --features` does.

A partition is begun anew at the offset that is wanted; from there to the group's position everything is a tail. So
whatever ends this in between, whoever opens the partition next on this machine reads on from the last checkpoint, and
another rebuild begins anew.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final, NamedTuple

from sunup.clock import Clock, SystemClock
from sunup.limits import AGGREGATE_CHANGES_MAX, AGGREGATE_DUE_ENTITIES_MAX
from sunup.lookup.writing.writer import FeatureWriter
from sunup.stream.admin import Admin
from sunup.stream.aggregate.event import Event
from sunup.stream.aggregate.kept.changelog import Changelog
from sunup.stream.aggregate.kept.state import State
from sunup.stream.aggregate.online import Online, Streamed
from sunup.stream.aggregate.partition import Partition
from sunup.stream.broker import Output, Record

_READ: Final = 20_000  # records read at a time
_CHANGES: Final = 5 * AGGREGATE_CHANGES_MAX  # entities kept at a time: nobody waits, and many change again and again


class Progress(NamedTuple):
    """`records` of `of` are aggregated, `written` entities are in the store."""

    records: int
    of: int
    written: int


class Rebuilt(NamedTuple):
    """`missing`: records between the offset wanted and the oldest that the topic holds; `unwritten`: whether the store
    could not be written: why, or ""; the stream's workers write what is left."""

    records: int
    late: int
    duplicates: int
    written: int
    missing: int
    unwritten: str


class Wanted(NamedTuple):
    """What is made again: the views of one function, see Aggregates. `write`: puts records into topics and waits until
    they are there; None on a broker without a changelog."""

    views: Sequence[Streamed]
    folder: Path
    group: str
    topic: str
    changelog: str | None
    events: Callable[[Sequence[Record]], Sequence[Sequence[Event | None]]]
    write: Callable[[Sequence[Output]], None] | None


def rebuild(
    wanted: Wanted,
    starts: Mapping[int, int],
    *,
    admin: Admin,
    writer: FeatureWriter,
    told: Callable[[Progress], None],
    clock: Clock | None = None,
) -> Rebuilt:
    """Do it for the partitions in `starts`, each from its offset on, up to where the group stands. `told` is called now
    and then. Raises BrokerError; FENCED, before anything is changed, while a process reads one of the partitions.
    """
    with ExitStack() as opened:
        made = _Rebuild(wanted, admin, writer, told, clock or SystemClock())
        for number in sorted(starts):
            opened.enter_context(closing(made.open(number)))
        made.begin(starts)
        made.aggregate()
        return made.write()


class _Rebuild:
    """One. Holds the locks of its partitions, so that no worker opens one of them."""

    def __init__(
        self, wanted: Wanted, admin: Admin, writer: FeatureWriter, told: Callable[[Progress], None], clock: Clock
    ) -> None:
        self._wanted = wanted
        self._admin = admin
        self._told = told
        self._clock = clock
        self._digests = [view.digest for view in wanted.views]
        self._online = Online(writer, wanted.views, clock)
        self._changelog = None if wanted.changelog is None else Changelog(wanted.changelog, self._digests)
        self._states: dict[int, State] = {}
        self._parts: dict[int, Partition] = {}
        self._goals: dict[int, int] = {}
        self._counts = [0, 0, 0, 0]  # records, late, duplicates, missing
        self._of = 0

    def open(self, number: int) -> State:
        state = self._states[number] = State(self._wanted.folder, number, self._digests)
        state.open(0.0)
        return state

    def begin(self, starts: Mapping[int, int]) -> None:
        """Every partition is empty then, and an old epoch's values can not be written over a new one's."""
        spans, origin = self._admin.span(self._wanted.topic), self._admin.origin(self._wanted.topic)
        positions = self._admin.positions(self._wanted.group, self._wanted.topic)
        if self._changelog is not None:
            self._admin.ensure_compacted(self._changelog.topic, len(spans))
        for number, state in self._states.items():
            epoch = max(int(self._clock.wall()), state.epoch + 1)
            if self._changelog is not None and (marker := self._changelog.marker(self._admin, number)) is not None:
                epoch = max(epoch, marker.epoch + 1)
            first, _ = spans[number]
            goal = self._goals[number] = positions.get(number, first)
            start = min(max(starts[number], first), goal)
            self._counts[3] += max(0, min(first, goal) - starts[number])
            self._of += goal - start
            state.begin(epoch, start, len(spans))
            part = self._parts[number] = Partition(number, self._wanted.views, state, self._online)
            part.is_of(origin)
            self._keep(part, goes_on=start < goal)

    def aggregate(self) -> None:
        for number, part in self._parts.items():
            at, goal = part.next, self._goals[number]
            while at < goal and (records := self._admin.read(self._wanted.topic, number, at, min(_READ, goal - at))):
                records = [record for record in records if record.offset < goal]
                at = records[-1].offset + 1 if records else goal
                self._take(part, records, at)
            self._take(part, (), goal)
            self._keep(part)

    def write(self) -> Rebuilt:
        """What is due of all that was made."""
        for part in self._parts.values():
            wall = self._clock.wall()
            while part.write_due(wall, AGGREGATE_DUE_ENTITIES_MAX) and not self._online.is_down:
                self._tell()
        records, late, duplicates, missing = self._counts
        return Rebuilt(records, late, duplicates, self._online.written, missing, self._online.reason)

    def _take(self, part: Partition, records: Sequence[Record], offset: int) -> None:
        events: Iterable[Sequence[Event | None]] = (
            self._wanted.events(records) if records else [()] * len(self._digests)
        )
        taken = part.take([[event for event in some if event is not None] for some in events], offset)
        part.commit_tail()
        self._counts[0] += len(records)
        self._counts[1] += sum(one.late for one in taken)
        self._counts[2] += sum(one.duplicate for one in taken)
        if part.changed_count >= _CHANGES:
            self._keep(part, goes_on=True)
        self._tell()

    def _keep(self, part: Partition, *, goes_on: bool = False) -> None:
        """Into the changelog, then into the file: what the file says is in the changelog is there."""
        logs = self._changelog is not None
        made = part.checkpoint(logs=logs)
        if self._changelog is not None and self._wanted.write is not None:
            self._wanted.write(list(part.outputs(self._changelog, made, goes_on=goes_on)))
        part.commit(self._clock.wall(), made, logs=logs)
        part.shrink(1.0)

    def _tell(self) -> None:
        self._told(Progress(self._counts[0], self._of, self._online.written))
