"""stream/aggregate/history.py against loops that do what its words say, on histories drawn at random."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from sunup.stream.aggregate.history import Features, History, as_of, point_in_time, replayed
from sunup.types import Aggregated, Aggregation

HOP = 60
SPEC = Aggregated(
    topic="payments",
    timestamp="at",
    hop_s=HOP,
    late_s=150.0,
    event_id="id",
    aggregations=(
        Aggregation("short_count", "count", "amount", 5 * HOP),
        Aggregation("short_sum", "sum", "amount", 5 * HOP),
        Aggregation("short_min", "min", "amount", 5 * HOP),
        Aggregation("short_max", "max", "points", 5 * HOP),
        Aggregation("short_mean", "mean", "points", 5 * HOP),
        Aggregation("long_sum", "sum", "points", 40 * HOP),
        Aggregation("long_min", "min", "points", 40 * HOP),
        Aggregation("tile_count", "count", "points", HOP),
    ),
)


def drawn(seed: int, events: int = 300, entities: int = 5, partitions: int = 3) -> History:
    """Out of order, some late, some twice (not always as they were), some fields null, times that fall together."""
    rng = np.random.default_rng(seed)
    steps = rng.choice([0.0, 0.25, 1.0, 20.0, 700.0], events, p=[0.2, 0.2, 0.3, 0.27, 0.03])
    times = 1_700_000_000.0 + np.cumsum(steps) - rng.choice([0.0, 5.0, 100.0, 400.0], events, p=[0.5, 0.2, 0.2, 0.1])
    entity = rng.integers(0, entities, events)
    ids = np.arange(events)
    for at in np.flatnonzero(rng.random(events) < 0.15)[1:]:
        copied = rng.integers(max(0, at - 30), at)
        ids[at], entity[at] = ids[copied], entity[copied] if rng.random() < 0.9 else entity[at]
        times[at] = times[copied] if rng.random() < 0.7 else times[at]
    values = {name: np.where(rng.random(events) < 0.2, np.nan, rng.normal(0, 50, events)) for name in SPEC.columns}
    return History(np.char.add("card-", entity.astype(str)), times, values, ids, entity % partitions)


def value(each: Aggregation, history: History, seen: Sequence[int], newest: int) -> float:
    """Of the events `seen`, those in the window that ends with tile `newest`."""
    inside = [at for at in seen if newest - each.window_s // HOP < history.time[at] // HOP <= newest]
    numbers = [x for at in inside if not math.isnan(x := float(history.values[each.column][at]))]
    if each.function == "count":
        return len(numbers)
    if each.function == "sum":
        return math.fsum(numbers)
    if not numbers:
        return math.nan
    return {"min": min(numbers), "max": max(numbers), "mean": math.fsum(numbers) / len(numbers)}[each.function]


def check(found: Features, expected: Sequence[Callable[[Aggregation], float]]) -> None:
    assert list(found) == [each.feature for each in SPEC.aggregations]
    for each in SPEC.aggregations:
        np.testing.assert_allclose(found[each.feature], [row(each) for row in expected], rtol=1e-12, atol=1e-11)


def earlier(history: History, at: int) -> list[int]:
    mine = history.entity[at]
    return [
        other
        for other in range(len(history))
        if history.entity[other] == mine and (history.time[other], other) < (history.time[at], at)
    ]


@pytest.mark.parametrize("seed", range(12))
def test_each_event_sees_those_before_it(seed: int) -> None:
    history = drawn(seed)
    seen = [earlier(history, at) for at in range(len(history))]
    rows = [
        lambda each, at=at: value(each, history, seen[at], int(history.time[at] // HOP)) for at in range(len(history))
    ]
    check(point_in_time(SPEC, history), rows)


@pytest.mark.parametrize("seed", range(12))
def test_any_row_sees_what_is_strictly_earlier(seed: int) -> None:
    history, rng = drawn(seed), np.random.default_rng(seed)
    times = np.concatenate([history.time[::3], rng.uniform(history.time.min() - 5000, history.time.max() + 5000, 60)])
    cards = rng.choice(["card-0", "card-1", "card-4", "card-9", "another"], len(times))
    rows = []
    for card, moment in zip(cards, times, strict=True):
        seen = [at for at in range(len(history)) if history.entity[at] == card and history.time[at] < moment]
        rows.append(lambda each, seen=seen, q=int(moment // HOP): value(each, history, seen, q))
    check(point_in_time(SPEC, history, cards, times), rows)


def read_one_by_one(history: History) -> tuple[list[Any], list[str]]:
    """What a reader makes of each event: its values, and what it was."""
    watermarks: dict[int, float] = {}
    taken: dict[tuple[int, str], list[int]] = {}
    rows, kinds = [], []
    assert history.id is not None
    assert history.partition is not None
    for at in range(len(history)):
        partition, moment = int(history.partition[at]), float(history.time[at])
        oldest = watermarks.get(partition, -math.inf) - SPEC.late_s
        seen = taken.setdefault((partition, history.entity[at]), [])
        newest = int(max(moment, oldest) // HOP)
        rows.append(lambda each, seen=tuple(seen), newest=newest: value(each, history, seen, newest))
        known = {history.id[other] for other in seen if history.time[other] >= oldest}
        kinds.append("late" if moment < oldest else "duplicate" if history.id[at] in known else "aggregated")
        if kinds[-1] == "aggregated":
            seen.append(at)
        watermarks[partition] = max(watermarks.get(partition, -math.inf), moment)
    return rows, kinds


@pytest.mark.parametrize("seed", range(12))
def test_the_stream_is_replayed_in_the_order_the_events_came(seed: int) -> None:
    history = drawn(seed)
    found = replayed(SPEC, history)
    rows, kinds = read_one_by_one(history)
    for kind in ("late", "duplicate", "aggregated"):
        assert getattr(found, kind).tolist() == [each == kind for each in kinds]
        assert 5 < kinds.count(kind) < len(history)
    check(found.before, rows)


@pytest.mark.parametrize("seed", range(6))
def test_values_at_a_moment_are_of_all_there_was(seed: int) -> None:
    history, rng = drawn(seed), np.random.default_rng(seed)
    history = history.only(replayed(SPEC, history).aggregated)
    times = rng.uniform(history.time.min() - 100, history.time.max() + 3000, 80)
    cards = rng.choice(["card-0", "card-1", "card-2", "nobody"], 80)
    rows = []
    for card, moment in zip(cards, times, strict=True):
        seen = [at for at in range(len(history)) if history.entity[at] == card]
        newest = max([int(moment // HOP), *(int(history.time[at] // HOP) for at in seen)])
        rows.append(lambda each, seen=seen, newest=newest: value(each, history, seen, newest))
    check(as_of(SPEC, history, cards, times), rows)


@pytest.mark.parametrize("seed", range(4))
def test_in_order_and_each_once_training_sees_what_the_stream_saw(seed: int) -> None:
    drawn_history = drawn(seed, partitions=1)
    assert drawn_history.id is not None
    _, once = np.unique(drawn_history.id, return_index=True)
    history = drawn_history.only(once[np.argsort(drawn_history.time[once], kind="stable")])
    found = replayed(SPEC, history)
    assert found.aggregated.all()
    for name, column in point_in_time(SPEC, history).items():
        np.testing.assert_allclose(found.before[name], column, rtol=1e-12, atol=1e-11)


def test_an_idle_entity_falls_to_nothing_a_tile_at_a_time() -> None:
    history = History(np.array(["a", "a", "b"]), np.array([30.0, 95.0, 95.0]), dict.fromkeys(SPEC.columns, np.ones(3)))
    moments = np.array([95.0, 299.0, 300.0, 359.0, 360.0, 10_000.0, 0.0])
    found = as_of(SPEC, history, np.array(["a"] * 7), moments)
    assert found["short_count"].tolist() == [2, 2, 1, 1, 0, 0, 2]  # at 0.0 its own newest tile is ahead
    assert found["short_sum"].tolist() == found["short_count"].tolist()
    assert np.isnan(found["short_min"]).tolist() == [False] * 4 + [True, True, False]


def test_without_events_there_is_nothing() -> None:
    nothing = History(np.array([], object), np.zeros(0), dict.fromkeys(SPEC.columns, np.zeros(0)))
    asked = np.array([b"a", b"b"], object), np.array([0.0, 1e9])
    for found in (point_in_time(SPEC, nothing, *asked), as_of(SPEC, nothing, *asked)):
        assert (found["short_count"].tolist(), np.isnan(found["long_min"]).tolist()) == ([0, 0], [True, True])
    assert point_in_time(SPEC, nothing)["short_sum"].shape == (0,)
    assert replayed(SPEC, nothing).before["short_sum"].shape == (0,)


def test_what_lies_before_a_window_costs_its_sum_no_digits() -> None:
    """A running total would: a window of cents after billions comes out right to the last digit."""
    amounts = np.concatenate([np.full(1000, 1e15), np.full(1000, 0.01)])
    times = np.concatenate([np.linspace(0, 1000, 1000), np.linspace(100_000, 100_100, 1000)])
    history = History(np.zeros(2000, np.int64), times, dict.fromkeys(SPEC.columns, amounts))
    (total,) = point_in_time(SPEC, history, np.zeros(1, np.int64), np.array([100_110.0]))["short_sum"]
    assert total == pytest.approx(10.0, rel=1e-14)


def test_a_hundred_days_of_payments_take_well_under_a_second() -> None:
    rng, n = np.random.default_rng(1), 150_000
    history = History(
        rng.integers(0, 1400, n), np.sort(rng.uniform(0, 100 * 86_400, n)), {"amount": rng.lognormal(3, 1, n)}
    )
    spec = Aggregated(
        "payments",
        "at",
        300,
        600.0,
        "",
        (Aggregation("count", "count", "amount", 3600), Aggregation("sum", "sum", "amount", 86_400)),
    )
    began = time.process_time()
    found = point_in_time(spec, history)
    assert time.process_time() - began < 1.0
    assert found["count"].mean() == pytest.approx(n / 1400 / 100 / 24, rel=0.1)
