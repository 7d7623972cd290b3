"""Calls whose features are remembered: answered within the turn that brought them, on whatever store."""

import asyncio
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.unit.test_pipeline import NOW, WALL, call, function, plan, record, scores, stored

from sunup.clock import ManualClock
from sunup.function import Function
from sunup.lookup.cache import CachedStore
from sunup.lookup.join import Lookup
from sunup.lookup.keys import key_maker
from sunup.lookup.plan import ReadPlan, entity_columns
from sunup.observer import Unobserved
from sunup.pipeline import Pipeline
from sunup.types import CacheSpec, Call, Features, Reply

LATE = NOW + 1e6


class Told(Unobserved):
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.looked: list[Features] = []
        self.found: list[tuple[str, int, int]] = []

    def features(self, found: Features) -> None:
        self.looked.append(found)

    def recalled(self, cache: str, looked: int, found: int) -> None:
        self.found.append((cache, looked, found))


def cached_plan(cache_s: float) -> ReadPlan:
    replaced = msgspec.structs.replace
    made = plan()
    entities = tuple(
        replaced(entity, views=tuple(replaced(view, cache_s=cache_s) for view in entity.views))
        for entity in made.entities
    )
    return replaced(made, entities=entities, columns=entity_columns(entities))


class Case:
    """A function whose store must be awaited, with a cache of ten seconds around it."""

    def __init__(self, **changes: Any) -> None:
        made = cached_plan(10.0)
        self.store = stored(made, {1: (3, 0.5), 2: (1, 9.0)})
        self.store.inline = False
        self.clock, self.told = ManualClock(NOW, wall=WALL), Told()
        base = function(read_plan=made, store=self.store)
        assert base.lookup is not None
        lookup = Lookup(made, CachedStore(self.store, made, clock=self.clock), base.manifest.request)
        manifest = msgspec.structs.replace(base.manifest, **changes)
        self.function: Function = replace(base, lookup=lookup, manifest=manifest)
        self.pipeline = Pipeline(self.function, observer=self.told, clock=self.clock)

    def answer(self, one: Call) -> Reply:
        return asyncio.run(self.pipeline.answer(one))


def test_what_is_remembered_is_answered_now() -> None:
    case = Case()
    one = call(record(1, 2.0), single=True)
    assert not case.pipeline.takes_now(one)
    assert case.pipeline.takes_soon(one)
    case.answer(one)
    again = call(record(1, 5.0), single=True)
    assert case.pipeline.takes_now(again)
    reply = case.pipeline.answer_now(again)
    assert np.asarray(reply.columns["score"]).tolist() == scores([[5.0, 3.0, 0.5]])
    assert [dict(found.ages) for found in case.told.looked] == [{"card_stats": 0.0}] * 2
    assert case.told.found == [("features:card_stats", 1, 0), ("features:card_stats", 1, 1)]
    case.clock.advance(10.0)
    assert not case.pipeline.takes_now(again)


def test_a_call_with_one_key_that_is_not_remembered_is_not() -> None:
    case = Case()
    case.answer(call(record(1, 2.0)))
    assert not case.pipeline.takes_now(call(record(1, 2.0), record(2, 2.0)))
    assert case.pipeline.takes_now(call(record(1, 2.0), record(1, 3.0)))


def test_what_was_recalled_for_one_call_is_not_for_another() -> None:
    case = Case()
    case.answer(call(record(1, 2.0), record(2, 2.0)))
    first, second = call(record(1, 2.0)), call(record(2, 2.0))
    assert case.pipeline.takes_now(first)
    assert case.pipeline.takes_now(second)
    reply = case.pipeline.answer_now(second)
    assert np.asarray(reply.columns["score"]).tolist() == scores([[2.0, 1.0, 9.0]])
    assert np.asarray(case.answer(first).columns["score"]).tolist() == scores([[2.0, 3.0, 0.5]])


def test_a_feature_that_changed_is_another_row() -> None:
    case = Case(cache=CacheSpec(identical_s=600.0))
    one = call(record(1, 2.0), single=True, deadline=LATE)
    assert not case.pipeline.takes_soon(one)  # it would share a run with others
    for _ in range(2):
        assert np.asarray(case.answer(one).columns["score"]).tolist() == scores([[2.0, 3.0, 0.5]])
    assert case.answer(one).timings.recalled == "identical=1"
    key = key_maker(plan().entities[0].join_keys, {"card_id": 0})((1,))
    case.store.put("card_stats", key, {"n": b"\x20\x04"}, WALL)
    case.clock.advance(10.0)
    reply = case.answer(one)
    assert reply.timings.recalled is None
    assert np.asarray(reply.columns["score"]).tolist() == scores([[2.0, 4.0, 0.5]])


@pytest.mark.parametrize("cache", [None, CacheSpec(identical_s=600.0)])
def test_stale_and_missing_features_are_told_each_time(cache: CacheSpec | None) -> None:
    case = Case(cache=cache)
    for _ in range(2):
        assert case.answer(call(record(99, 1.0))).defaulted == [("n", "mean")]
    case.answer(call(record(1, 1.0), deadline=LATE))
    case.clock.advance(3601.0)
    for _ in range(2):
        assert case.answer(call(record(1, 1.0), deadline=LATE)).stale == [("n", "mean")]
