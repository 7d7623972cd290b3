"""Values that come with the rows: what a call gets is what it would get if the store held them."""

import asyncio
import math
import random
import struct
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from sunup.batch.rank import Ranking
from sunup.errors import BadRequest, FeaturesMissing
from sunup.lookup.derive.given import AgedGivenDerivedLookup, GivenDerivedLookup
from sunup.lookup.derive.lookup import AgedDerivedLookup, DerivedLookup
from sunup.lookup.join import Lookup
from sunup.lookup.keys import key_maker
from sunup.lookup.kinds.ages import AgedLookup
from sunup.lookup.kinds.given import AgedGivenLookup, GivenLookup, as_stored, unaggregated
from sunup.lookup.kinds.open import open_lookup
from sunup.lookup.plan import (
    Entity,
    Feature,
    Input,
    JoinKey,
    OnDemand,
    ReadPlan,
    View,
    entity_columns,
    plan_columns,
)
from sunup.lookup.stores.memory import MemoryStore
from sunup.lookup.values import decoder
from sunup.types import Aggregated, Aggregation, Call, Features, Field, GivenRows, Row

NOW, WALL = math.inf, 1_700_000_000.0
CARD = JoinKey("card_id", "card", "INT32")
SHOP = JoinKey("shop_id", "shop", "STRING")
REQUEST = [Field("amount", "float64"), Field("card", "int64"), Field("shop", "string")]
ENCODE: dict[str, Callable[[Any], bytes]] = {
    "INT64": lambda value: bytes([4 << 3, *_varint(value)]),
    "DOUBLE": lambda value: b"\x29" + struct.pack("<d", value),
    "FLOAT": lambda value: b"\x35" + struct.pack("<f", value),
}


def _varint(value: float) -> bytes:
    left, out = int(value) & (1 << 64) - 1, bytearray()
    while left > 127:
        out.append(left & 127 | 128)
        left >>= 7
    return bytes([*out, left])


def how(*aggregations: tuple[str, str]) -> Aggregated:
    made = tuple(Aggregation(name, function, "amount", 3600) for name, function in aggregations)  # type: ignore[arg-type]
    return Aggregated("payments", "time", 60, 30.0, "id", made)


# Of the card one view is aggregated and one is stored; of the shop all are aggregated.
RECENT = View(
    "recent", "recent", 60.0, None,
    (Feature("n", "n", "INT64", 7), Feature("most", "most", "DOUBLE"), Feature("total", "total", "FLOAT", 0.5)),
    aggregated=how(("total", "sum"), ("n", "count"), ("most", "max")),
)  # fmt: skip
RISK = View("risk", "risk", None, None, (Feature("risk", "risk", "DOUBLE", 0.5),))
SALES = View("sales", "sales_v2", None, None, (Feature("sold", "sold", "INT64"),), aggregated=how(("sold", "sum")))
ORDER = {"recent": ("total", "n", "most"), "sales": ("sold",)}  # as values are given


def make_plan(on_missing: str = "default", *, first: bool = True) -> ReadPlan:
    entities = (Entity((CARD,), (RECENT, RISK) if first else (RISK, RECENT)), Entity((SHOP,), (SALES,)))
    return ReadPlan(1, "p", 3, 20.0, on_missing, entities, entity_columns(entities))  # type: ignore[arg-type]


def given_of(values: dict[str, float | None]) -> Row:
    return tuple(values.get(name) for names in ORDER.values() for name in names)


def both(
    plan: ReadPlan, rows: Sequence[tuple[Any, Any]], values: Sequence[dict[str, float | None]], *, aged: bool = False
) -> tuple[Features, Features]:
    """What is got of values that are given, and what of the same in the store as of now."""
    whole, rest = MemoryStore(plan), MemoryStore(unaggregated(plan))
    card, shop = key_maker([CARD], {"card": 0}), key_maker([SHOP], {"shop": 0})
    for store in (whole, rest):
        store.put("risk", card((1,)), {"risk": ENCODE["DOUBLE"](0.25)}, WALL - 9)
    for (card_id, shop_id), found in zip(rows, values, strict=True):
        for view, key, ids in ((RECENT, card, card_id), (SALES, shop, shop_id)):
            stored = {
                f.name: ENCODE[f.value_type](value) for f in view.features if (value := found.get(f.name)) is not None
            }
            if stored:
                whole.put(view.stored, key((ids,)), stored, WALL)
    asked = [(1.0, *row) for row in rows]
    plain = (AgedLookup if aged else Lookup)(plan, whole, REQUEST)
    overlaid = (AgedGivenLookup if aged else GivenLookup)(plan, rest, REQUEST)
    assert (plain.columns, plain.views) == (overlaid.columns, overlaid.views)
    given = GivenRows(asked, [given_of(found) for found in values])
    return overlaid.read_now(given, now=NOW, wall=WALL), plain.read_now(asked, now=NOW, wall=WALL)


def same(one: Features, other: Features) -> None:
    def shown(found: Features) -> dict[str, Any]:
        whole = msgspec.structs.asdict(found)
        failed = {at: type(found.failed[at]) for at in sorted(found.failed)}
        values = [row for at, row in enumerate(found.values) if at not in failed]
        notes = {name: whole[name] or [()] * len(found.values) for name in ("defaulted", "stale")}
        good = {name: [row for at, row in enumerate(rows) if at not in failed] for name, rows in notes.items()}
        return whole | {"values": values, "failed": failed, "ages": None} | good

    assert repr(shown(one)) == repr(shown(other))  # of NaN, too


FULL: dict[str, float | None] = {"total": 2.5, "n": 3, "most": 2.0, "sold": 12}


@pytest.mark.parametrize(
    ("on_missing", "first", "aged"), [*product(("default", "reject"), (True, False), (True, False))]
)
def test_given_values_are_as_good_as_stored_ones(on_missing: str, first: bool, aged: bool) -> None:
    draw = random.Random(5)
    plan = make_plan(on_missing, first=first)
    for count in (1, 2, 7):
        for _ in range(40):
            rows: list[tuple[Any, Any]] = [(at if draw.random() < 0.5 else 1, f"s{at}") for at in range(count)]
            rows = list({row[0]: row for row in rows}.values())
            values = [
                {name: value if draw.random() < 0.8 else None for name, value in FULL.items()} for _ in range(len(rows))
            ]
            same(*both(plan, rows, values, aged=aged))


def test_given_values_are_as_they_would_be_stored() -> None:
    assert as_stored("FLOAT")(0.1) == struct.unpack("<f", struct.pack("<f", 0.1))[0]
    assert as_stored("FLOAT")(-1e300) == -math.inf
    assert as_stored("INT64")(2.0**40) == 2**40
    assert type(as_stored("INT64")(3.0)) is int
    assert [as_stored("INT32")(value) for value in (2.0**31, math.inf, -(2.0**31))] == [None, None, -(2**31)]
    assert type(as_stored("DOUBLE")(3)) is float
    with pytest.raises(ValueError, match="STRING"):
        as_stored("STRING")
    (found, stored) = both(make_plan(), [(1, "a")], [{"total": 0.1, "n": 3, "most": 2.0, "sold": -12.0}])
    same(found, stored)
    assert found.values == [(3, 2.0, pytest.approx(0.1, rel=1e-6), 0.25, -12)]
    assert found.defaulted is None
    assert found.ages == {"risk": 9.0, "recent": 0.0, "sales": 0.0}


def test_nulls_take_the_default_and_are_named() -> None:
    found, _ = both(make_plan(), [(1, "a"), (2, "b")], [{"n": 3, "total": 1.0, "sold": 2}, FULL])
    assert math.isnan(found.values[0][1])
    assert found.defaulted == [("most",), ("risk",)]
    assert found.stale == [(), ()]


def test_a_null_without_a_default_fails_its_row_alone() -> None:
    found, _ = both(make_plan(), [(1, "a"), (2, "b")], [{"n": 3}, FULL])
    assert list(found.failed) == [0]
    assert isinstance(found.failed[0], FeaturesMissing)
    assert "sold" in found.failed[0].message


@pytest.mark.parametrize("bad", [2**31, "seven", None])
def test_a_value_that_is_no_key_fails_its_row_alone(bad: object) -> None:
    plan = make_plan()
    lookup = GivenLookup(plan, MemoryStore(unaggregated(plan)), REQUEST)
    rows = GivenRows([(1.0, bad, "a"), (1.0, 1, "a"), (1.0, 1, 3)], [given_of({}), given_of(FULL), given_of({})])
    found = lookup.read_now(rows, now=NOW, wall=WALL)
    assert [(at, type(error), error.field) for at, error in sorted(found.failed.items())] == [
        (0, BadRequest, "card"),
        (2, BadRequest, "shop"),
    ]
    assert found.values[1][0] == 3


def test_where_everything_is_given_nothing_is_read() -> None:
    entities = (Entity((SHOP,), (SALES,)),)
    plan = ReadPlan(1, "p", 3, 20.0, "default", entities, entity_columns(entities))
    for aged in (False, True):
        lookup = open_lookup(plan, "redis://nobody.invalid:1/0", REQUEST, Path("features.py"), aged=aged, given=True)
        assert lookup.inline
        for count in (0, 1, 3):
            rows = GivenRows([(1.0, 1, "a")] * count, [(at,) for at in range(count)])
            found = lookup.read_now(rows, now=NOW, wall=WALL)
            assert [*found.values] == [(at,) for at in range(count)]
            assert found.row_ages == ([(0.0,)] * count if aged else None)
            assert found.ages == {"sales": 0.0}


def test_a_store_that_is_down_takes_nothing_of_what_is_given() -> None:
    plan = make_plan()

    class Down(MemoryStore):
        def read_now(self, keys: Any, deadline: float) -> Any:  # noqa: ARG002
            return super().read_now(keys, -1.0)

    lookup = GivenLookup(plan, Down(unaggregated(plan)), REQUEST)
    found = lookup.read_now(GivenRows([(1.0, 1, "a")], [given_of(FULL)]), now=NOW, wall=WALL)
    assert found.values == [(3, 2.0, 2.5, 0.5, 12)]
    assert found.defaulted == [("risk",)]


def test_every_way_of_reading_lays_them_over() -> None:
    plan = make_plan()
    lookup = GivenLookup(plan, MemoryStore(unaggregated(plan)), REQUEST)
    rows, heard = GivenRows([(1.0, 1, "a")], [given_of(FULL)]), list[Any]()

    async def run() -> Features:
        lookup.ask(rows, now=NOW, wall=WALL, told=heard.append)
        lookup.ask([(1.0, 1, "a")], now=NOW, wall=WALL, told=heard.append)
        found = await lookup.read(rows, now=NOW, wall=WALL)
        while len(heard) < 2:
            await asyncio.sleep(0)
        return found

    found = asyncio.run(run())
    assert found.values == heard[0].values == [(3, 2.0, 2.5, 0.5, 12)]
    assert isinstance(heard[1], TypeError)
    with pytest.raises(TypeError, match="come without values"):
        lookup.read_now([(1.0, 1, "a")], now=NOW, wall=WALL)
    assert lookup.recall(rows, wall=WALL) is None


MADE = OnDemand(
    "made", "view", True, (Input(("n",), "n", "INT64"), Input(("most",), "most", "DOUBLE")),
    (Feature("share", "share", "DOUBLE", -1.0),),
)  # fmt: skip


@pytest.mark.parametrize("aged", [False, True])
@pytest.mark.parametrize("unseen", [(), ("n", "sold")])
def test_on_demand_views_see_what_is_given(unseen: tuple[str, ...], aged: bool) -> None:
    plan = make_plan()
    columns = plan_columns(plan.entities, (MADE,), unseen)
    plan = msgspec.structs.replace(plan, on_demand=(MADE,), unseen=unseen, columns=columns)
    makers = {"view": lambda: lambda given: {"share": None if given["most"] is None else given["most"] / given["n"]}}
    whole = MemoryStore(plan)
    card, shop = key_maker([CARD], {"card": 0}), key_maker([SHOP], {"shop": 0})
    rows = [(1.0, 1, "a"), (1.0, 2, "b")]
    values: list[dict[str, float | None]] = [FULL, {"n": 3, "sold": 1}]
    for (_, card_id, shop_id), found in zip(rows, values, strict=True):
        for view, key in ((RECENT, card((card_id,))), (SALES, shop((shop_id,)))):
            stored = {f.name: ENCODE[f.value_type](found[f.name]) for f in view.features if f.name in found}
            whole.put(view.stored, key, stored, WALL)
    plain = (AgedDerivedLookup if aged else DerivedLookup)(plan, whole, REQUEST, makers)
    kind = AgedGivenDerivedLookup if aged else GivenDerivedLookup
    overlaid = kind(plan, MemoryStore(unaggregated(plan)), REQUEST, makers)
    assert (plain.columns, plain.views) == (overlaid.columns, overlaid.views)

    async def run() -> list[Features]:
        given = GivenRows(rows, [given_of(found) for found in values])
        found = [await each.read(asked, now=NOW, wall=WALL) for each, asked in ((overlaid, given), (plain, rows))]
        for each in (overlaid, plain):
            await each.close()
        return found

    one, other = asyncio.run(run())
    same(one, other)
    assert one.values[0][-1] == pytest.approx(2 / 3)


def test_decoders_of_the_store_agree_on_what_was_stored() -> None:
    for kind, encode in ENCODE.items():
        assert decoder(kind)(encode(3)) == as_stored(kind)(3)


def test_a_candidate_has_what_its_record_was_given() -> None:
    request = (Field("card", "int64"), Field("items", "int64[]"))
    ranking = Ranking(request, listed="items", item="item", by="score", top=2, retrieves=True)
    rows = GivenRows([(1, [7, 3, 7]), (2, None), (3, [])], [(1.0,), (2.0,), (3.0,)])
    call = Call(id="r", rows=rows, count=3, deadline=math.inf)
    call = ranking.completed(call, [1], np.array([[5, 6]]))
    expanded = ranking.expand(call).call
    assert expanded.rows == [(1, 7), (1, 3), (2, 5), (2, 6)]
    assert isinstance(expanded.rows, GivenRows)
    assert expanded.rows.given == [(1.0,), (1.0,), (2.0,), (2.0,)]
