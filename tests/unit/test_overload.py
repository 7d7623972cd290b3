"""A model of 3 ms a row asked twice as often as it can answer, on a simulated timeline: what the batcher decides by."""

import random
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import pytest

from sunup.batch.pace import Pace
from sunup.batch.plan import answer_predicted, cut

ROWS_MAX = 1024


class Call(NamedTuple):
    came: float
    deadline: float
    share: float
    rows_count: int = 1


class Outcome(NamedTuple):
    good: int
    late: int
    refused: int
    dropped: int
    waiting_max: int


def simulate(
    rate: float, timeout: float, cost: Callable[[int], float], *, seconds: float = 20.0, known: float | None = None
) -> Outcome:
    """Poisson arrivals at a thread that runs what `cut` says, with the calls that are admitted as the batcher does."""
    chance = random.Random(1)
    pace = Pace(None if known is None else (8, known))
    waiting: deque[Call] = deque()
    good = late = refused = dropped = most = 0
    running: list[Call] = []
    began = ends = free_at = 0.0
    now = chance.expovariate(rate)
    while now < seconds:
        while running and ends <= now:
            pace.note(len(running), ends - began)
            good += sum(call.deadline >= ends for call in running)
            late += sum(call.deadline < ends for call in running)
            running = []
            while waiting and not running:
                taken = cut(waiting, now=ends, rows_max=ROWS_MAX, seconds=pace.seconds)
                jobs = [waiting.popleft() for _ in range(taken.seen)]
                dropped += len(taken.late)
                running = [jobs[at] for at in taken.run]
            began, free_at, ends = ends, ends + pace.seconds(len(running)), ends + cost(len(running))
        call = Call(now, now + timeout, timeout / 2)
        wait = answer_predicted(
            len(waiting), 1, left=max(0.0, free_at - now), share=call.share, seconds=pace.seconds, rows_max=ROWS_MAX
        )
        if not running:
            running, began, free_at, ends = [call], now, now + pace.seconds(1), now + cost(1)
        elif wait > timeout:
            refused += 1
        else:
            waiting.append(call)
            most = max(most, len(waiting))
        now += chance.expovariate(rate)
    return Outcome(good, late, refused, dropped, most)


def noisy(setup: float, each: float) -> Callable[[int], float]:
    chance = random.Random(2)
    return lambda rows: (setup + each * rows) * chance.lognormvariate(0.0, 0.15)


@pytest.mark.parametrize("timeout", [0.01, 0.05, 2.0])
def test_twice_the_load_loses_no_goodput_and_the_queue_stays_short(timeout: float) -> None:
    capacity = 1 / 0.003
    once, twice = (simulate(times * capacity, timeout, noisy(0.0, 0.003)) for times in (1, 2))
    assert twice.good >= 0.8 * 20 * capacity
    assert twice.good >= 0.9 * once.good
    assert twice.late + twice.dropped < 0.25 * twice.good
    assert twice.waiting_max < 20 + 2 * timeout / 0.003
    assert twice.refused > 0


def test_a_model_whose_runs_cost_the_same_however_many_rows_is_given_many() -> None:
    """4 ms a run: alone it answers 250 a second, together many times that; nothing was refused for being many."""
    outcome = simulate(2000.0, 0.02, noisy(0.004, 0.00001), known=0.00408)
    assert outcome.good > 0.98 * 20 * 2000
    assert outcome.waiting_max > 4


def test_a_wrong_idea_of_the_cost_is_corrected() -> None:
    """Measured before as ten times what it is, so that none seems to be able to wait for another."""
    outcome = simulate(600.0, 0.01, noisy(0.0, 0.003), known=0.24, seconds=40.0)
    assert outcome.good > 0.85 * 40 / 0.003
