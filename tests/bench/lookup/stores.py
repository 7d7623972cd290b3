"""The online stores of the bench of lookups: a server of its own on the server core, or a file."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import psutil
from tests.bench import harness
from tests.postgres_fixture import DATABASE, PASSWORD, USER, PostgresServer
from tests.redis_fixture import RedisServer


class Store(NamedTuple):
    """`online_store`: that part of feature_store.yaml. `floor`: the program that reads it by hand."""

    online_store: str
    floor: str


@contextmanager
def _redis(folder: Path) -> Iterator[Store]:
    server = RedisServer(folder)
    server.start()
    try:
        harness.pin([server.pid], harness.SERVER_CORE)
        yield Store(f'{{type: redis, connection_string: "127.0.0.1:{server.port}"}}', "floor.lookup_redis")
    finally:
        server.stop()


@contextmanager
def _sqlite(_: Path) -> Iterator[Store]:
    yield Store("{type: sqlite, path: online.db}", "floor.lookup_sqlite")


@contextmanager
def _postgres(_: Path) -> Iterator[Store]:
    server = PostgresServer()
    try:
        server.create()
        server.start()
        harness.pin([server.pid, *(each.pid for each in psutil.Process(server.pid).children())], harness.SERVER_CORE)
        who = f'user: "{USER}", password: "{PASSWORD}", sslmode: disable'
        where = f"host: 127.0.0.1, port: {server.port}, database: {DATABASE}, db_schema: public"
        yield Store(f"{{type: postgres, {where}, {who}}}", "floor.lookup_postgres")
    finally:
        server.stop()


STORES: Final[Mapping[str, Callable[[Path], AbstractContextManager[Store]]]] = {
    "redis": _redis,
    "sqlite": _sqlite,
    "postgres": _postgres,
}
