"""A store with a cache around it, over every real store: what is written is seen when its time has come, no sooner."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import msgspec
import pytest
from tests.contract.test_stores import Put, read_once, store_and_put
from tests.redis_fixture import RedisServer
from tests.store_fill import PLAN, int64, put_redis, shop_key, user_key

from sunup.clock import ManualClock
from sunup.lookup.cache import CachedStore
from sunup.lookup.join import Lookup
from sunup.lookup.plan import ReadPlan, entity_columns
from sunup.lookup.store import Answer, Store
from sunup.lookup.stores.open import open_store
from sunup.types import Features, Field

__all__ = ["store_and_put"]

WALL = 1_700_000_000.0
REQUEST = [Field("user_id", "int64"), Field("shop", "string")]
USER, SHOP = (7, "käse"), "käse"


def plan_of(cache_s: float | None, ttl_s: float | None = None) -> ReadPlan:
    """The plan the stores were made for, every view of it with a cache; a store looks at neither time."""
    replace = msgspec.structs.replace
    entities = tuple(
        replace(entity, views=tuple(replace(view, cache_s=cache_s, ttl_s=ttl_s) for view in entity.views))
        for entity in PLAN.entities
    )
    return replace(PLAN, entities=entities, columns=entity_columns(entities))


class Case:
    """A real store behind a cache, whose time is told; and a lookup that uses both."""

    def __init__(self, store: Store, put: Put, *, ttl_s: float | None = None) -> None:
        plan = plan_of(10.0, ttl_s)
        self.clock = ManualClock(wall=WALL)
        self.store = CachedStore(store, plan, clock=self.clock)
        self._lookup = Lookup(plan, self.store, REQUEST)
        self._put = put

    def write(self, count: int, size: int) -> None:
        """As Feast writes it: the values, with the time they are of."""
        self._put("stats_v2", user_key(USER), {"count": int64(count), "own_id": int64(7)}, self.clock.wall())
        self._put('od"d', user_key(USER), {"risk": int64(count)}, self.clock.wall())
        self._put("shops", shop_key((SHOP,)), {"size": int64(size)}, self.clock.wall())

    async def read(self) -> Features:
        now = time.monotonic() + 5  # the stores look at the real clock, and the plan's deadline is 20 ms from this one
        return await self._lookup.read([USER], now=now, wall=self.clock.wall())


@pytest.fixture
def run() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    with asyncio.Runner() as runner:
        yield runner.run


def test_it_keeps_the_contract_of_what_it_is_around(store_and_put: tuple[Store, Put], run: Any) -> None:
    store, put = store_and_put
    put("stats_v2", user_key((7,)), {"count": int64(3)}, WALL)
    cached = CachedStore(store, plan_of(10.0), clock=ManualClock(wall=WALL))
    keys = [[user_key((7,)), user_key((8,))], [shop_key(("x",))]]
    expected: Answer = [[[int64(3), None, WALL, None, None], [None] * 5], [[None, None]]]
    assert run(read_once(cached, keys)) == expected
    assert cached.recall(keys) == expected
    assert run(read_once(cached, keys)) == expected
    assert run(read_once(cached, [[user_key((9,)), user_key((7,))], []])) == [[[None] * 5, expected[0][0]], []]


def test_what_is_written_is_seen_when_the_time_has_come(store_and_put: tuple[Store, Put], run: Any) -> None:
    case = Case(*store_and_put)

    async def follow() -> None:
        await case.store.open()
        case.write(1, 10)
        assert (await case.read()).values == ((1, 7, 1, 10),)
        case.clock.advance(4.0)
        case.write(2, 20)
        found = await case.read()
        assert (found.values, set(found.ages.values())) == (((1, 7, 1, 10),), {4.0})
        case.clock.advance(6.0)
        found = await case.read()
        assert (found.values, set(found.ages.values())) == (((2, 7, 2, 20),), {6.0})
        await case.store.close()

    run(follow())


def test_ttl_wins_over_the_cache(store_and_put: tuple[Store, Put], run: Any) -> None:
    case = Case(*store_and_put, ttl_s=6.0)

    async def follow() -> None:
        await case.store.open()
        case.write(1, 10)
        assert (await case.read()).values == ((1, 7, 1, 10),)
        case.clock.advance(7.0)  # of 10 s in the cache
        assert (await case.read()).stale == [("count", "own_id", "risk", "size")]
        case.write(2, 20)
        case.clock.advance(10.0)
        case.write(3, 30)
        found = await case.read()
        assert (found.values, found.stale) == (((3, 7, 3, 30),), None)
        await case.store.close()

    run(follow())


def test_a_store_that_is_gone_is_not_missed_for_that_time(redis_server: RedisServer, run: Any) -> None:
    client = redis_server.client()
    case = Case(open_store(redis_server.url, PLAN), lambda *each: put_redis(client, *each))

    async def follow() -> None:
        await case.store.open()
        case.write(1, 10)
        await case.read()
        client.close()
        redis_server.stop()
        assert (await case.read()).values == ((1, 7, 1, 10),)
        case.clock.advance(10.0)
        assert (await case.read()).defaulted == [("count", "own_id", "risk", "size")]
        await case.store.close()

    run(follow())
