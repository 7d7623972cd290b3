"""Natural batching around one thread: while a run is under way calls gather, and the next run takes what waits.

Used for models whose run is dear enough that running it on the event loop would hold up everyone else. What runs
together is decided in plan.py; this file does the queueing, the thread and the hand-back.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias

from numpy.typing import NDArray

from sunup.batch.pace import Pace
from sunup.batch.plan import answer_predicted, cut
from sunup.batch.respond import split
from sunup.clock import Clock
from sunup.errors import DeadlineExceeded, Overloaded, Unavailable
from sunup.types import Row

Outputs: TypeAlias = list[NDArray[Any]]
Run: TypeAlias = Callable[[Sequence[Row]], Outputs]


class Ran(NamedTuple):
    """A call's share of a run: its outputs and, in seconds, how long it waited and how long the run took."""

    outputs: Outputs
    waited: float
    took: float


class _Job(NamedTuple):
    rows: Sequence[Row]
    deadline: float
    share: float
    since: float
    answer: "asyncio.Future[Ran]"

    @property
    def rows_count(self) -> int:
        return len(self.rows)


class Batcher:
    """Runs calls of one function on one thread, several at a time. Belongs to one event loop.

    `run` gets the rows of all calls in a run and must return arrays whose first dimension is those rows; it is called
    on the thread. `queue_max` is in calls, `rows_max` in rows. `on_depth` hears how many calls wait, when it changes.
    `known`: rows and seconds of a run measured before, or None.
    """

    def __init__(
        self,
        run: Run,
        *,
        rows_max: int,
        queue_max: int,
        clock: Clock,
        on_depth: Callable[[int], None],
        known: tuple[int, float] | None = None,
    ) -> None:
        self._run = run
        self._rows_max = rows_max
        self._queue_max = queue_max
        self._clock = clock
        self._on_depth = on_depth
        self._waiting: deque[_Job] = deque()
        self._rows_waiting = 0
        self._running: asyncio.Task[None] | None = None
        self._pace = Pace(known)
        self._free_at = 0.0  # monotonic seconds at which the run under way is expected to have been answered
        self._thread = ThreadPoolExecutor(1, "execute")  # the thread itself starts with the first run
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "running" if self._running else "idle"
        return f"Batcher({state}, waiting={len(self._waiting)}, {self._pace!r})"

    async def submit(self, rows: Sequence[Row], deadline: float) -> Ran:
        """The outputs for `rows` (at least one). `deadline` is monotonic seconds.

        Raises Overloaded at once when the queue is full or the answer would come after the deadline, DeadlineExceeded
        when waiting used it up, Unavailable when closed, and whatever `run` raised for these rows.
        """
        now = self._clock.now()
        share = (deadline - now) / 2
        self._admit(len(rows), deadline, now, share)
        job = _Job(rows, deadline, share, perf_counter(), asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._rows_waiting += len(rows)
        self._on_depth(len(self._waiting))
        if self._running is None:
            self._running = asyncio.create_task(self._work())
        return await job.answer

    async def aclose(self) -> None:
        """Take nothing more, refuse what waits, let the run under way finish, end the thread."""
        self._closed = True
        for job in self._waiting:
            _refuse(job, Unavailable("the worker is stopping"))
        self._waiting.clear()
        self._rows_waiting = 0
        if self._running is not None:
            await self._running
        self._thread.shutdown()

    def _admit(self, rows: int, deadline: float, now: float, share: float) -> None:
        if self._closed:
            raise Unavailable("the worker is stopping")
        if len(self._waiting) >= self._queue_max:
            raise Overloaded(f"{self._queue_max} calls are waiting already")
        if self._running is None:
            return  # nothing is ahead of it; and a forecast that were wrong would be corrected by its run
        wait = answer_predicted(
            self._rows_waiting,
            rows,
            left=max(0.0, self._free_at - now),
            share=share,
            seconds=self._pace.seconds,
            rows_max=self._rows_max,
        )
        if now + wait > deadline:
            raise Overloaded("the calls waiting already take longer than this one may")

    async def _work(self) -> None:
        """Run after run until nothing waits. A task, so calls that arrived in one turn of the loop share a run."""
        try:
            while self._waiting:
                jobs = self._next()
                if jobs:
                    await self._run_together(jobs)
        finally:
            self._running = None

    def _next(self) -> list[_Job]:
        """Take the next run's calls from the queue; tell those that are too late."""
        now = self._clock.now()
        taken = cut(self._waiting, now=now, rows_max=self._rows_max, seconds=self._pace.seconds)
        jobs = [self._waiting.popleft() for _ in range(taken.seen)]
        self._rows_waiting -= sum(len(job.rows) for job in jobs)
        self._on_depth(len(self._waiting))
        for index in taken.late:
            _refuse(jobs[index], DeadlineExceeded("the call waited in the queue beyond its deadline"))
        return [jobs[index] for index in taken.run if not jobs[index].answer.done()]  # done: the caller went away

    async def _run_together(self, jobs: list[_Job]) -> None:
        rows = jobs[0].rows if len(jobs) == 1 else [row for job in jobs for row in job.rows]
        started = perf_counter()
        self._free_at = self._clock.now() + self._pace.seconds(len(rows))
        try:
            outputs = await self._on_thread(rows)
        except Exception as error:  # whatever a model raises belongs to its callers
            if len(jobs) == 1:
                _refuse(jobs[0], error)
                return
            # One call's values may have spoilt the run for all: each runs again by itself, so only that one fails.
            for job in jobs:
                await self._run_together([job])
            return
        took = perf_counter() - started
        for job, share in zip(jobs, split(outputs, [len(job.rows) for job in jobs]), strict=True):
            if not job.answer.done():
                job.answer.set_result(Ran(share, started - job.since, took))
        # Behind the callbacks of those answers: what it takes to encode and send them belongs to what a run takes.
        asyncio.get_running_loop().call_soon(self._note, len(rows), started)

    def _note(self, rows: int, started: float) -> None:
        self._pace.note(rows, perf_counter() - started)

    async def _on_thread(self, rows: Sequence[Row]) -> Outputs:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, rows)


def _refuse(job: _Job, error: Exception) -> None:
    if not job.answer.done():
        job.answer.set_exception(error)
