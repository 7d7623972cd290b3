"""What a call gets from its features: fresh, stale, missing, rejected; on the store that ships as the stub."""

import asyncio
import math
import struct
from collections.abc import Sequence
from typing import Any

import pytest

from sunup.errors import BadRequest, FeaturesMissing
from sunup.limits import LOOKUP_ROWS_PER_DEADLINE
from sunup.lookup.join import Lookup
from sunup.lookup.keys import key_maker
from sunup.lookup.plan import Entity, Feature, JoinKey, ReadPlan, View, entity_columns
from sunup.lookup.store import Answer, Keys, Reading, StoreUnavailable, Told
from sunup.lookup.stores.memory import MemoryStore
from sunup.types import Features, Field

NOW, WALL = 100.0, 1_700_000_000.0
CARD = JoinKey("card_id", "card", "INT64")
SHOP = JoinKey("shop_id", "shop", "STRING")
REQUEST = [Field("amount", "float64"), Field("card", "int64"), Field("shop", "string")]


def int64(value: int) -> bytes:
    return b"\x20" + bytes([value])


def double(value: float) -> bytes:
    return b"\x29" + struct.pack("<d", value)


def make_plan(on_missing: str = "default", *, count_default: int | None = 7) -> ReadPlan:
    count = Feature("count", "count", "INT64", count_default)
    entities = (
        Entity(
            (CARD,),
            (
                View("card_stats", "card_stats", 3600.0, 60.0, (count, Feature("mean", "mean", "DOUBLE"))),
                View("card_risk", "card_risk", None, None, (Feature("risk", "risk", "DOUBLE", 0.5),)),
            ),
        ),
        Entity((SHOP,), (View("shops", "shops_v3", None, None, (Feature("city", "city", "STRING", "?"),)),)),
    )
    return ReadPlan(1, "p", 3, 20.0, on_missing, entities, entity_columns(entities))  # type: ignore[arg-type]


class CountingStore(MemoryStore):
    """Counts the keys asked for, and can be told to fail."""

    def __init__(self, plan: ReadPlan) -> None:
        super().__init__(plan)
        self.asked: list[int] = []
        self.deadline = 0.0
        self.down = False

    def read_now(self, keys: Keys, deadline: float) -> Answer:
        self.asked = [len(each) for each in keys]
        self.deadline = deadline
        if self.down:
            raise StoreUnavailable("down for the test")
        return super().read_now(keys, math.inf)


def lookup_over(plan: ReadPlan) -> tuple[Lookup, CountingStore]:
    """Card 1 and shop "a" have everything, card 2 is an hour old, card 3 has only a NULL count, shop "b" nothing."""
    store = CountingStore(plan)
    card = key_maker([CARD], {"card": 0})
    shop = key_maker([SHOP], {"shop": 0})
    store.put("card_stats", card((1,)), {"count": int64(0), "mean": double(2.5)}, WALL - 10)
    store.put("card_risk", card((1,)), {"risk": double(0.25)}, WALL - 99_999)
    store.put("card_stats", card((2,)), {"count": int64(3), "mean": double(1.0)}, WALL - 61)
    store.put("card_stats", card((3,)), {"count": b""}, WALL - 1)
    store.put("shops_v3", shop(("a",)), {"city": b"\x12\x04Oslo"}, WALL + 5)
    return Lookup(plan, store, REQUEST), store


def read(lookup: Lookup, *rows: tuple[int, str]) -> Features:
    return lookup.read_now([(1.0, *row) for row in rows], now=NOW, wall=WALL)


def test_a_known_row_costs_no_notes() -> None:
    lookup, store = lookup_over(make_plan())
    features = read(lookup, (1, "a"))
    assert features.values == ((0, 2.5, 0.25, "Oslo"),)
    assert (features.defaulted, features.stale, features.failed) == (None, None, {})
    assert features.ages == {"card_stats": 10.0, "card_risk": 99_999.0, "shops": 0.0}
    assert store.asked == [1, 1]
    assert lookup.inline
    assert [column.name for column in lookup.columns] == ["count", "mean", "risk", "city"]


def test_missing_takes_the_default_and_a_float_without_one_nan() -> None:
    lookup, _ = lookup_over(make_plan())
    features = read(lookup, (9, "b"))
    (count, mean, risk, city) = features.values[0]
    assert (count, risk, city) == (7, 0.5, "?")
    assert math.isnan(mean)
    assert features.defaulted == [("count", "mean", "risk", "city")]
    assert features.stale == [()]
    assert features.failed == {}
    assert features.ages == {}


def test_null_is_missing() -> None:
    lookup, _ = lookup_over(make_plan())
    features = read(lookup, (3, "a"))
    assert features.values[0][0] == 7
    assert features.defaulted == [("count", "mean", "risk")]


def test_older_than_max_age_is_stale_and_takes_the_default() -> None:
    lookup, _ = lookup_over(make_plan())
    features = read(lookup, (2, "a"))
    assert features.values[0][0] == 7
    assert math.isnan(features.values[0][1])
    assert features.stale == [("count", "mean")]
    assert features.defaulted == [("risk",)]
    assert features.ages["card_stats"] == 61.0


def test_many_rows_read_each_key_once_and_keep_their_order() -> None:
    lookup, store = lookup_over(make_plan())
    features = read(lookup, (1, "a"), (2, "a"), (1, "b"), (1, "a"))
    assert store.asked == [2, 2]
    assert [row[3] for row in features.values] == ["Oslo", "Oslo", "?", "Oslo"]
    assert [row[0] for row in features.values] == [0, 7, 0, 0]
    assert features.defaulted == [(), ("risk",), ("city",), ()]
    assert features.stale == [(), ("count", "mean"), (), ()]
    assert features.ages == {"card_stats": 61.0, "card_risk": 99_999.0, "shops": 0.0}


def test_many_good_rows_cost_no_notes() -> None:
    lookup, _ = lookup_over(make_plan())
    features = read(lookup, (1, "a"), (1, "a"))
    assert features.values == [(0, 2.5, 0.25, "Oslo")] * 2
    assert features.defaulted is None


def test_no_rows_are_no_features() -> None:
    lookup, store = lookup_over(make_plan())
    assert read(lookup).values == []
    assert store.asked == [0, 0]


def test_a_whole_number_without_default_fails_its_row_alone() -> None:
    lookup, _ = lookup_over(make_plan(count_default=None))
    features = read(lookup, (1, "a"), (9, "a"))
    assert list(features.failed) == [1]
    assert isinstance(features.failed[1], FeaturesMissing)
    assert "count" in features.failed[1].message
    assert "mean" not in features.failed[1].message


def test_reject_fails_rows_with_missing_or_stale_values() -> None:
    lookup, _ = lookup_over(make_plan("reject"))
    features = read(lookup, (1, "a"), (2, "a"), (1, "b"))
    assert sorted(features.failed) == [1, 2]
    assert features.failed[1].message == "no usable value of risk, count, mean for this record"
    assert features.failed[2].status == 503
    assert list(read(lookup, (1, "b")).failed) == [0]


@pytest.mark.parametrize("bad", ["seven", 2**63, None])
def test_a_value_that_is_no_key_fails_its_row_alone(bad: object) -> None:
    lookup, _ = lookup_over(make_plan())
    alone = lookup.read_now([(1.0, bad, "a")], now=NOW, wall=WALL)
    assert isinstance(alone.failed[0], BadRequest)
    assert alone.failed[0].field == "card"
    among = lookup.read_now([(1.0, 1, "a"), (1.0, bad, "a"), (1.0, 1, "b")], now=NOW, wall=WALL)
    assert list(among.failed) == [1]
    assert [len(row) for row in among.values] == [4, 4, 4]
    assert among.values[2] == (0, 2.5, 0.25, "?")


def test_a_store_that_is_down_means_defaults_for_all() -> None:
    lookup, store = lookup_over(make_plan())
    store.down = True
    features = read(lookup, (1, "a"), (2, "a"))
    assert [row[0] for row in features.values] == [7, 7]
    assert features.defaulted == [("count", "mean", "risk", "city")] * 2
    assert features.failed == {}
    store.down = False
    assert read(lookup, (1, "a")).defaulted is None


def test_a_store_that_is_down_fails_all_when_the_plan_rejects() -> None:
    lookup, store = lookup_over(make_plan("reject"))
    store.down = True
    assert [error.code for error in read(lookup, (1, "a")).failed.values()] == ["features_missing"]


def test_a_down_store_keeps_bad_rows_bad() -> None:
    lookup, store = lookup_over(make_plan())
    store.down = True
    features = lookup.read_now([(1.0, 1, "a"), (1.0, None, "a")], now=NOW, wall=WALL)
    assert isinstance(features.failed[1], BadRequest)
    assert features.defaulted == [("count", "mean", "risk", "city"), ()]


def test_the_deadline_is_the_plans_or_the_calls_and_grows_with_the_rows() -> None:
    lookup, store = lookup_over(make_plan())
    read(lookup, (1, "a"))
    assert store.deadline == pytest.approx(NOW + 0.020)
    lookup.read_now([(1.0, 1, "a")], now=NOW, wall=WALL, until=NOW + 0.005)
    assert store.deadline == NOW + 0.005
    read(lookup, *[(1, "a")] * (LOOKUP_ROWS_PER_DEADLINE + 1))
    assert store.deadline == pytest.approx(NOW + 0.040)


def test_awaiting_gives_what_reading_now_gives() -> None:
    lookup, _ = lookup_over(make_plan())
    rows: Sequence[tuple[float, int, str]] = [(1.0, 1, "a"), (1.0, 2, "b")]

    async def both() -> Features:
        await lookup.open()
        features = await lookup.read(rows, now=NOW, wall=WALL)
        await lookup.close()
        return features

    async def told() -> Features:
        heard: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        assert lookup.ask(rows, now=NOW, wall=WALL, told=heard.set_result) is not None
        features: Features = await heard
        return features

    now = lookup.read_now(rows, now=NOW, wall=WALL)
    for later in (asyncio.run(both()), asyncio.run(told())):
        assert (later.defaulted, later.stale, later.ages) == (now.defaulted, now.stale, now.ages)


class RefusingStore(MemoryStore):
    """Raises at once what `error` is."""

    error: Exception = StoreUnavailable("down for the test")

    def ask(self, keys: Keys, deadline: float, told: Told) -> Reading:  # noqa: ARG002
        raise self.error


def test_who_asks_hears_of_defaults_at_once_where_the_store_refuses() -> None:
    plan = make_plan()
    heard: list[Any] = []
    lookup = Lookup(plan, RefusingStore(plan), REQUEST)
    assert lookup.ask([(1.0, 1, "a")], now=NOW, wall=WALL, told=heard.append) is None
    assert heard[0].defaulted == [("count", "mean", "risk", "city")]


@pytest.mark.parametrize(
    ("error", "heard"), [(StoreUnavailable("down"), Features), (ZeroDivisionError(), ZeroDivisionError)]
)
def test_who_asks_hears_what_reading_raised(error: Exception, heard: type) -> None:
    class Failing(MemoryStore):
        async def read(self, keys: Keys, deadline: float) -> Answer:  # noqa: ARG002
            raise error

    async def ask() -> Any:
        said: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        plan = make_plan()
        reading = Lookup(plan, Failing(plan), REQUEST).ask([(1.0, 1, "a")], now=NOW, wall=WALL, told=said.set_result)
        assert reading is not None
        return await said

    assert isinstance(asyncio.run(ask()), heard)
