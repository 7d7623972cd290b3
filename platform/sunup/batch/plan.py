"""Which waiting calls run together: pure arithmetic on (waiting, now). No timers: what waits, runs."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol


class Waiting(Protocol):
    """A call in the queue: how many rows it brings, until when (monotonic seconds) its answer is of use, and the
    longest run it takes part in (`share`, seconds): half of the time it had when it came, since it may come when a run
    of the same length has just begun."""

    @property
    def rows_count(self) -> int: ...

    @property
    def deadline(self) -> float: ...

    @property
    def share(self) -> float: ...


class Cut(NamedTuple):
    """The head of the queue, sorted out. `seen` calls leave it: those at `run` run now, those at `late` never."""

    run: list[int]
    late: list[int]
    seen: int


def cut(waiting: Iterable[Waiting], *, now: float, rows_max: int, seconds: Callable[[int], float]) -> Cut:
    """The next run: calls in order of arrival while they fit into `rows_max` rows and all will be in time.

    `seconds(rows)`: what a run of so many rows takes. The first always goes, however many rows it has (the run is then
    sliced), so nothing waits for ever; no call overtakes another. A call whose deadline has passed, or will have when
    it has run alone, takes no room. That is a forecast: where nothing else would run, the last of those that still have
    time does, so that a wrong one is corrected by what its run takes.
    """
    run: list[int] = []
    late: list[int] = []
    spare = -1  # the last call that has time left, but less than it needs
    rows = seen = 0
    until = share = float("inf")
    for index, call in enumerate(waiting):
        together = seconds(rows + call.rows_count)
        if call.deadline <= now + seconds(call.rows_count):
            late.append(index)
            spare = index if call.deadline > now else spare
        elif run and (
            rows + call.rows_count > rows_max
            or together > max(min(share, call.share), seconds(1))
            or now + together > min(until, call.deadline)
        ):
            break
        else:
            run.append(index)
            rows += call.rows_count
            until, share = min(until, call.deadline), min(share, call.share)
        seen = index + 1
    if not run and spare >= 0:
        late.remove(spare)
        run.append(spare)
    return Cut(run, late, seen)


def slices(rows: int, rows_max: int) -> Iterator[slice]:
    """The parts, of at most `rows_max` rows, in which so many rows run."""
    for start in range(0, rows, rows_max):
        yield slice(start, min(start + rows_max, rows))


def answer_predicted(
    rows_ahead: int, rows: int, *, left: float, share: float, seconds: Callable[[int], float], rows_max: int
) -> float:
    """Seconds until a call of `rows` rows that comes now is answered.

    `left`: seconds the run under way still takes; the `rows_ahead` that wait go in runs of at most `rows_max` rows and
    `share` seconds, the call itself with the last of them or, where it does not fit, in one more.
    """
    each = rows_per_run(share, seconds=seconds, rows_max=rows_max)
    full, rest = divmod(rows_ahead, each)
    if rest and rest + rows > each:
        full, rest = full + 1, 0
    return left + full * seconds(each) + seconds(rest + rows)


def rows_per_run(share: float, *, seconds: Callable[[int], float], rows_max: int) -> int:
    """The most rows that run within `share` seconds, or in no more than one row takes: at most `rows_max`, which is at
    least one. `seconds` is a straight line."""
    setup, one = seconds(0), seconds(1)
    each = one - setup
    if seconds(rows_max) <= max(share, one):
        return rows_max
    return max(1, int((share - setup) / each))
