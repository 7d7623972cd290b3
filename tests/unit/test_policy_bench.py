"""The simulator that judges scaling policies, on timelines counted by hand, and the trace it is given."""

import numpy as np
import pytest
from tests.bench.policy.simulate import Prices, clairvoyant, fixed, learned
from tests.bench.policy.trace import DAY, DAYS, SHARES, functions

from sunup.limits import IDLE_AUTO_SECONDS_MIN
from sunup.scale.history import GAPS_NEEDED
from sunup.scale.learned import GB_PER_CPU

PRICES = Prices(cold_seconds=0.01, worker_bytes=0.01 * GB_PER_CPU / 10.0 * 1e9)  # break-even after 10 s
GAPS = np.array([1.0, 5.0, 100.0, 1000.0, 9.0])


def times(gaps: object) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.concatenate([[7.0], 7.0 + np.cumsum(np.asarray(gaps, dtype=np.float64))])


def test_what_fixed_times_and_clairvoyance_cost() -> None:
    assert PRICES.break_even == pytest.approx(10.0)
    kept = fixed(GAPS, 60.0)
    assert (kept.idle, kept.cold, kept.starts, kept.calls) == (135.0, 2, 2, 5)
    knew = clairvoyant(GAPS, PRICES)
    assert (knew.idle, knew.cold, knew.starts) == (15.0, 2, 2)
    assert knew.cost(PRICES) == pytest.approx((15.0 + 2 * 10.0) * PRICES.worker_bytes / 1e9)


def test_what_learning_costs_while_it_knows_nothing_and_afterwards() -> None:
    begun = learned(times([60.0, 3.0, 2000.0]), PRICES)
    assert (begun.idle, begun.cold) == (10.0 + 3.0 + 10.0, 2)
    random = np.random.default_rng(5).uniform(100, 2000, 40)
    known = learned(times(random), PRICES)
    assert known.cold == 40
    assert known.idle == GAPS_NEEDED * 10.0 + (40 - GAPS_NEEDED) * IDLE_AUTO_SECONDS_MIN


def test_a_worker_that_starts_slowly_meets_a_timer() -> None:
    slow = Prices(cold_seconds=0.5, worker_bytes=200e6)
    spent = learned(times([600.0] * 50), slow)
    assert spent.starts == 50
    assert spent.cold == 4, "those it took to recognise the timer"
    assert spent.idle == pytest.approx(4 * slow.break_even + 46 * (IDLE_AUTO_SECONDS_MIN + 2.0), abs=1.0)
    missed = learned(times([600.0] * 50 + [900.0] + [600.0] * 10), slow)
    assert missed.starts == 62, "it waited once for a call that did not come"


def test_break_even_is_never_more_than_twice_clairvoyance() -> None:
    for one in functions(3, 60):
        least = clairvoyant(one.gaps, PRICES).cost(PRICES)
        assert fixed(one.gaps, PRICES.break_even).cost(PRICES) <= 2.0001 * least


def test_the_trace_has_the_published_shape() -> None:
    trace = list(functions(1, 3000))
    rates = np.array([one.per_day for one in trace])
    assert np.mean(rates <= 24) == pytest.approx(0.45, abs=0.05)
    assert np.mean(rates <= 1440) == pytest.approx(0.81, abs=0.05)
    assert rates[rates > 1440].sum() / rates.sum() == pytest.approx(0.996, abs=0.004)
    assert np.log10(rates.max() / rates.min()) > 7.5
    timers = [one for one in trace if one.kind == "timer"]
    assert len(timers) / len(trace) == pytest.approx(SHARES["timer"], abs=0.03)
    assert all(np.ptp(one.gaps) < 1e-4 for one in timers), "a timer is exact"
    uneven = [one.gaps.std() / one.gaps.mean() for one in trace if len(one.gaps) >= 100]
    assert np.mean(np.array(uneven) > 1.1) == pytest.approx(0.40, abs=0.07)
    assert all(one.times[-1] <= DAYS * DAY for one in trace)
    again = list(functions(1, 3000))
    assert all(np.array_equal(a.times, b.times) for a, b in zip(trace, again, strict=True))
