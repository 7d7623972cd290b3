"""Which waiting calls run together: pure arithmetic on (waiting, now). No timers: what waits, runs."""

from collections.abc import Iterable, Iterator
from math import ceil
from typing import NamedTuple, Protocol


class Waiting(Protocol):
    """A call in the queue: how many rows it brings and until when (monotonic seconds) its answer is of use."""

    @property
    def rows_count(self) -> int: ...

    @property
    def deadline(self) -> float: ...


class Cut(NamedTuple):
    """The head of the queue, sorted out. `seen` calls leave it: those at `run` run now, those at `late` never."""

    run: list[int]
    late: list[int]
    seen: int


def cut(waiting: Iterable[Waiting], *, now: float, rows_max: int) -> Cut:
    """The next run: calls in order of arrival while they fit into `rows_max` rows.

    The first always goes, however many rows it has (the run is then sliced), so nothing waits for ever; no call
    overtakes another. A call whose deadline has passed takes no room.
    """
    run: list[int] = []
    late: list[int] = []
    rows = 0
    seen = 0
    for index, call in enumerate(waiting):
        if call.deadline <= now:
            late.append(index)
        elif run and rows + call.rows_count > rows_max:
            break
        else:
            run.append(index)
            rows += call.rows_count
        seen = index + 1
    return Cut(run, late, seen)


def slices(rows: int, rows_max: int) -> Iterator[slice]:
    """The parts, of at most `rows_max` rows, in which so many rows run."""
    for start in range(0, rows, rows_max):
        yield slice(start, min(start + rows_max, rows))


def wait_predicted(rows_ahead: int, *, running: bool, run_seconds: float, rows_max: int) -> float:
    """Seconds until a call that comes now starts to run, if runs go on taking `run_seconds` each."""
    return run_seconds * (ceil(rows_ahead / rows_max) + running)
