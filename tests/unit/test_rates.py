"""Figures of the time between two looks at counters that only grow."""

from typing import Any

import pytest

from sunup.cli.status.rates import Rates
from sunup.cli.status.screen import overview
from sunup.link.counters import STAGE_BUCKETS


def facts(requests: int, buckets: dict[int, float]) -> dict[str, Any]:
    latency = [buckets.get(index, 0.0) for index in range(len(STAGE_BUCKETS) + 1)]
    one = {"name": "fraud", "requests": requests, "latency": latency, "rps": 7.0, "p50_ms": 8.0, "p99_ms": 9.0}
    return {"engine": {}, "functions": [one]}


def figures(found: dict[str, Any]) -> tuple[float, float | None, float | None]:
    one = found["functions"][0]
    assert "latency" not in one
    return one["rps"], one["p50_ms"], one["p99_ms"]


def test_the_first_look_shows_what_the_engine_says() -> None:
    assert figures(Rates().since(facts(5, {0: 5.0}), 1.0)) == (7.0, 8.0, 9.0)


def test_the_next_ones_show_what_happened_between() -> None:
    rates = Rates()
    rates.since(facts(1000, {0: 1000.0}), 10.0)
    per_second, p50, p99 = figures(rates.since(facts(1100, {0: 1000.0, 3: 98.0, 5: 2.0}), 12.0))
    low, high = 1000 * STAGE_BUCKETS[2], 1000 * STAGE_BUCKETS[3]
    assert per_second == 50.0
    assert p50 == pytest.approx(low + (high - low) * 50 / 98, abs=0.001)
    assert p99 == pytest.approx(1000 * (STAGE_BUCKETS[4] + STAGE_BUCKETS[5]) / 2, abs=0.001)
    assert figures(rates.since(facts(1100, {0: 1000.0, 3: 98.0, 5: 2.0}), 13.0)) == (0.0, None, None)


def test_counters_that_began_again_are_no_negative_calls() -> None:
    rates = Rates()
    rates.since(facts(1000, {0: 1000.0}), 10.0)
    assert figures(rates.since(facts(3, {0: 3.0}), 11.0)) == (0.0, None, None)


def test_a_function_that_cannot_be_served_is_shown_with_the_reason() -> None:
    broken = {"name": "fraud", "state": "failed", "reason": "Bundle abc is damaged."}
    engine = {"url": "u", "metrics_url": "m", "processes": []}
    found = Rates().since({"engine": engine, "functions": [broken]}, 1.0)
    assert "fraud: Bundle abc is damaged." in overview(found)
