"""Natural batching on the event loop: calls whose features come in one turn of it run together, at its end.

For models too cheap for a thread: a busy loop takes the replies of many calls off the store's connection at once, and
one run for all of them costs little more than one for each. Nothing waits for more to come: a call that is ready alone
runs alone, as soon as the loop has looked round. All of it is plain calls: a task with its wake-ups would cost such a
call as much as its run.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Protocol, TypeAlias

from sunup.batch.assemble import Ready, prepare
from sunup.clock import Clock
from sunup.errors import CallError, DeadlineExceeded
from sunup.types import Call, Column, Features, Reply, Row, Timings

Columns: TypeAlias = Mapping[str, Column]


class Reading(Protocol):
    """What is on its way to a call."""

    def cancel(self) -> object:
        """Nobody waits for it any more."""


class Begun:
    """A call that waits for its features, then for the run of its turn. `told` hears its reply or what it failed with,
    in a later turn than the one it was begun in; it must not raise."""

    __slots__ = ("_told", "_turn", "call", "error", "reading", "ready", "since", "timings")

    def __init__(self, turn: "Turn", call: Call, told: Callable[[Reply | Exception], None]) -> None:
        self._turn = turn
        self._told: Callable[[Reply | Exception], None] | None = told
        self.call = call
        self.reading: Reading | None = None
        self.ready: Ready | None = None
        self.error: Exception | None = None
        self.timings = Timings()
        self.since = perf_counter()  # when the stage it is in began

    def __repr__(self) -> str:
        state = "over" if self.over else "ready" if self.ready or self.error else "reading"
        return f"Begun({self.call.id}, {state})"

    @property
    def over(self) -> bool:
        """Told, or nobody waits for it any more."""
        return self._told is None

    def cancel(self) -> None:
        """Nobody waits for it any more, so nobody is told."""
        self._told = None
        if self.reading is not None:
            self.reading.cancel()

    def found(self, found: Features | Exception) -> None:
        """Its features, or what reading them raised. Told with what else this turn brings."""
        if self._told is None:
            return
        now = perf_counter()
        self.timings.lookup, self.since = now - self.since, now
        if isinstance(found, Exception):
            self.error = found
        else:
            try:
                self._turn.observe(found)
                self.ready = prepare(self.call, found)
            except Exception as error:  # that of its only record, or a fault of ours: who told us must not hear it
                self.error = error
        self._turn.add(self)

    def tell(self, what: Reply | Exception) -> None:
        """The end of it."""
        told, self._told = self._told, None
        if told is not None:
            told(what)


class Turn:
    """Runs the calls that one turn made ready. Belongs to one event loop.

    `run` gives the response columns of rows, and says in Timings what took how long; it gets at most `rows_max` rows,
    or those of one call, so it holds up the loop for no longer than one call may. `empty`: the columns of no rows.
    `failed`: what a caller hears of an exception of `run`. `observe` hears what each lookup found;
    `made` makes the reply to a call whose rows have these columns.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Row], Timings], Columns],
        *,
        rows_max: int,
        empty: Columns,
        failed: Callable[[Call, Exception], CallError],
        observe: Callable[[Features], None],
        made: Callable[[Call, Ready, Columns, Timings], Reply],
        clock: Clock,
    ) -> None:
        self.observe = observe
        self._made = made
        self._run = run
        self._rows_max = rows_max
        self._empty = empty
        self._failed = failed
        self._clock = clock
        self._ready: list[Begun] = []

    def __repr__(self) -> str:
        return f"Turn({len(self._ready)} ready)"

    def add(self, begun: Begun) -> None:
        """Run it with the others of this turn."""
        if not self._ready:
            asyncio.get_running_loop().call_soon(self._work)  # behind what else this turn's poll has found
        self._ready.append(begun)

    def _work(self) -> None:
        added, self._ready = self._ready, []
        for group in self._groups(added):
            self._run_together(group)

    def _groups(self, added: Sequence[Begun]) -> Iterator[list[tuple[Begun, Ready]]]:
        """What runs together, in order; those without anything to run are told."""
        group: list[tuple[Begun, Ready]] = []
        rows = 0
        for begun in added:
            ready = begun.ready
            if begun.over:
                continue
            if ready is None or not ready.rows:
                self._tell(begun, begun.error or self._empty)
                continue
            if group and rows + len(ready.rows) > self._rows_max:
                yield group
                group, rows = [], 0
            group.append((begun, ready))
            rows += len(ready.rows)
        if group:
            yield group

    def _run_together(self, group: list[tuple[Begun, Ready]]) -> None:
        now, started = self._clock.now(), perf_counter()
        if any(now >= begun.call.deadline for begun, _ in group):
            group = self._in_time(group, now)
            if not group:
                return
        rows = group[0][1].rows if len(group) == 1 else [row for _, ready in group for row in ready.rows]
        spent = Timings()
        try:
            columns = self._run(rows, spent)
        except Exception as error:  # whatever a model raises belongs to its callers
            self._apart(group, error)
            return
        start = 0
        for begun, ready in group:
            stop = start + len(ready.rows)
            timings = begun.timings
            timings.batch, timings.execute = started - begun.since + spent.batch, spent.execute
            self._tell(begun, columns if len(group) == 1 else {name: c[start:stop] for name, c in columns.items()})
            start = stop

    def _in_time(self, group: list[tuple[Begun, Ready]], now: float) -> list[tuple[Begun, Ready]]:
        """Those of them that are; the others are told."""
        for begun, _ in group:
            if now >= begun.call.deadline:
                self._tell(begun, DeadlineExceeded("the call's time was up before the model ran"))
        return [each for each in group if now < each[0].call.deadline]

    def _apart(self, group: list[tuple[Begun, Ready]], error: Exception) -> None:
        """One call's values may have spoilt the run for all: each runs again by itself, so only that one fails."""
        if len(group) > 1:
            for each in group:
                self._run_together([each])
            return
        begun, _ = group[0]
        self._tell(begun, self._failed(begun.call, error))

    def _tell(self, begun: Begun, what: Columns | Exception) -> None:
        try:
            if isinstance(what, Exception) or begun.ready is None:
                begun.tell(what)  # type: ignore[arg-type]  # one that is not ready has an error
            else:
                begun.tell(self._made(begun.call, begun.ready, what, begun.timings))
        except Exception as error:  # a fault of ours must not take the others of this turn with it
            said = {"message": "telling a call its answer failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(said)
