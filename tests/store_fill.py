"""One plan and one way to put values into each kind of online store, written from the documented layouts."""

import sqlite3
import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mmh3
import psycopg
import redis
from psycopg import sql

from sunup.lookup.keys import key_maker
from sunup.lookup.plan import Entity, Feature, JoinKey, ReadPlan, View, entity_columns

USER = JoinKey("user_id", "user_id", "INT64")
SHOP = JoinKey("shop", "shop", "STRING")


def view(name: str, *features: str, stored: str = "") -> View:
    return View(name, stored or name, None, None, tuple(Feature(each, each, "INT64") for each in features))


ENTITIES = (
    Entity((USER,), (view("stats", "count", "own_id", stored="stats_v2"), view('od"d', "risk"))),
    Entity((SHOP,), (view("shops", "size"),)),
)
PLAN = ReadPlan(1, "contract", 3, 20.0, "default", ENTITIES, entity_columns(ENTITIES))

user_key = key_maker([USER], {"user_id": 0})
shop_key = key_maker([SHOP], {"shop": 0})


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def int64(value: int) -> bytes:
    """A Value holding a whole number from 0."""
    return b"\x20" + varint(value)


def create_tables(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        for each in PLAN.views:
            table = f"{PLAN.project}_{each.stored}".replace('"', '""')
            connection.execute(
                f'CREATE TABLE IF NOT EXISTS "{table}" (entity_key BLOB, feature_name TEXT, value BLOB, '
                "event_ts timestamp, created_ts timestamp, PRIMARY KEY(entity_key, feature_name))"
            )
    connection.close()


def put_sqlite(path: Path, stored: str, key: bytes, values: Mapping[str, bytes], at: float) -> None:
    """Write as Feast does: event_ts is the epoch of the naive UTC time read as local time."""
    shifted = int(datetime.fromtimestamp(at, UTC).replace(tzinfo=None).timestamp())
    table = f"{PLAN.project}_{stored}".replace('"', '""')
    rows = [(key, name, value, shifted) for name, value in values.items()]
    with sqlite3.connect(path) as connection:
        connection.executemany(
            f'INSERT OR REPLACE INTO "{table}" (entity_key, feature_name, value, event_ts) VALUES (?, ?, ?, ?)', rows
        )
    connection.close()


def put_redis(client: "redis.Redis", stored: str, key: bytes, values: Mapping[str, bytes], at: float) -> None:
    fields: dict[bytes, bytes] = {
        struct.pack("<I", mmh3.hash(f"{stored}:{name}", signed=False)): value for name, value in values.items()
    }
    fields[f"_ts:{stored}".encode()] = b"\x08" + varint(int(at))
    client.hset(name=key + PLAN.project.encode(), mapping=fields)  # type: ignore[arg-type]


def create_postgres_tables(client: "psycopg.Connection[Any]", plan: ReadPlan = PLAN) -> None:
    for each in plan.views:
        client.execute(
            sql.SQL(
                "CREATE TABLE IF NOT EXISTS {} (entity_key BYTEA, feature_name TEXT, value BYTEA, "
                "value_text TEXT NULL, vector_value BYTEA NULL, event_ts TIMESTAMPTZ, created_ts TIMESTAMPTZ, "
                "PRIMARY KEY(entity_key, feature_name))"
            ).format(sql.Identifier(f"{plan.project}_{each.stored}"))
        )


def put_postgres(
    client: "psycopg.Connection[Any]", stored: str, key: bytes, values: Mapping[str, bytes], at: float
) -> None:
    """Write as Feast does: event_ts is a naive UTC time, which the server reads as one of its session's time zone."""
    naive = datetime.fromtimestamp(at, UTC).replace(tzinfo=None)
    command = sql.SQL(
        "INSERT INTO {} (entity_key, feature_name, value, event_ts) VALUES (%s, %s, %s, %s) "
        "ON CONFLICT (entity_key, feature_name) DO UPDATE SET value = EXCLUDED.value, event_ts = EXCLUDED.event_ts"
    ).format(sql.Identifier(f"{PLAN.project}_{stored}"))
    with client.cursor() as cursor:
        cursor.executemany(command, [(key, name, value, naive) for name, value in values.items()])
