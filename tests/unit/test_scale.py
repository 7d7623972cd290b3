"""The scaling policy on timelines: no sleeping, no processes."""

from sunup.scale.policy import Bounds, Sample, decide
from sunup.scale.window import WindowMax

NOTHING = Sample(0, 0, 0)


def test_from_zero_at_once() -> None:
    window = WindowMax(30.0)
    assert decide(Bounds(0, 4, 32), window, Sample(0, 1, 0), 100.0) == 1


def test_to_zero_after_the_whole_idle_time_and_not_before() -> None:
    window, bounds = WindowMax(30.0), Bounds(0, 4, 32)
    decide(bounds, window, Sample(3, 0, 3), 100.0)
    assert [decide(bounds, window, NOTHING, t) for t in (101.0, 129.9, 130.0, 131.0)] == [1, 1, 0, 0]


def test_a_call_shorter_than_the_sampling_period_counts() -> None:
    window, bounds = WindowMax(10.0), Bounds(0, 4, 32)
    assert decide(bounds, window, Sample(0, 0, 5), 0.0) == 1
    assert decide(bounds, window, NOTHING, 9.9) == 1


def test_burst_up_at_once_and_down_by_the_window() -> None:
    window, bounds = WindowMax(10.0), Bounds(0, 8, 10)
    assert decide(bounds, window, Sample(35, 10, 0), 0.0) == 5
    assert decide(bounds, window, Sample(5, 0, 9), 5.0) == 5
    assert decide(bounds, window, Sample(5, 0, 9), 10.0) == 1


def test_bounds_hold() -> None:
    assert decide(Bounds(2, 4, 1), WindowMax(1.0), NOTHING, 0.0) == 2
    assert decide(Bounds(0, 4, 1), WindowMax(1.0), Sample(90, 0, 0), 0.0) == 4


def test_window_forgets_in_order() -> None:
    window = WindowMax(5.0)
    for now, value in [(0.0, 3.0), (1.0, 1.0), (2.0, 2.0)]:
        window.add(now, value)
    assert [window.value(t) for t in (4.9, 5.0, 6.9, 7.0)] == [3.0, 2.0, 2.0, 0.0]
