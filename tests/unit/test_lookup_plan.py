"""features.json: equal plans give equal bytes; what is not understood is refused."""

import json
import math
from dataclasses import dataclass
from typing import Any

import pytest

from sunup.errors import BundleDamaged, UsageError
from sunup.lookup.plan import Entity, Feature, JoinKey, ReadPlan, View, digest, dump, entity_columns, load
from sunup.lookup.stores.open import open_store
from sunup.lookup.stores.redis.address import Address, Cluster, Sentinels, parse_place

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
    address = parse_place("redis://me:p%40ss@there:7000/3")
    assert isinstance(address, Address)
    assert (address.host, address.port, address.db) == ("there", 7000, 3)
    assert (address.username, address.password) == ("me", "p@ss")
    assert "p@ss" not in repr(address)
    assert parse_place("redis://here") == Address("here", 6379)
    secured = parse_place("rediss://here?ssl_cert_reqs=none")
    assert isinstance(secured, Address)
    assert secured.tls is not None


def test_sentinels_and_clusters_are_read() -> None:
    asked = parse_place("redis-sentinel://:p%2Cw@one:1,two,[::1]:3/2?master=fraud&sentinel_password=s")
    assert isinstance(asked, Sentinels)
    assert [(each.host, each.port, each.password) for each in asked.sentinels] == [
        ("one", 1, "s"),
        ("two", 26379, "s"),
        ("::1", 3, "s"),
    ]
    assert (asked.name, asked.data.db, asked.data.password, asked.data.tls) == ("fraud", 2, "p,w", None)
    assert "p,w" not in repr(asked)
    cluster = parse_place("rediss-cluster://me:pw@one:7001,two:7002?ssl_cert_reqs=none")
    assert isinstance(cluster, Cluster)
    assert [(each.host, each.port, each.username) for each in cluster.seeds] == [
        ("one", 7001, "me"),
        ("two", 7002, "me"),
    ]
    assert all(each.tls is not None for each in cluster.seeds)
    assert "pw" not in repr(cluster)
    secured = parse_place("rediss-sentinel://one?ssl_cert_reqs=none")
    assert isinstance(secured, Sentinels)
    assert secured.data.tls is not None
    assert secured.sentinels[0].tls is None  # as Feast's client has it
    both = parse_place("redis-sentinel://one?sentinel_ssl=true&ssl_cert_reqs=none")
    assert isinstance(both, Sentinels)
    assert both.data.tls is None
    assert both.sentinels[0].tls is not None


@pytest.mark.parametrize(
    "url",
    [
        "postgres://x/y",
        "sqlite:",
        "redis://here/zero",
        "redis://here?sentinel=1",
        "rediss://here?ssl_cert_reqs=maybe",
        "redis://one:1,two:2/0",
        "redis-cluster://one:1/3",
        "redis-cluster://one:99999",
        "redis-sentinel://one:1?sentinel_ssl=maybe",
        "redis-sentinel://one:x",
        "online.db",
    ],
)
def test_urls_that_cannot_be_read_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="Give"):
        open_store(url, plan_of(CARD))


def test_open_store_touches_nothing() -> None:
    for url in (
        "sqlite:///nowhere/at/all.db",
        "redis://127.0.0.1:1/0",
        "redis-sentinel://h",
        "redis-cluster://h",
        "memory:",
    ):
        assert "Store" in repr(open_store(url, plan_of(CARD)))
