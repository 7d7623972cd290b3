"""One user and 500 candidates are one read of the online store: on Redis and PostgreSQL one round trip, on
SQLite one visit."""

import asyncio
import math
import select
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
from tests.ports import free_port
from tests.postgres_fixture import PostgresServer
from tests.redis_fixture import RedisServer
from tests.store_fill import USER, create_postgres_tables, int64, put_postgres, put_redis, put_sqlite, user_key, view

from sunup.batch.rank import Ranking
from sunup.limits import CANDIDATES_MAX
from sunup.lookup.join import Lookup
from sunup.lookup.keys import key_maker
from sunup.lookup.plan import Entity, JoinKey, ReadPlan, entity_columns
from sunup.lookup.stores.open import open_store
from sunup.types import Call, Features, Field

ITEM = JoinKey("item_id", "item_id", "INT64")
ENTITIES = (Entity((USER,), (view("stats", "count"),)), Entity((ITEM,), (view("items", "views", "price"),)))
PLAN = ReadPlan(1, "contract", 3, 5000.0, "default", ENTITIES, entity_columns(ENTITIES))
REQUEST = (Field("user_id", "int64"), Field("items", "int64[]", (-1,)))
ROW = (Field("user_id", "int64"), Field("item_id", "int64"))
AT = 1_700_000_000.0
QUIET_SECONDS = 0.1  # nothing more of a request comes after so long
item_key = key_maker([ITEM], {"item_id": 0})


class Patient:
    """A proxy that passes replies on once the client has nothing more to say: each time it does is a round trip."""

    def __init__(self, port: int) -> None:
        self.port = free_port()
        self.round_trips = 0
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._server_port = port
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        with client, socket.create_connection(("127.0.0.1", self._server_port)) as server:
            held = bytearray()
            while True:
                ready, _, _ = select.select([client, server], [], [], QUIET_SECONDS if held else None)
                if server in ready:
                    held += server.recv(1 << 16)
                if client in ready:
                    data = client.recv(1 << 16)
                    if not data:
                        return
                    server.sendall(data)
                if not ready:
                    self.round_trips += 1
                    client.sendall(held)
                    held.clear()


def read(url: str, before: Callable[[], None] = lambda: None) -> Features:
    """The features of user 1 with every candidate, on a connection that was there before."""
    call = Call("r", [(1, list(range(CANDIDATES_MAX)))], 1, math.inf)
    expanded = Ranking(REQUEST, listed="items", item="item_id", by="score", top=10).expand(call)
    assert len(expanded.call.rows) == CANDIDATES_MAX

    async def once() -> Features:
        lookup = Lookup(PLAN, open_store(url, PLAN), ROW)
        await lookup.open()
        try:
            before()
            return await lookup.read(expanded.call.rows, now=time.monotonic(), wall=AT)
        finally:
            await lookup.close()

    return asyncio.run(once())


def check(found: Features) -> None:
    assert not found.failed
    assert found.defaulted is None
    assert list(found.values) == [(7, item + 1, 2) for item in range(CANDIDATES_MAX)]


@pytest.fixture
def server(redis_server: RedisServer) -> RedisServer:
    with redis_server.client() as client:
        put_redis(client, "stats", user_key((1,)), {"count": int64(7)}, AT)
        for item in range(CANDIDATES_MAX):
            put_redis(client, "items", item_key((item,)), {"views": int64(item + 1), "price": int64(2)}, AT)
    return redis_server


def test_redis_is_asked_once(server: RedisServer) -> None:
    with closing(Patient(server.port)) as proxy, server.client() as client:
        before = 0

        def note() -> None:
            nonlocal before
            before = proxy.round_trips
            client.config_resetstat()

        check(read(f"redis://127.0.0.1:{proxy.port}/0", note))
        assert proxy.round_trips - before == 1
        counted = commands(client)
        assert counted["hmget"] == CANDIDATES_MAX + 1, "a key each for the user and the candidates, none twice"
        assert set(counted) <= {"hmget", "info", "config|resetstat"}


def commands(client: "redis.Redis") -> dict[str, int]:
    said: Any = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): stats["calls"] for name, stats in said.items()}


def test_postgresql_is_asked_once(postgres_server: PostgresServer) -> None:
    with postgres_server.client() as client:
        create_postgres_tables(client, PLAN)
        put_postgres(client, "stats", user_key((1,)), {"count": int64(7)}, AT)
        for item in range(CANDIDATES_MAX):
            put_postgres(client, "items", item_key((item,)), {"views": int64(item + 1), "price": int64(2)}, AT)
    with closing(Patient(postgres_server.port)) as proxy:
        before = 0

        def note() -> None:
            nonlocal before
            before = proxy.round_trips

        check(read(postgres_server.url.replace(f":{postgres_server.port}/", f":{proxy.port}/"), note))
        assert proxy.round_trips - before == 1


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "online.db"
    columns = "entity_key BLOB, feature_name TEXT, value BLOB, event_ts timestamp, created_ts timestamp"
    with closing(sqlite3.connect(path)) as connection:
        for name in ("stats", "items"):
            connection.execute(f'CREATE TABLE "contract_{name}" ({columns}, PRIMARY KEY(entity_key, feature_name))')
    put_sqlite(path, "stats", user_key((1,)), {"count": int64(7)}, AT)
    for item in range(CANDIDATES_MAX):
        put_sqlite(path, "items", item_key((item,)), {"views": int64(item + 1), "price": int64(2)}, AT)
    return path


def test_sqlite_is_visited_once(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store: Any = open_store(f"sqlite://{database}", PLAN)
    visits: list[list[int]] = []
    whole = type(store).read

    async def counted(self: Any, keys: Any, deadline: float) -> Any:
        visits.append([len(wanted) for wanted in keys])
        return await whole(self, keys, deadline)

    monkeypatch.setattr(type(store), "read", counted)
    check(read(f"sqlite://{database}"))
    assert visits == [[1, CANDIDATES_MAX]]
