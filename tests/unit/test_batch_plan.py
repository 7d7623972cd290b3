"""What runs together: timelines without sleeping."""

import random
from typing import NamedTuple

from sunup.batch.plan import cut, slices, wait_predicted


class Call(NamedTuple):
    rows_count: int
    deadline: float = 10.0


def test_nothing_waits() -> None:
    assert cut([], now=0.0, rows_max=8) == ([], [], 0)


def test_what_waits_runs_together_in_order() -> None:
    assert cut([Call(1), Call(2), Call(3)], now=0.0, rows_max=8) == ([0, 1, 2], [], 3)


def test_a_run_ends_before_the_call_that_does_not_fit() -> None:
    assert cut([Call(4), Call(4), Call(1), Call(1)], now=0.0, rows_max=8) == ([0, 1], [], 2)
    assert cut([Call(4), Call(5), Call(1)], now=0.0, rows_max=8) == ([0], [], 1)


def test_a_call_bigger_than_a_run_goes_alone() -> None:
    assert cut([Call(100), Call(1)], now=0.0, rows_max=8) == ([0], [], 1)
    assert cut([Call(1), Call(100)], now=0.0, rows_max=8) == ([0], [], 1)


def test_late_calls_take_no_room() -> None:
    waiting = [Call(8, 1.0), Call(4, 3.0), Call(8, 2.0), Call(4, 3.0), Call(1, 0.0)]
    assert cut(waiting, now=2.0, rows_max=8) == ([1, 3], [0, 2, 4], 5)


def test_all_late() -> None:
    assert cut([Call(1, 1.0), Call(1, 1.0)], now=1.0, rows_max=8) == ([], [0, 1], 2)


def test_every_call_is_seen_once_and_in_order() -> None:
    chance = random.Random(3)
    for _ in range(300):
        waiting = [Call(chance.randint(1, 12), chance.choice([1.0, 3.0])) for _ in range(chance.randrange(20))]
        done: list[int] = []
        queue = list(enumerate(waiting))
        while queue:
            taken = cut([call for _, call in queue], now=2.0, rows_max=8)
            assert taken.seen > 0
            rows = [queue[index][1].rows_count for index in taken.run]
            assert sum(rows) <= 8 or len(rows) == 1
            assert all(queue[index][1].deadline == 1.0 for index in taken.late)
            assert sorted(taken.run + taken.late) == list(range(taken.seen))
            done += [queue[index][0] for index in taken.run]
            queue = queue[taken.seen :]
        assert done == [at for at, call in enumerate(waiting) if call.deadline == 3.0]


def test_slices_cover_every_row_once() -> None:
    assert list(slices(0, 4)) == []
    assert list(slices(4, 4)) == [slice(0, 4)]
    assert list(slices(9, 4)) == [slice(0, 4), slice(4, 8), slice(8, 9)]


def test_the_wait_is_the_runs_ahead() -> None:
    assert wait_predicted(0, running=False, run_seconds=0.5, rows_max=8) == 0.0
    assert wait_predicted(0, running=True, run_seconds=0.5, rows_max=8) == 0.5
    assert wait_predicted(9, running=True, run_seconds=0.5, rows_max=8) == 1.5
