"""A feature store that is killed, paused, slow, cut off, emptied and filled with wrong things, under calls without end.

Whatever happens: a value that is not named as defaulted is its own key's, nobody waits beyond the deadline, and within
a second of the store's return everybody is served again.
"""

import asyncio
import math
import signal
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import pytest
import uvloop
from tests.proxy import Proxy
from tests.redis_fixture import RedisServer
from tests.store_fill import int64, put_redis

from sunup.lookup.circuit import GuardedStore
from sunup.lookup.join import Lookup
from sunup.lookup.keys import key_maker
from sunup.lookup.plan import Entity, Feature, JoinKey, ReadPlan, View, entity_columns
from sunup.lookup.stores.open import open_store
from sunup.types import Features, Field

USERS = 100
DEADLINE = 0.02
RECOVERY_SECONDS_MAX = 1.0
LATE_MAX = 0.005  # s beyond the deadline, p99

USER = JoinKey("user_id", "user_id", "INT64")
FEATURES = (Feature("own", "own", "INT64", -1), Feature("half", "half", "DOUBLE", -1.0))
ENTITIES = (Entity((USER,), (View("stats", "stats", None, None, FEATURES),)),)
PLAN = ReadPlan(1, "contract", 3, 1000 * DEADLINE, "default", ENTITIES, entity_columns(ENTITIES))
key = key_maker([USER], {"user_id": 0})

Waits: TypeAlias = Callable[[float], Awaitable[None]]


def double(value: float) -> bytes:
    return b"\x29" + struct.pack("<d", value)


def fill(server: RedisServer, users: range = range(USERS)) -> None:
    with server.client() as client:
        for user in users:
            put_redis(client, "stats", key((user,)), {"own": int64(user), "half": double(user / 2)}, time.time())


class Callers:
    """Ten that call without end. What they saw is checked as they see it."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._ended = False
        self._tasks = [asyncio.create_task(self._call(n)) for n in range(10)]
        self._tasks.append(asyncio.create_task(self._probe()))
        self.served: list[tuple[float, int]] = []  # when, and whose values
        self.went_without: list[float] = []  # when every value was defaulted
        self.seconds: list[float] = []  # of calls
        self.lateness: list[float] = []  # s the loop itself was late, which is the machine's doing

    async def stop(self) -> None:
        self._ended = True
        await asyncio.gather(*self._tasks)

    async def pause(self, seconds: float) -> None:
        """Let them call for a while; their failures are raised at once."""
        done, _ = await asyncio.wait(self._tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def until_served(self) -> None:
        begun = time.monotonic()
        while not self.served or self.served[-1][0] < begun:
            await self.pause(0.005)
            assert time.monotonic() - begun < 10, "nobody was served"

    async def _call(self, number: int) -> None:
        user = number
        while not self._ended:
            user = (user + 7) % USERS
            began = time.monotonic()
            found = await self._asked(user, began) if number % 2 else await self._read(user, began)
            ended = time.monotonic()
            self.seconds.append(ended - began)
            if check(found, user):
                self.served.append((ended, user))
            else:
                self.went_without.append(ended)
            await asyncio.sleep(0.002)

    async def _read(self, user: int, now: float) -> Features:
        return await self._lookup.read([(user,)], now=now, wall=time.time())

    async def _asked(self, user: int, now: float) -> Features:
        """As the pipeline does."""
        told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._lookup.ask([(user,)], now=now, wall=time.time(), told=told.set_result)
        found: Features = await told
        return found

    async def _probe(self) -> None:
        while not self._ended:
            due = time.monotonic() + 0.005
            await asyncio.sleep(0.005)
            self.lateness.append(time.monotonic() - due)


def guarded(url: str) -> Lookup:
    """As a worker puts it together."""
    return Lookup(PLAN, GuardedStore(open_store(url, PLAN), PLAN), [Field("user_id", "int64")])


def check(found: Features, user: int) -> bool:
    """That every value is the user's own or named as defaulted. Whether any is the user's own."""
    assert not found.failed
    named = (*found.defaulted[0], *(found.stale or [()])[0]) if found.defaulted else ()
    for field, value, own, default in zip(PLAN.columns, found.values[0], (user, user / 2), (-1, -1.0), strict=True):
        assert value == (default if field.name in named else own), (user, field.name, value, named)
    return len(named) < len(PLAN.columns)


def quantile(values: list[float], q: float) -> float:
    return sorted(values)[min(len(values) - 1, math.ceil(q * len(values)) - 1)]


class Scene:
    """A server with users in it, and a proxy before it."""

    def __init__(self, server: RedisServer, proxy: Proxy) -> None:
        self.server = server
        self.proxy = proxy


async def killed(scene: Scene, waits: Waits) -> None:
    scene.server.stop()
    await waits(0.7)
    scene.server.start()
    fill(scene.server)


async def paused(scene: Scene, waits: Waits) -> None:
    """Shortly, so that the connection stands."""
    scene.server.signal(signal.SIGSTOP)
    await waits(0.5)
    scene.server.signal(signal.SIGCONT)


async def paused_for_long(scene: Scene, waits: Waits) -> None:
    """So long that connections are given up, and new ones are accepted by nobody but the kernel."""
    scene.server.signal(signal.SIGSTOP)
    await waits(2.5)
    scene.server.signal(signal.SIGCONT)


async def slow(scene: Scene, waits: Waits) -> None:
    scene.proxy.delay = 3 * DEADLINE
    await waits(1.0)
    scene.proxy.delay = 0.0


async def slower_now_and_then(scene: Scene, waits: Waits) -> None:
    """Replies come shortly before the deadline, shortly behind it, and out of nowhere long after."""
    for delay in (0.9, 1.1, 0.0, 5.0, 0.0, 1.0, 20.0, 0.0, 1.05):
        scene.proxy.delay = delay * DEADLINE
        await waits(0.1)
    scene.proxy.delay = 0.0


async def held_up(scene: Scene, waits: Waits) -> None:
    """Nothing passes in the network, and later all of it."""
    scene.proxy.stop()
    await waits(2.5)
    scene.proxy.go()


async def cut(scene: Scene, waits: Waits) -> None:
    """Replies end in the middle, and their connections with them."""
    for _ in range(10):
        scene.proxy.cut = True
        await waits(0.1)
    assert scene.proxy.cuts >= 5
    scene.proxy.cut = False


async def emptied(scene: Scene, waits: Waits) -> None:
    """Restarted without its data: who is not there yet is missing, who is back is served."""
    scene.server.stop()
    scene.server.start()
    await waits(0.3)
    fill(scene.server)


FAULTS = (killed, paused, paused_for_long, slow, slower_now_and_then, held_up, cut, emptied)


@contextmanager
def behind_a_proxy(server: RedisServer) -> Iterator[Scene]:
    with Proxy(server.port).running() as proxy:
        fill(server)
        yield Scene(server, proxy)


@pytest.mark.parametrize("fault", FAULTS)
def test_no_wrong_value_no_late_call_and_back_within_a_second(
    redis_server: RedisServer, fault: Callable[[Scene, Waits], Awaitable[None]]
) -> None:
    async def scenario(scene: Scene) -> None:
        lookup = guarded(f"redis://127.0.0.1:{scene.proxy.port}/0")
        await lookup.open()
        callers = Callers(lookup)
        try:
            await callers.until_served()
            await fault(scene, callers.pause)
            back = time.monotonic()
            await callers.pause(RECOVERY_SECONDS_MAX)
            await callers.until_served()
            await callers.pause(0.3)
            first = next(at for at, _ in callers.served if at > back)
            assert first - back < RECOVERY_SECONDS_MAX
            served = sum(at > back + RECOVERY_SECONDS_MAX for at, _ in callers.served)
            without = sum(at > back + RECOVERY_SECONDS_MAX for at in callers.went_without)
            assert without <= served // 10  # server or proxy may be kept off a loaded machine's cores for a while
            assert "connected" in repr(lookup)
            assert "closed" in repr(lookup)
        finally:
            await callers.stop()
            await lookup.close()
        in_time(callers)
        assert callers.went_without, "the fault was not felt"

    with behind_a_proxy(redis_server) as scene, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario(scene))


def in_time(callers: Callers) -> None:
    """p99 of all calls, and the longest of them, against the deadline and what the loop was late meanwhile."""
    assert quantile(callers.seconds, 0.99) < DEADLINE + LATE_MAX + quantile(callers.lateness, 0.99)
    assert max(callers.seconds) < DEADLINE + 3 * LATE_MAX + 3 * max(callers.lateness)


def test_wrong_things_under_a_key_are_missing_by_name(redis_server: RedisServer) -> None:
    """A string for a hash, another type for a number, damaged bytes, a time that is none: others are served."""
    fill(redis_server)
    wrong = {
        0: {"own": double(7.5)},
        1: {"own": b"\x12\x03abc", "half": b"\x12\x01x"},
        2: {"own": b"\x20\xff\xff", "half": b"\x29\x00"},
        3: {"own": b"\x32\x04\x00\x00\x80\x3f", "half": b"\x38\x01"},
    }
    with redis_server.client() as client:
        for user, values in wrong.items():
            put_redis(client, "stats", key((user,)), values, time.time())
        client.delete(key((4,)) + PLAN.project.encode())
        client.set(key((4,)) + PLAN.project.encode(), b"not a hash")
        client.hset(key((5,)) + PLAN.project.encode(), "_ts:stats", b"\xff\xff")

    async def scenario() -> list[Features]:
        lookup = guarded(redis_server.url)
        await lookup.open()
        alone = [await lookup.read([(user,)], now=time.monotonic(), wall=time.time()) for user in range(7)]
        together = await lookup.read([(user,) for user in range(7)], now=time.monotonic(), wall=time.time())
        await lookup.close()
        assert list(together.values) == [one.values[0] for one in alone]
        return alone

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        alone = runner.run(scenario())
    served = [check(found, user) for user, found in enumerate(alone)]
    assert served == [True, False, False, False, False, True, True]
    assert [found.defaulted for found in alone[:5]] == [[("own",)], *[[("own", "half")]] * 4]
