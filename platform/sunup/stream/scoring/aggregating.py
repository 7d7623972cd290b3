"""What a loop does for the stream feature views of its function, beside scoring: each batch is aggregated before it is
scored, and what that changed is committed with it.

Everything here runs on the thread of the loop's broker.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from itertools import chain
from math import inf
from typing import Any, Final, Protocol

from sunup.limits import AGGREGATE_KEEP_SECONDS, AGGREGATE_LOOK_SECONDS
from sunup.stream.aggregate.event import Event
from sunup.stream.broker import Broker, BrokerError, Output, Record
from sunup.stream.scoring.events import EventReader
from sunup.stream.scoring.placing import Placing
from sunup.types import Row

_LOG: Final = logging.getLogger("sunup.stream")


class Aggregates(Protocol):
    """The tiles of a function, in all partitions that are its reader's. Every method raises BrokerError."""

    def take(
        self, records: Sequence[Record], events: Sequence[Sequence[Event | None]]
    ) -> Sequence[Sequence[tuple[Any, ...] | None]]:
        """[view][record]: the values before it, None where the record is no event of the view."""
        ...

    def outputs(self, *, last: bool = False) -> list[Output]:
        """What to commit together with the batch taken, or with none: a checkpoint, if it is time for one. `last`: it
        is, for nothing more comes, and again until there is nothing left to commit."""
        ...

    def committed(self) -> None:
        """The batch is committed."""
        ...

    def forget(self) -> None:
        """It is not: back to the last checkpoint."""
        ...

    def share(self, partitions: Collection[int]) -> None:
        """These are the reader's now, and no others; with every poll."""
        ...

    def tick(self) -> float | None:
        """Write what is due by now, or some of it; when to come again (wall seconds), None: nothing is to come."""
        ...

    def close(self) -> None:
        """Checkpoint locally, let go."""
        ...


class News(Protocol):
    """Who hears how it goes, on the same thread. Returns at once, but for what `polled` may look up now and then."""

    def committed(
        self, refused: Sequence[int], reasons: Sequence[str], misplaced: Sequence[int], seconds: float
    ) -> None:
        """A batch is committed, and written where the store takes it. Per view, how many of its records were no events
        and why the first was none, and how many were `misplaced`, see Placing; `seconds`: how old the oldest of them
        was then."""
        ...

    def polled(self, due: float | None, partitions: Collection[int], *, last: bool = False) -> None:
        """Those are the reader's, and their values change without a record at `due` (wall seconds); None: never.
        `last`: the reader ends."""
        ...

    def settled(self) -> None:
        """The reader has ended, and what it told last holds: nothing of what it took is left to be done."""
        ...


class Aggregating:
    """The aggregates of one loop. `events` reads its records; `widths`: how many values each view has; `wall` gives
    seconds since the epoch."""

    def __init__(
        self,
        aggregates: Aggregates,
        events: EventReader,
        widths: Sequence[int],
        *,
        news: News,
        wall: Callable[[], float],
    ) -> None:
        self._aggregates = aggregates
        self._events = events
        self._placing = Placing(len(widths))
        self._misplaced = [0] * len(widths)  # of what is taken and not committed
        self._nulls = [(None,) * width for width in widths]
        self._news = news
        self._wall = wall
        self._shared: frozenset[int] = frozenset()
        self._oldest: float | None = None  # when the first record was written of what is taken and not committed
        self._due: float | None = None
        self._look = 0.0  # wall seconds of the next tick

    def __repr__(self) -> str:
        return f"Aggregating({sorted(self._shared)}, due={self._due})"

    def idle_seconds(self, seconds: float) -> float:
        """How long to wait for records, at most `seconds`."""
        return min(seconds, max(0.0, self._look - self._wall()))

    def polled(self, reads: Collection[int]) -> None:
        """Behind each poll, which is when partitions come and go: nothing is taken and uncommitted then."""
        shared = frozenset(reads)
        self._aggregates.share(shared)
        if shared != self._shared:
            self._shared, self._look = shared, 0.0
        if self._wall() >= self._look:
            self._tick()
        self._news.polled(self._due, shared)

    def take(self, records: Sequence[Record]) -> list[Row]:
        """The values of all views before each record, null where it is no event."""
        self._oldest = min([record.timestamp for record in records])
        events = self._events.read(records)
        before = self._aggregates.take(records, events)
        if max(self._shared, default=0):  # one of another number than 0: there are several
            self._misplaced = self._placing.misplaced(records, events)
        views = [
            [nulls if one is None else one for one in found]
            for found, nulls in zip(before, self._nulls, strict=True)
        ]  # fmt: skip
        return views[0] if len(views) == 1 else [tuple(chain.from_iterable(each)) for each in zip(*views, strict=True)]

    def outputs(self) -> Sequence[Output]:
        """What is to be committed with a batch."""
        return self._aggregates.outputs()

    def committed(self) -> None:
        """It is."""
        oldest, self._oldest = self._oldest, None
        self._aggregates.committed()
        wall = self._wall()
        # What was aggregated may change sooner than the last tick said: looked at when idle, else now and then.
        self._look = min(self._look, wall + AGGREGATE_KEEP_SECONDS)
        misplaced, self._misplaced = self._misplaced, [0] * len(self._misplaced)
        self._news.committed(self._events.refused, self._events.reasons, misplaced, wall - (oldest or wall))

    def forget(self) -> None:
        """The broker failed: what was taken is not committed, and others may have the partitions now."""
        self._oldest, self._shared = None, frozenset()
        self._settle(self._aggregates.forget, lambda: self._aggregates.share(()))

    def end(self, broker: Broker | None) -> None:
        """The last checkpoint, where nothing is half done; then let go."""
        if self._oldest is not None or broker is None:
            steps = [self._aggregates.forget]
        else:
            steps = [lambda: self._last_commit(broker), self._tick]
        is_done = self._settle(*steps)
        if not is_done:
            self._settle(self._aggregates.forget)
        self._news.polled(self._due, self._shared, last=True)
        if self._settle(self._aggregates.close) and is_done and broker is not None and self._oldest is None:
            self._news.settled()

    def _last_commit(self, broker: Broker) -> None:
        while outputs := self._aggregates.outputs(last=True):
            broker.commit(outputs)
            self._aggregates.committed()
        self._aggregates.committed()

    def _tick(self) -> None:
        self._due = self._aggregates.tick()
        # The store may lose what was written while there is nothing else to do.
        self._look = min(inf if self._due is None else self._due, self._wall() + AGGREGATE_LOOK_SECONDS)

    def _settle(self, *steps: Callable[[], object]) -> bool:
        """Do what can be done: what is not settled is read again."""
        try:
            for step in steps:
                step()
        except BrokerError as error:
            _LOG.warning("what was aggregated last is read again: %s", error.message)
            return False
        return True
