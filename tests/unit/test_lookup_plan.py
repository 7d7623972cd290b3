"""features.json: equal plans give equal bytes; what is not understood is refused."""

import json
import math
from dataclasses import dataclass
from typing import Any

import pytest

from sunup.errors import BundleDamaged, UsageError
from sunup.lookup.plan import Entity, Feature, JoinKey, ReadPlan, View, digest, dump, entity_columns, load
from sunup.lookup.stores.open import open_store
from sunup.lookup.stores.redis.address import parse_address

CARD = Entity(
    (JoinKey("card_id", "card_id", "INT64"),),
    (
        View(
            "card_stats",
            "card_stats_v2",
            86400.0,
            900.0,
            (
                Feature("count", "count", "INT64", 0),
                Feature("mean", "mean", "DOUBLE"),
                Feature("tags", "tags", "STRING_LIST", ["a"]),
            ),
        ),
    ),
)


def plan_of(*entities: Entity) -> ReadPlan:
    return ReadPlan(1, "shop", 3, 20.0, "default", entities, entity_columns(entities))


def test_a_plan_survives_its_bytes() -> None:
    plan = plan_of(CARD)
    assert load(dump(plan)) == plan
    assert dump(load(dump(plan))) == dump(plan)
    assert digest(load(dump(plan))) == digest(plan)
    assert len(digest(plan)) == 64


def test_columns_carry_dtype_and_shape() -> None:
    assert [(c.name, c.dtype, c.shape) for c in plan_of(CARD).columns] == [
        ("count", "int64", ()),
        ("mean", "float64", ()),
        ("tags", "string[]", (-1,)),
    ]


def test_a_view_is_stale_at_the_shorter_bound() -> None:
    assert CARD.views[0].age_s_max == 900.0
    assert View("v", "v", None, None, ()).age_s_max == math.inf


@dataclass
class Change:
    """One edit of a good features.json and what the refusal must say."""

    path: tuple[Any, ...]
    value: Any
    says: str


@pytest.mark.parametrize(
    "change",
    [
        Change(("version",), 2, "format 2"),
        Change(("key_version",), 2, "serialisation 2"),
        Change(("entities", 0, "views", 0, "features", 0, "value_type"), "MAP", "MAP"),
        Change(("entities", 0, "join_keys", 0, "value_type"), "DOUBLE", "DOUBLE"),
        Change(("columns",), [], "columns"),
        Change(("on_missing",), "guess", "on_missing"),
        Change(("surprise",), 1, "surprise"),
    ],
    ids=lambda change: change.says,
)
def test_a_plan_that_is_not_understood_is_refused(change: Change) -> None:
    plan = json.loads(dump(plan_of(CARD)))
    target = plan
    for step in change.path[:-1]:
        target = target[step]
    target[change.path[-1]] = change.value
    with pytest.raises(BundleDamaged, match=change.says):
        load(json.dumps(plan).encode())


def test_bytes_that_are_no_json_are_refused() -> None:
    with pytest.raises(BundleDamaged, match="not a read plan"):
        load(b"{")


def test_addresses_are_read_and_hide_their_password() -> None:
    address = parse_address("redis://me:p%40ss@there:7000/3")
    assert (address.host, address.port, address.db) == ("there", 7000, 3)
    assert (address.username, address.password) == ("me", "p@ss")
    assert "p@ss" not in repr(address)
    assert parse_address("redis://here").port == 6379
    assert parse_address("rediss://here?ssl_cert_reqs=none").tls is not None


@pytest.mark.parametrize(
    "url",
    [
        "postgres://x/y",
        "sqlite:",
        "redis://here/zero",
        "redis://here?sentinel=1",
        "rediss://here?ssl_cert_reqs=maybe",
        "online.db",
    ],
)
def test_urls_that_cannot_be_read_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="Give"):
        open_store(url, plan_of(CARD))


def test_open_store_touches_nothing() -> None:
    for url in ("sqlite:///nowhere/at/all.db", "redis://127.0.0.1:1/0", "memory:"):
        assert "Store" in repr(open_store(url, plan_of(CARD)))
