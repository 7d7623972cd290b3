"""A plan with an aggregated view and what is written into it, for tests of what writes features."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from tests.store_fill import create_postgres_tables

from sunup.lookup.keys import key_maker
from sunup.lookup.plan import Entity, Feature, JoinKey, ReadPlan, View, entity_columns
from sunup.lookup.writing.writer import Write
from sunup.types import Aggregated, Aggregation

CARD = JoinKey("card", "card", "STRING")
USER = JoinKey("user_id", "user_id", "INT64")
SCALARS = ("INT32", "INT64", "DOUBLE", "FLOAT", "BOOL", "UNIX_TIMESTAMP", "STRING", "BYTES")
AT = 1_700_000_000.0

card_key = key_maker([CARD], {"card": 0})
pair_key = key_maker([CARD, USER], {"card": 0, "user_id": 1})


def aggregated(*features: str) -> Aggregated:
    """Sums of an hour."""
    sums = tuple(Aggregation(feature, "sum", "amount", 3600) for feature in features)
    return Aggregated("transactions", "at", 60, 60.0, "", sums)


def view(name: str, kinds: Sequence[str], stored: str = "") -> View:
    features = tuple(Feature(f"f_{kind.lower()}", f"{name}_{kind.lower()}", kind) for kind in kinds)
    how = aggregated(*(feature.name for feature in features))
    return View(name, stored or name, None, None, features, aggregated=how)


ENTITIES = (
    Entity((CARD,), (view("stats", ("INT64", "DOUBLE")), view("od\"d's", SCALARS, stored="od\"d's_v2"))),
    Entity((CARD, USER), (view("päirs", ("FLOAT",)),)),
)
PLAN = ReadPlan(1, "prö ject", 3, 1000.0, "default", ENTITIES, entity_columns(ENTITIES))


def version(number: int, *, epoch: int = 1) -> bytes:
    """As tiles have it: epoch, offset, hop."""
    return epoch.to_bytes(4, "big") + number.to_bytes(8, "big") + bytes(4)


def rows(count: int, number: int, *, first: int = 0, at: float = AT) -> list[Write]:
    """Of view `stats`: card n has the values n + `number` and half of that."""
    return [
        Write(card_key((f"kärd {n}",)), (n + number, (n + number) / 2), at, version(number))
        for n in range(first, first + count)
    ]


def make_sqlite_tables(path: Path) -> None:
    """Empty tables, as `feast apply` of 0.67 makes them."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for each in PLAN.views:
            name = f"{PLAN.project}_{each.stored}".replace('"', '""')
            connection.execute(f'DROP TABLE IF EXISTS "{name}"')
            connection.execute(
                f'CREATE TABLE "{name}" (entity_key BLOB, feature_name TEXT, value BLOB, value_text TEXT, '
                "vector_value BLOB, event_ts timestamp, created_ts timestamp, PRIMARY KEY(entity_key, feature_name))"
            )
            connection.execute(f'CREATE INDEX "{name}_ek" ON "{name}" (entity_key)')


def make_postgres_tables(client: "psycopg.Connection[Any]") -> None:
    """The same there."""
    for each in PLAN.views:
        client.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(f"{PLAN.project}_{each.stored}")))
    create_postgres_tables(client, PLAN)
