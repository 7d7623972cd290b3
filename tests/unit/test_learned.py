"""What `idle = "auto"` learns, on timelines: no sleeping, no processes."""

import pytest

from sunup.limits import IDLE_AUTO_SECONDS_MIN, SILENCES_KEPT_SECONDS
from sunup.scale.history import GAPS_NEEDED, History
from sunup.scale.learned import GB_PER_CPU, LearnedWindow
from sunup.scale.needs import Needs
from sunup.scale.policy import Bounds, Sample, decide

BOUNDS = Bounds(0, 4, 10)
CALL, NOTHING = Sample(1, 0, 1), Sample(0, 0, 0)
COLD, MEMORY = 0.02, 0.02 * GB_PER_CPU / 10.0 * 1e9  # a cold start costs what a worker holds in 10 s


def window(history: History | None = None, cold: float = COLD, memory: float = MEMORY) -> LearnedWindow:
    made = LearnedWindow(30.0, history or History())
    made.price(cold, memory)
    return made


def call_every(learned: LearnedWindow, gaps: list[float], now: float = 0.0) -> float:
    """Calls with these gaps between them; the time of the last."""
    decide(BOUNDS, learned, CALL, now)
    for gap in gaps:
        now += gap
        assert decide(BOUNDS, learned, CALL, now) >= 1, "from zero, at once"
    return now


def test_nothing_is_known_so_the_declared_idle_time_holds() -> None:
    learned = LearnedWindow(30.0, History())
    decide(BOUNDS, learned, CALL, 0.0)
    assert [decide(BOUNDS, learned, NOTHING, t) for t in (1.0, 29.9, 30.0)] == [1, 1, 0]


def test_too_few_silences_so_break_even_holds() -> None:
    learned = window()
    now = call_every(learned, [3600.0, 7000.0, 100.0])
    assert [decide(BOUNDS, learned, NOTHING, now + t) for t in (9.9, 10.0)] == [1, 0]


def test_long_silences_teach_to_end_at_once() -> None:
    learned = window()
    now = call_every(learned, [600.0 + 100.0 * i for i in range(12)])
    assert learned.idle == IDLE_AUTO_SECONDS_MIN
    assert [decide(BOUNDS, learned, NOTHING, now + t) for t in (0.25, 0.5)] == [1, 0]


def test_short_silences_teach_to_stay_through_them() -> None:
    learned = window()
    call_every(learned, [4.5, 5.5, 6.5, 7.5] * 4)
    assert 7.5 < learned.idle < 10.0


def test_it_is_worth_more_than_break_even_where_most_silences_end_soon_after() -> None:
    learned = window()
    call_every(learned, [3.0, 3.0, 3.0, 12.0] * 5)
    assert learned.idle > 12.0


def test_what_it_pays_is_never_more_than_twice_what_knowing_would() -> None:
    gaps = [0.6 * 1.37**i for i in range(24)] * 4
    learned, spent, now = window(), 0.0, 0.0
    decide(BOUNDS, learned, CALL, now)
    for gap in gaps:
        spent += gap if gap <= learned.idle else learned.idle + 10.0
        now += gap
        decide(BOUNDS, learned, CALL, now)
    assert spent <= 2 * sum(min(gap, 10.0) for gap in gaps)


def test_changed_behaviour_is_learned() -> None:
    learned = window()
    now = call_every(learned, [4.0] * 40)
    assert 4.0 < learned.idle < 6.0
    now = call_every(learned, [900.0] * 40, now + 900.0)
    assert learned.idle == IDLE_AUTO_SECONDS_MIN
    call_every(learned, [4.0] * 60, now + 4.0)
    assert 4.0 < learned.idle < 6.0


def test_burst_up_at_once_down_by_the_window_to_zero_by_what_is_learned() -> None:
    learned = window()
    now = call_every(learned, [900.0] * 12)
    assert decide(BOUNDS, learned, Sample(35, 0, 0), now + 0.25) == 4
    assert decide(BOUNDS, learned, CALL, now + 0.5) == 4
    assert decide(BOUNDS, learned, NOTHING, now + 0.75) == 4
    assert decide(BOUNDS, learned, NOTHING, now + 1.0) == 0
    assert decide(BOUNDS, learned, CALL, now + 9.0) == 1, "the burst before the silence is over"


def test_a_long_call_is_no_silence() -> None:
    learned = window()
    for second in range(100):
        decide(BOUNDS, learned, CALL, float(second) / 4)
    assert learned.history.weight == 0


def test_a_timer_is_recognised_and_left_alone_between_its_calls() -> None:
    learned = window()
    now = call_every(learned, [300.0, 300.4, 299.8, 300.0])
    assert learned.history.period == pytest.approx(300.0, abs=0.5)
    assert learned.idle == IDLE_AUTO_SECONDS_MIN, "five calls of a timer are enough"
    assert learned.wakes_at(now + 1.0) is None, "a cold start that nobody notices is not worth being early for"


def test_a_worker_that_starts_slowly_is_there_before_a_timers_call() -> None:
    learned = window(cold=0.5, memory=1e9)
    now = call_every(learned, [300.0] * 5)
    assert decide(BOUNDS, learned, NOTHING, now + 5.0) == 0
    early = learned.wakes_at(now + 5.0)
    assert early == pytest.approx(now + 298.0)
    assert early is not None
    assert [decide(BOUNDS, learned, NOTHING, early + t) for t in (-0.1, 0.0, 2.9, 3.1)] == [0, 1, 1, 0]
    assert learned.wakes_at(early + 4.0) is None, "a call that did not come is waited for once"
    assert decide(BOUNDS, learned, CALL, now + 600.0) == 1
    assert learned.history.period is None, "a call was left out"


def test_irregular_calls_are_no_timer() -> None:
    learned = window(cold=0.5)
    now = call_every(learned, [300.0, 280.0, 320.0, 300.0, 260.0, 310.0])
    assert learned.history.period is None
    assert learned.wakes_at(now) is None


def test_a_deploy_holds_a_worker_and_teaches_nothing() -> None:
    learned = window()
    learned.hold(100.0, 1)
    assert [decide(BOUNDS, learned, NOTHING, t) for t in (100.1, 109.9, 110.0)] == [1, 1, 0]
    decide(BOUNDS, learned, CALL, 500.0)
    assert learned.history.weight == 0
    learned.hold(600.0, 0)
    assert decide(BOUNDS, learned, NOTHING, 600.0) == 0, "none was found running: none is held"


def test_a_clock_that_goes_back_teaches_nothing() -> None:
    learned = window()
    decide(BOUNDS, learned, CALL, 1000.0)
    assert decide(BOUNDS, learned, CALL, 10.0) == 1
    assert learned.history.weight == 0
    assert decide(BOUNDS, learned, NOTHING, 30.0) == 0


def test_memory_is_bounded_and_a_restart_forgets_nothing() -> None:
    history = History()
    for i in range(100_000):
        history.note(0.51 * 1.001 ** (i % 20_000), 1.0)
    data = history.pack()
    assert len(data) < 300
    again = History.unpack(data)
    assert again.weight == pytest.approx(history.weight)
    assert again.weight < 40
    assert (again.idle(10.0), again.pack()) == (history.idle(10.0), data)


@pytest.mark.parametrize("data", [b"", b"short", b"\xff" * 264])
def test_a_damaged_history_is_an_empty_one(data: bytes) -> None:
    assert History.unpack(data).weight == 0


def test_a_restart_goes_on_with_what_was_learned() -> None:
    before = Needs(b"")
    before.declare(BOUNDS, 30.0, auto=True, warm=())
    for i in range(GAPS_NEEDED + 2):
        before.workers(CALL, 900.0 * i, 0.0)
    kept = before.unsaved(1e6)
    assert kept is not None
    assert before.unsaved(1e6 + SILENCES_KEPT_SECONDS + 1) is None, "nothing new"
    after = Needs(kept)
    after.declare(BOUNDS, 30.0, auto=True, warm=())
    after.started(COLD)
    after.weighed([int(MEMORY), int(MEMORY)])
    assert after.facts["idle"] == {
        "seconds": IDLE_AUTO_SECONDS_MIN,
        "learned": True,
        "silences": 8.0,
        "break_even_seconds": pytest.approx(10.0, abs=0.01),
        "period_seconds": 900.0,
    }


def test_a_declared_idle_time_keeps_no_history() -> None:
    needs = Needs(b"")
    needs.declare(BOUNDS, 30.0, auto=False, warm=())
    for i in range(20):
        needs.workers(CALL, 900.0 * i, 0.0)
    assert (needs.unsaved(1e9), needs.facts, needs.wakes_in(0.0, 0.0)) == (None, {}, None)
