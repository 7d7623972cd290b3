"""[features] cache: what was read of a key is used again for its time and no longer; time is told, never slept."""

import asyncio
import math
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from sunup.clock import ManualClock
from sunup.lookup.cache import CachedStore, cached
from sunup.lookup.join import Lookup
from sunup.lookup.keys import key_maker
from sunup.lookup.plan import Entity, Feature, JoinKey, ReadPlan, View, entity_columns
from sunup.lookup.store import Answer, Keys, StoreUnavailable
from sunup.lookup.stores.memory import MemoryStore
from sunup.types import Features, Field

WALL = 1_700_000_000.0
CARD = JoinKey("card_id", "card", "INT64")
SHOP = JoinKey("shop_id", "shop", "INT64")
REQUEST = [Field("card", "int64"), Field("shop", "int64")]
card_key = key_maker([CARD], {"card": 0})
shop_key = key_maker([SHOP], {"shop": 1})


def int64(value: int) -> bytes:
    return b"\x20" + bytes([value])


def view(name: str, cache_s: float | None = None, *, ttl_s: float | None = None) -> View:
    return View(name, name, ttl_s, None, (Feature(name, name, "INT64", 99),), cache_s)


def plan_of(*entities: tuple[JoinKey, Sequence[View]], on_missing: Any = "default") -> ReadPlan:
    made = tuple(Entity((key,), tuple(views)) for key, views in entities)
    return ReadPlan(1, "p", 3, 20.0, on_missing, made, entity_columns(made))


class Counting(MemoryStore):
    """Notes the keys asked for per read, and can be down."""

    def __init__(self, plan: ReadPlan) -> None:
        super().__init__(plan)
        self.asked: list[list[int]] = []
        self.down = False

    def read_now(self, keys: Keys, deadline: float) -> Answer:  # noqa: ARG002
        self.asked.append([len(each) for each in keys])
        if self.down:
            raise StoreUnavailable("down for the test")
        return super().read_now(keys, math.inf)


class Case:
    """A lookup over a cache over a store, and a clock."""

    def __init__(self, *entities: tuple[JoinKey, Sequence[View]], way: str = "inline", **bounds: int) -> None:
        self.plan = plan_of(*entities)
        self.clock = ManualClock(wall=WALL)
        self.store = Counting(self.plan)
        self.store.inline = way == "inline"
        self.asks = way == "asked"
        self.cache = CachedStore(self.store, self.plan, clock=self.clock, **bounds)
        self.told: list[tuple[str, int, int]] = []
        self.cache.tell = lambda *each: self.told.append(each)
        self.lookup = Lookup(self.plan, self.cache, REQUEST)

    def put(self, name: str, key: int, value: int, *, age: float = 0.0) -> None:
        made = shop_key((0, key)) if name.startswith("shop") else card_key((key, 0))
        self.store.put(name, made, {name: int64(value)}, self.clock.wall() - age)

    def read(self, *rows: tuple[int, int]) -> Features:
        times = {"now": self.clock.now(), "wall": self.clock.wall()}
        if self.store.inline:
            return self.lookup.read_now(rows, **times)
        awaited = asyncio.run(self._asked(rows, times)) if self.asks else asyncio.run(self.lookup.read(rows, **times))
        assert isinstance(awaited, Features), awaited
        return awaited

    async def _asked(self, rows: Sequence[tuple[int, int]], times: dict[str, float]) -> Features | Exception:
        told = asyncio.get_running_loop().create_future()
        if self.lookup.ask(rows, **times, told=told.set_result) is not None:
            assert not told.done()  # in a later turn
        return await told  # type: ignore[no-any-return]

    def values(self, *rows: tuple[int, int]) -> list[tuple[Any, ...]]:
        return list(self.read(*rows).values)


@pytest.fixture(params=["inline", "awaited", "asked"])
def way(request: pytest.FixtureRequest) -> str:
    """All ways of reading a store must give the same."""
    return str(request.param)


def test_a_value_is_used_again_for_its_time_and_then_read(way: str) -> None:
    case = Case((CARD, [view("card", 2.0)]), way=way)
    case.put("card", 1, 10)
    assert case.values((1, 0)) == [(10,)]
    case.put("card", 1, 11)
    case.clock.advance(1.9)
    assert case.values((1, 0)) == [(10,)]
    assert case.store.asked == [[1]]
    case.clock.advance(0.1)
    assert case.values((1, 0)) == [(11,)]
    assert case.store.asked == [[1], [1]]
    assert case.told == [("features:card", 1, 0), ("features:card", 1, 1), ("features:card", 1, 0)]


def test_an_absence_is_remembered_too(way: str) -> None:
    case = Case((CARD, [view("card", 2.0)]), way=way)
    assert case.read((1, 0)).defaulted == [("card",)]
    case.put("card", 1, 10)
    assert case.read((1, 0)).defaulted == [("card",)]
    case.clock.advance(2.0)
    assert case.values((1, 0)) == [(10,)]


def test_age_counts_from_the_event_and_is_told_at_every_use() -> None:
    case = Case((CARD, [view("card", 10.0)]))
    case.put("card", 1, 10, age=5.0)
    assert dict(case.read((1, 0)).ages) == {"card": 5.0}
    case.clock.advance(3.0)
    assert dict(case.read((1, 0)).ages) == {"card": 8.0}
    assert len(case.store.asked) == 1


def test_ttl_wins_and_what_would_be_stale_is_read_again() -> None:
    case = Case((CARD, [view("card", 10.0, ttl_s=20.0)]))
    case.put("card", 1, 10, age=16.0)
    assert case.values((1, 0)) == [(10,)]
    case.put("card", 1, 11)
    case.clock.advance(3.9)
    assert case.values((1, 0)) == [(10,)]
    case.clock.advance(0.2)  # 20.1 s old, after 4.1 of 10 s in the cache
    assert case.values((1, 0)) == [(11,)]


def test_what_was_stale_when_it_was_read_is_not_asked_for_at_every_call() -> None:
    case = Case((CARD, [view("card", 10.0, ttl_s=20.0)]))
    case.put("card", 1, 10, age=30.0)
    for _ in range(3):
        assert case.read((1, 0)).stale == [("card",)]
    assert case.store.asked == [[1]]


def test_a_view_beside_one_without_a_cache_is_as_new_as_that(way: str) -> None:
    """The key is read anyway, once; what comes is never older for one view than for the other."""
    case = Case((CARD, [view("card", 60.0), view("card_risk")]), way=way)
    for value in (1, 2):
        case.put("card", 1, value)
        case.put("card_risk", 1, value)
        assert case.values((1, 0)) == [(value, value)]
    assert case.store.asked == [[1], [1]]


def test_views_of_one_key_with_different_times_come_from_one_read() -> None:
    case = Case((CARD, [view("card", 60.0), view("card_risk", 2.0)]))
    for value in (1, 2):
        case.put("card", 1, value)
        case.put("card_risk", 1, value)
        assert case.values((1, 0)) == [(value, value)]
        case.clock.advance(2.0)
    assert len(case.store.asked) == 2


def test_only_keys_that_are_not_remembered_are_read_in_one_read(way: str) -> None:
    case = Case((CARD, [view("card", 60.0)]), (SHOP, [view("shop")]), way=way)
    for key in range(4):
        case.put("card", key, key)
        case.put("shop", key, 10 + key)
    assert case.values((0, 0), (1, 1)) == [(0, 10), (1, 11)]
    assert case.values((2, 2), (1, 0), (3, 2), (0, 3)) == [(2, 12), (1, 10), (3, 12), (0, 13)]
    assert case.store.asked == [[2, 2], [2, 3]]
    assert case.values((0, 1)) == [(0, 11)]
    assert case.store.asked[-1] == [0, 1]
    assert case.told == [("features:card", 2, 0), ("features:card", 4, 2), ("features:card", 1, 1)]


def test_a_key_is_of_its_entity() -> None:
    """Two entities whose keys have the same bytes: the same join key, filled from two request fields."""
    other = JoinKey("card_id", "shop", "INT64")
    case = Case((CARD, [view("card", 60.0)]), (other, [view("card_other", 60.0)]))
    case.put("card", 1, 10)
    case.put("card_other", 1, 20)
    for _ in range(2):
        assert case.values((1, 1)) == [(10, 20)]
    assert len(case.store.asked) == 1


def test_a_store_that_is_down_leaves_what_is_remembered(way: str, caplog: pytest.LogCaptureFixture) -> None:
    case = Case((CARD, [view("card", 60.0), view("card_risk")]), (SHOP, [view("shop")]), way=way)
    for name in ("card", "card_risk", "shop"):
        case.put(name, 1, 5)
    assert case.values((1, 1)) == [(5, 5, 5)]
    case.store.down = True
    found = case.read((1, 1))
    assert (list(found.values), found.defaulted) == ([(5, 99, 99)], [("card_risk", "shop")])
    assert "remembered" in caplog.text
    found = case.read((2, 1), (1, 1))  # one known key, one unknown
    assert list(found.values) == [(99, 99, 99), (5, 99, 99)]
    case.clock.advance(60.0)
    assert case.values((1, 1)) == [(99, 99, 99)]
    assert "defaulted or rejected" in caplog.text


def test_what_a_caller_does_to_an_answer_stays_with_him() -> None:
    case = Case((CARD, [view("card", 60.0)]))
    case.put("card", 1, 10)
    keys = [[card_key((1, 0))]]
    for _ in range(3):
        answer = case.cache.read_now(keys, math.inf)
        assert answer == [[[int64(10), WALL]]]
        answer[0][0].clear()


def test_recall_gives_all_or_nothing() -> None:
    case = Case((CARD, [view("card", 2.0)]), (SHOP, [view("shop", 5.0)]), way="awaited")
    case.put("card", 1, 10)
    case.put("shop", 1, 20)
    assert case.lookup.recall([(1, 1)], wall=WALL) is None
    case.read((1, 1))
    found = case.lookup.recall([(1, 1)], wall=WALL + 1)
    assert found is not None
    assert (list(found.values), dict(found.ages)) == ([(10, 20)], {"card": 1.0, "shop": 1.0})
    assert case.lookup.recall([(1, 1), (1, 2)], wall=WALL) is None
    case.clock.advance(2.0)
    assert case.lookup.recall([(1, 1)], wall=WALL) is None
    assert Lookup(case.plan, case.store, REQUEST).recall([(1, 1)], wall=WALL) is None


def test_it_is_bounded_in_keys() -> None:
    case = Case((CARD, [view("card", 60.0)]), keys_max=2)
    for key in (1, 2, 1, 3, 1, 2):  # 3 pushes 2 out, for 1 was used since
        case.read((key, 0))
    assert case.store.asked == [[1]] * 4
    assert "2 of 2" in repr(case.cache)


def test_it_is_bounded_in_bytes() -> None:
    case = Case((CARD, [view("card", 60.0)]), bytes_max=4 * 1024)
    rows = [(key, 0) for key in range(1000)]
    case.read(*rows)
    assert sys.getsizeof(case.cache._kept._held) < 4 * 1024
    case.read((999, 0))
    assert case.store.asked == [[1000]]
    case.read((0, 0))
    assert case.store.asked == [[1000], [1]]


def test_without_a_cached_view_there_is_no_cache() -> None:
    plan = plan_of((CARD, [view("card")]))
    store = MemoryStore(plan)
    assert cached(store, plan) is store
    assert Lookup(plan, store, REQUEST).cache is None
    with_one = plan_of((CARD, [view("card", 1.0)]))
    assert isinstance(cached(MemoryStore(with_one), with_one), CachedStore)


def test_opening_and_closing_are_the_stores() -> None:
    case = Case((CARD, [view("card", 60.0)]))
    done: list[str] = []

    async def note(what: str) -> None:
        done.append(what)

    case.store.open = lambda: note("open")  # type: ignore[method-assign]
    case.store.close = lambda: note("close")  # type: ignore[method-assign]

    async def run() -> None:
        await case.lookup.open()
        await case.lookup.close()

    asyncio.run(run())
    assert done == ["open", "close"]
