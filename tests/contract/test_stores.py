"""What every online store must do, the same tests on the stub and on the real ones."""

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import redis
import uvloop
from tests.postgres_fixture import PostgresServer
from tests.store_fill import (
    PLAN,
    create_postgres_tables,
    create_tables,
    int64,
    put_postgres,
    put_redis,
    put_sqlite,
    shop_key,
    user_key,
)

from sunup.limits import SQLITE_KEYS_PER_STATEMENT
from sunup.lookup.store import Answer, Keys, Store, StoreUnavailable
from sunup.lookup.stores.memory import MemoryStore
from sunup.lookup.stores.open import open_store

Put: TypeAlias = Callable[[str, bytes, Mapping[str, bytes], float], None]
AT = 1_700_000_000.0
TOPOLOGIES = ("redis_sentinels", "redis_cluster", "redis_secured")  # fixtures of tests/redis_topologies.py
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=["memory", "sqlite", "redis", *TOPOLOGIES, "postgres"])
def store_and_put(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Store, Put]]:
    """A store of PLAN and a function that puts values into it."""
    if request.param == "memory":
        memory = MemoryStore(PLAN)
        yield memory, memory.put
    elif request.param == "sqlite":
        path = tmp_path / "önline ?.db"
        create_tables(path)
        url = f"sqlite://{str(path).replace('?', '%3F')}"
        yield open_store(url, PLAN), lambda *each: put_sqlite(path, *each)
    elif request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        with server.client() as connection:
            create_postgres_tables(connection)
            yield open_store(server.url, PLAN), lambda *each: put_postgres(connection, *each)
    elif request.param in TOPOLOGIES:
        servers = request.getfixturevalue(request.param)
        with servers.client() as client:
            client.flushall()
            yield open_store(servers.url, PLAN), lambda *each: put_redis(client, *each)
    else:
        url = request.getfixturevalue("redis_url")
        with redis.Redis.from_url(url) as client:
            client.flushdb()
            yield open_store(url, PLAN), lambda *each: put_redis(client, *each)


@pytest.fixture(params=list(LOOPS))
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        yield runner.run


async def read_once(store: Store, keys: Keys, deadline: float | None = None) -> Answer:
    """Open, read (in every way the store has, which must agree) and close."""
    await store.open()
    try:
        at = time.monotonic() + 5 if deadline is None else deadline
        answer = await store.read(keys, at)
        assert await told(store, keys, at) == answer
        if store.inline:
            assert store.read_now(keys, at) == answer
        return answer
    finally:
        await store.close()


def told(store: Store, keys: Keys, deadline: float) -> "asyncio.Future[Answer]":
    """What `ask` tells."""
    future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def hear(answer: Answer | Exception) -> None:
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    store.ask(keys, deadline, hear)
    assert not future.done()
    return future


def test_values_come_back_by_view_and_feature(store_and_put: tuple[Store, Put], run: Any) -> None:
    store, put = store_and_put
    put("stats_v2", user_key((7,)), {"count": int64(3), "own_id": int64(7)}, AT)
    put('od"d', user_key((7,)), {"risk": b""}, AT + 1)
    put("shops", shop_key(("käse",)), {"size": int64(300)}, AT + 2)
    answer = run(read_once(store, [[user_key((7,))], [shop_key(("käse",))]]))
    assert answer == [[[int64(3), int64(7), AT, b"", AT + 1]], [[int64(300), AT + 2]]]


def test_what_is_not_stored_is_none(store_and_put: tuple[Store, Put], run: Any) -> None:
    store, put = store_and_put
    put("stats_v2", user_key((7,)), {"count": int64(3)}, AT)
    answer = run(read_once(store, [[user_key((7,)), user_key((8,))], [shop_key(("x",))]]))
    assert answer == [[[int64(3), None, AT, None, None], [None] * 5], [[None, None]]]


def test_features_the_plan_does_not_use_are_left_alone(store_and_put: tuple[Store, Put], run: Any) -> None:
    store, put = store_and_put
    put("shops", shop_key(("x",)), {"size": int64(1), "other": int64(2)}, AT)
    assert run(read_once(store, [[user_key((1,))], [shop_key(("x",))]]))[1] == [[int64(1), AT]]


def test_many_keys_keep_their_order(store_and_put: tuple[Store, Put], run: Any) -> None:
    store, put = store_and_put
    count = 2 * SQLITE_KEYS_PER_STATEMENT + 3
    for user in range(count):
        put("stats_v2", user_key((user,)), {"own_id": int64(user)}, AT + user)
    users = [*range(count)[::-1], count + 1]
    answer = run(read_once(store, [[user_key((user,)) for user in users], []]))
    assert answer[0][:-1] == [[None, int64(user), AT + user, None, None] for user in users[:-1]]
    assert answer[0][-1] == [None] * 5
    assert answer[1] == []


def test_no_keys_are_no_answers(store_and_put: tuple[Store, Put], run: Any) -> None:
    assert run(read_once(store_and_put[0], [[], []])) == [[], []]


def test_a_read_past_its_deadline_is_refused(store_and_put: tuple[Store, Put], run: Any) -> None:
    with pytest.raises(StoreUnavailable, match="deadline"):
        run(read_once(store_and_put[0], [[user_key((1,))], []], deadline=time.monotonic() - 1))


def test_who_asks_is_told_that_the_deadline_passed(store_and_put: tuple[Store, Put], run: Any) -> None:
    async def ask() -> None:
        await store_and_put[0].open()
        try:
            await told(store_and_put[0], [[user_key((1,))], []], time.monotonic() - 1)
        finally:
            await store_and_put[0].close()

    with pytest.raises(StoreUnavailable, match="deadline"):
        run(ask())


def test_who_left_is_not_told_and_the_others_get_their_own(store_and_put: tuple[Store, Put], run: Any) -> None:
    store, put = store_and_put
    put("shops", shop_key(("x",)), {"size": int64(1)}, AT)
    put("shops", shop_key(("y",)), {"size": int64(2)}, AT)

    async def ask() -> Answer:
        await store.open()
        until, heard = time.monotonic() + 5, list[Any]()
        store.ask([[], [shop_key(("x",))]], until, heard.append).cancel()
        answer = await told(store, [[], [shop_key(("y",))]], until)
        await store.close()
        assert heard == []
        return answer

    assert run(ask())[1] == [[int64(2), AT]]


def test_an_answer_belongs_to_its_caller(store_and_put: tuple[Store, Put], run: Any) -> None:
    """Changing what one read gave must not change the next."""
    store, put = store_and_put
    put("shops", shop_key(("x",)), {"size": int64(1)}, AT)

    async def twice() -> tuple[Answer, Answer]:
        await store.open()
        keys = [[user_key((1,))], [shop_key(("x",))]]
        first = await store.read(keys, math.inf if store.inline else time.monotonic() + 5)
        first[1][0].clear()
        second = await store.read(keys, time.monotonic() + 5)
        await store.close()
        return first, second

    assert run(twice())[1][1] == [[int64(1), AT]]


def test_a_closed_store_opens_again(store_and_put: tuple[Store, Put], run: Any) -> None:
    store, put = store_and_put
    put("shops", shop_key(("x",)), {"size": int64(1)}, AT)
    for _ in range(2):
        assert run(read_once(store, [[], [shop_key(("x",))]]))[1] == [[int64(1), AT]]


def test_a_store_says_what_it_is(store_and_put: tuple[Store, Put]) -> None:
    assert "Store" in repr(store_and_put[0])
