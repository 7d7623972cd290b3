"""The stream feature views of one function: tiles of the partitions that this process reads.

    poll -> take (values before each record) -> score -> commit(outputs + outputs()) -> committed: file, then store

What is between the last checkpoint of a partition and the group's position, the *tail*, is read again from the input:
aggregated, not scored. So a crash, a batch that was given up and a partition that moves are all the same thing.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from sunup.clock import Clock, SystemClock
from sunup.limits import (
    AGGREGATE_BEHIND_SECONDS,
    AGGREGATE_DUE_ENTITIES_MAX,
    AGGREGATE_KEEP_SECONDS,
    AGGREGATE_LOCK_SECONDS,
    AGGREGATE_SEEN_SECONDS_MAX,
)
from sunup.lookup.writing.writer import FeatureWriter
from sunup.stream.admin import Admin
from sunup.stream.aggregate.event import Event
from sunup.stream.aggregate.kept.changelog import Changelog
from sunup.stream.aggregate.kept.opening import Opening
from sunup.stream.aggregate.online import Online, Streamed
from sunup.stream.aggregate.partition import Checkpoint, Counts, Facts, Partition, Teller
from sunup.stream.aggregate.table import Taken
from sunup.stream.aggregate.tiling.layout import Value
from sunup.stream.broker import BrokerError, Output, Record, Trouble

_LOG: Final = logging.getLogger(__name__)

Events: TypeAlias = Sequence[Sequence[Event | None]]  # [view][record]
Before: TypeAlias = list[list[tuple[Value, ...] | None]]


class Aggregates:
    """All partitions of one function that this process reads.

    `views`: in the order of `events`. `folder`: of the function's files. `topic`, `group`: the input and who reads it;
    `changelog`: the compacted topic, None on a broker without compaction. `open_admin`: whoever reads topics again;
    `events`: records to what the views see of them. `stay`: called now and then while that takes long, to stay in the
    group. Constructing one opens nothing. Every method may block, for use on the broker's thread, and raises
    BrokerError for what keeps the stream from going on; after that `forget`.
    """

    def __init__(
        self,
        views: Sequence[Streamed],
        folder: Path,
        *,
        group: str,
        topic: str,
        changelog: str | None,
        open_admin: Callable[[], Admin],
        events: Callable[[Sequence[Record]], Events],
        writer: FeatureWriter,
        teller: Teller,
        clock: Clock | None = None,
        stay: Callable[[], None] = lambda: None,
    ) -> None:
        self._views = views
        self._teller = teller
        self._clock = clock or SystemClock()
        self._online = Online(writer, views, self._clock)
        self._changelog = None if changelog is None else Changelog(changelog, [view.digest for view in views])
        self._opening = Opening(
            views,
            folder,
            self._online,
            group=group,
            topic=topic,
            changelog=self._changelog,
            open_admin=open_admin,
            events=events,
            note=teller.note,
            clock=self._clock,
            stay=stay,
        )
        self._parts: dict[int, Partition] = {}
        self._is_whole = True  # else another process is about to let go of some, and what is due there is not known
        self._in_hand: dict[int, list[Taken]] = {}  # by partition: what the batch in hand did, of each view
        self._made: dict[int, Checkpoint] | None = None  # to be kept once the batch in hand is committed
        self._kept_at = -float("inf")  # event loop's seconds of the last checkpoint
        self._is_late = False  # records wait: less is to be done for each, rather than sooner

    def __repr__(self) -> str:
        return f"Aggregates({', '.join(view.name for view in self._views)}, partitions={sorted(self._parts)})"

    @property
    def is_written(self) -> bool:
        """Whether the store takes what is written."""
        return not self._online.is_down

    # --- A batch ------------------------------------------------------------------------------------------------------

    def take(self, records: Sequence[Record], events: Events) -> Before:
        """[view][record]: the values before the record, as Table.take gives them; None where it is no event of the
        view. Of a record that is in the tiles already, because its group was moved back, what is known now."""
        before: Before = [[None] * len(records) for _ in self._views]
        places: dict[int, list[int]] = {}
        for at, record in enumerate(records):
            places.setdefault(record.partition, []).append(at)
        for number, those in places.items():
            part = self._ready(number, records[those[0]].offset)
            new = [at for at in those if records[at].offset >= part.next]
            seen = [[at for at in new if some[at] is not None] for some in events]
            given = [[some[at] for at in where] for some, where in zip(events, seen, strict=True)]
            taken = part.take(given, max(part.next, records[those[-1]].offset + 1))  # type: ignore[arg-type]
            for into, where, one in zip(before, seen, taken, strict=True):
                for at, values in zip(where, one.before, strict=True):
                    into[at] = values
            if len(new) < len(those):
                self._known(part, those, events, before)
            self._in_hand[number] = taken
        newest = max(records[those[-1]].timestamp for those in places.values())
        self._is_late = 0.0 < newest < self._clock.wall() - AGGREGATE_BEHIND_SECONDS
        return before

    def outputs(self, *, last: bool = False) -> list[Output]:
        """What to commit together with the batch taken: a checkpoint, if it is time for one. `last`: until there is
        none, for the changelog gets what it lacks, some at a time."""
        self._made = None
        knows = self._changelog is None or all(self._parts[number].is_logged for number in self._in_hand)
        if knows and not last and not self._is_time:
            return []
        wall = self._clock.wall()
        self._made = {}
        outputs: list[Output] = []
        for number, part in self._parts.items():
            if part.is_changed or number in self._in_hand or (last and part.is_ahead):
                part.rows(wall)
                made = self._made[number] = part.checkpoint(logs=self._changelog is not None)
                if self._changelog is not None:
                    outputs += part.outputs(self._changelog, made)
        return outputs

    def committed(self) -> None:
        """The batch taken is committed with what `outputs` gave: into the file, then into the store; while old records
        wait, that is done with the next `tick`, once for several batches."""
        wall = self._clock.wall()
        made, self._made = self._made or {}, None
        in_hand, self._in_hand = self._in_hand, {}
        for number, part in self._parts.items():
            if number in in_hand and number not in made and self._is_late:
                part.move_on()
            elif number in in_hand or number in made:
                part.commit(wall, made.get(number), logs=self._changelog is not None)
        if made:
            self._kept_at = self._clock.now()
            for part in self._parts.values():
                part.shrink(1 / len(self._parts))
        self._count(list(in_hand.values()))

    def forget(self) -> None:
        """The batch taken was not committed, or nobody knows: back to the last checkpoint."""
        self._made, self._in_hand = None, {}
        for part in self._parts.values():
            part.forget()

    # --- Between batches ----------------------------------------------------------------------------------------------

    def share(self, partitions: Collection[int]) -> None:
        """These are this reader's now: others are kept and closed, new ones are opened unless another process has them
        still. Called with every poll, also while nothing changes."""
        for number in [number for number in self._parts if number not in partitions]:
            self._close(number)
        for number in sorted(set(partitions) - self._parts.keys()):
            self._open(number, 0.0)
        for part in self._parts.values():
            part.seen = self._clock.wall()
        self._is_whole = len(self._parts) == len(partitions)

    def tick(self) -> float | None:
        """Keep what is not kept and write what is due, as much as takes no long time; when to come again, in wall
        seconds, None: not before there is another batch. Between `take` and `committed` it does nothing."""
        wall = self._clock.wall()
        if self._in_hand:
            return wall
        self._catch_up()
        for part in [part for part in self._parts.values() if part.is_unwritten]:
            part.commit(wall)
        if self._is_time:
            self._keep(list(self._parts.values()))
        parts = [part for part in self._parts.values() if not part.is_behind]
        if parts and not self._online.is_down:
            self._look(parts)
            left = AGGREGATE_DUE_ENTITIES_MAX
            for part in parts:
                left -= part.write_due(wall, left)
                if left <= 0 or self._online.is_down:
                    break
        return self._soonest()

    def facts(self) -> list[Facts]:
        """Of each view. Counts rows: some ms for 100,000 entities."""
        wall, parts, found = self._clock.wall(), list(self._parts.values()), list[Facts]()
        for view in range(len(self._views)):
            counts = [part.due.count(view, wall) for part in parts]
            newest = max((part.tables[view].watermark for part in parts), default=-float("inf"))
            entities, behind = sum(one for one, _ in counts), sum(one for _, one in counts)
            forgotten = sum(part.tables[view].forgotten for part in parts)
            found.append(Facts(entities, behind, newest, self._online.reason, forgotten))
        return found

    def close(self) -> None:
        """Keep what is not kept, and let go of everything. May be called after an error, and twice."""
        try:
            for number in list(self._parts):
                self._close(number)
        finally:
            self._opening.close()
            self._online.close()

    def _ready(self, number: int, offset: int) -> Partition:
        """Open, with everything in the tiles that is before `offset`, which is where the group stands."""
        if number not in self._parts:
            self._open(number, AGGREGATE_LOCK_SECONDS)
        part = self._parts[number]
        now = self._clock.wall()
        # A process that stood still may have lost the partition meanwhile, and got it back.
        if part.is_behind or (offset > part.next and now > part.seen + AGGREGATE_SEEN_SECONDS_MAX):
            self._opening.catch_up(part, offset)
        part.seen = now
        return part

    def _open(self, number: int, seconds: float) -> None:
        try:
            self._parts[number] = self._opening.open(number, seconds)
        except BrokerError as error:
            if error.trouble is not Trouble.FENCED or seconds > 0:
                raise
            _LOG.debug("not yet: %s", error.message)

    def _close(self, number: int) -> None:
        part = self._parts.pop(number)
        self._in_hand.pop(number, None)
        try:
            if self._made is None and part.is_settled:
                self._keep([part])
        finally:
            part.state.close()

    def _keep(self, parts: Sequence[Partition]) -> None:
        """A checkpoint that the changelog does not get: the next one has what it lacks."""
        wall = self._clock.wall()
        for part in parts:
            if part.is_changed:
                part.rows(wall)
                part.commit(wall, part.checkpoint(logs=False), logs=self._changelog is None)
                self._kept_at = self._clock.now()

    @property
    def _is_time(self) -> bool:
        seconds = AGGREGATE_BEHIND_SECONDS if self._is_late else AGGREGATE_KEEP_SECONDS
        return self._clock.now() >= self._kept_at + seconds

    def _catch_up(self) -> None:
        if any(part.is_behind for part in self._parts.values()):
            positions = self._opening.positions()
            if positions is not None:
                for number, part in self._parts.items():
                    if part.is_behind:
                        self._opening.catch_up(part, positions.get(number))
        else:
            self._opening.rest()

    def _look(self, parts: Sequence[Partition]) -> None:
        """Has the store lost what was written: now, or before this process opened the partition?"""
        lost, mark = self._online.has_lost(), self._online.mark
        for part in parts:
            if lost or (mark and part.state.mark != mark):
                part.due.everything(mark)

    def _soonest(self) -> float | None:
        wall = self._clock.wall()
        if any(part.is_behind for part in self._parts.values()):
            return wall
        moments = [due for part in self._parts.values() if (due := part.due.soonest()) is not None]
        if not self._is_whole or any(part.is_changed for part in self._parts.values()):
            moments.append(wall + AGGREGATE_KEEP_SECONDS)
        return max(wall, min(moments)) if moments else None

    @staticmethod
    def _known(part: Partition, those: Sequence[int], events: Events, before: Before) -> None:
        """Records that are in the tiles already."""
        for view, some in enumerate(events):
            for at in those:
                event = some[at]
                if event is not None and before[view][at] is None:
                    before[view][at] = part.values(view, event)

    def _count(self, taken: Sequence[Sequence[Taken]]) -> None:
        for view, streamed in enumerate(self._views):
            if some := [one[view] for one in taken]:
                sums = [sum(each) for each in zip(*(one[1:] for one in some), strict=True)]  # but for what was before
                self._teller.aggregated(streamed.name, Counts(*sums))
