"""What runs together: timelines without sleeping."""

import random
from typing import NamedTuple

from sunup.batch.pace import Pace
from sunup.batch.plan import Cut, answer_predicted, rows_per_run, slices
from sunup.batch.plan import cut as cut_costing


class Call(NamedTuple):
    rows_count: int
    deadline: float = 10.0
    share: float = 5.0


def cut(waiting: list[Call], *, now: float, rows_max: int) -> Cut:
    """Of a model that costs nothing."""
    return cut_costing(waiting, now=now, rows_max=rows_max, seconds=lambda _: 0.0)


def linear(rows: int) -> float:
    """A second to set up and a second per row."""
    return 1.0 + rows


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


def test_a_run_ends_before_it_makes_one_of_its_calls_late() -> None:
    waiting = [Call(1, deadline=4.5), Call(1), Call(1), Call(1)]
    assert cut_costing(waiting, now=0.0, rows_max=8, seconds=linear) == ([0, 1, 2], [], 3)
    waiting = [Call(1), Call(1), Call(1, deadline=3.5)]
    assert cut_costing(waiting, now=0.0, rows_max=8, seconds=linear) == ([0, 1], [], 2)


def test_a_run_takes_no_longer_than_half_of_what_its_calls_had() -> None:
    assert cut_costing([Call(1)] * 6, now=0.0, rows_max=8, seconds=linear) == ([0, 1, 2, 3], [], 4)
    alike = [Call(1, share=0.1)] * 6  # less than one row takes: what costs no more may come along
    assert cut_costing(alike, now=0.0, rows_max=8, seconds=lambda _: 1.0) == ([0, 1, 2, 3, 4, 5], [], 6)


def test_what_would_be_late_is_not_run_unless_nothing_else_is() -> None:
    waiting = [Call(1, deadline=1.5), Call(1, deadline=9.0), Call(2, deadline=1.9)]
    assert cut_costing(waiting, now=0.0, rows_max=8, seconds=linear) == ([1], [0, 2], 3)
    late = [Call(1, deadline=-1.0), Call(1, deadline=1.5), Call(2, deadline=1.9), Call(1, deadline=0.0)]
    assert cut_costing(late, now=0.0, rows_max=8, seconds=linear) == ([2], [0, 1, 3], 4)


def test_rows_per_run() -> None:
    assert rows_per_run(5.0, seconds=linear, rows_max=8) == 4
    assert rows_per_run(50.0, seconds=linear, rows_max=8) == 8
    assert rows_per_run(0.5, seconds=linear, rows_max=8) == 1
    assert rows_per_run(0.5, seconds=lambda _: 1.0, rows_max=8) == 8
    assert rows_per_run(0.5, seconds=lambda _: 0.0, rows_max=8) == 8


def predicted(ahead: int, rows: int, left: float = 0.0, share: float = 5.0) -> float:
    return answer_predicted(ahead, rows, left=left, share=share, seconds=linear, rows_max=8)


def test_an_answer_comes_after_the_runs_ahead_and_its_own() -> None:
    assert predicted(0, 1) == 2.0
    assert predicted(0, 1, left=0.5) == 2.5
    assert predicted(3, 1) == 5.0  # four rows run together
    assert predicted(4, 1) == 5.0 + 2.0
    assert predicted(9, 2) == 5.0 + 5.0 + 4.0
    assert predicted(3, 3) == 5.0 + 4.0  # it does not fit behind those three
    assert predicted(0, 20) == 21.0


def test_a_pace_is_learned_from_runs_of_different_sizes() -> None:
    pace = Pace()
    assert pace.seconds(1) == pace.seconds(1000) == 0.0
    for rows in (1, 2, 8, 4, 1, 6, 3, 7):
        pace.note(rows, 0.001 + 0.002 * rows)
    assert abs(pace.seconds(0) - 0.001) < 3e-4  # what the first ones were off is not forgotten yet
    assert abs(pace.seconds(100) - 0.201) < 0.01
    assert "ms" in repr(pace)


def test_runs_of_one_size_say_nothing_of_others_but_what_was_measured_before_does() -> None:
    alone = Pace()
    told = Pace((8, 0.016))
    assert told.seconds(8) == 0.016
    for _ in range(20):
        alone.note(1, 0.002)
        told.note(1, 0.002)
    assert abs(alone.seconds(8) - 0.002) < 1e-9
    assert abs(told.seconds(8) - 0.016) < 1e-3


def test_a_pace_follows_a_machine_that_gets_slower_and_shrugs_off_one_slow_run() -> None:
    pace = Pace()
    for _ in range(10):
        pace.note(1, 0.002)
    pace.note(1, 0.2)
    assert pace.seconds(1) < 0.004
    for _ in range(30):
        pace.note(1, 0.02)
    assert abs(pace.seconds(1) - 0.02) < 0.001


def test_no_part_of_a_pace_is_negative() -> None:
    chance = random.Random(5)
    for _ in range(200):
        pace = Pace(chance.choice([None, (8, chance.random())]))
        for _ in range(12):
            pace.note(chance.randint(1, 64), chance.random())
        assert 0.0 <= pace.seconds(0) <= pace.seconds(1) <= pace.seconds(64)
