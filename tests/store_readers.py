"""Readers of a store whose every value says which key it is of: a value given to another key's reader ends the test."""

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.store_fill import PLAN, int64, put_redis, shop_key, user_key

from sunup.lookup.store import Keys, Store, StoreUnavailable
from sunup.lookup.stores.open import open_store

AT = 1_700_000_000.0
USERS = 200
DEADLINE = 0.05


def fill(client: Any) -> None:
    """Every user's own_id is its own number, as is every shop's size."""
    for user in range(USERS):
        put_redis(client, "stats_v2", user_key((user,)), {"own_id": int64(user)}, AT)
        put_redis(client, "shops", shop_key((f"{{{user}}}",)), {"size": int64(user)}, AT)


def keys_of(users: list[int]) -> Keys:
    return [[user_key((user,)) for user in users], [shop_key((f"{{{user}}}",)) for user in users]]


class Readers:
    """Some that read without end. `answered_at` and `failed_at`: monotonic seconds; a wrong value ends everything."""

    def __init__(self, store: Store, keys: int = 3) -> None:
        self._store = store
        self._keys = keys
        self._stop = asyncio.Event()
        self._tasks = [asyncio.create_task(self._read(n)) for n in range(8)]
        self.answered_at: list[float] = []
        self.failed_at: list[float] = []
        self.longest = 0.0

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def until_answered_again(self) -> float:
        """Monotonic seconds of the first answer from now on."""
        asked = time.monotonic()
        while not self.answered_at or self.answered_at[-1] < asked:
            if failed := [task for task in self._tasks if task.done()]:
                failed[0].result()
            assert time.monotonic() < asked + 20
            await asyncio.sleep(0.005)
        return next(at for at in self.answered_at if at >= asked)

    async def _read(self, number: int) -> None:
        at = number
        while not self._stop.is_set():
            at += 7
            users = [(at + n) % USERS for n in range(self._keys)]
            began = time.monotonic()
            try:
                answer = await self._store.read(keys_of(users), began + DEADLINE)
            except StoreUnavailable:
                self.failed_at.append(time.monotonic())
                await asyncio.sleep(0.005)
            else:
                assert [found[1] for found in answer[0]] == [int64(user) for user in users]
                assert [found[0] for found in answer[1]] == [int64(user) for user in users]
                self.answered_at.append(time.monotonic())
                await asyncio.sleep(0.001)
            self.longest = max(self.longest, time.monotonic() - began)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    """The store at `url`, closed whatever happens: uvloop does not end with one open where warnings are errors."""
    store = open_store(url, PLAN)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def reading(store: Store, keys: int = 3) -> AsyncIterator[Readers]:
    """Readers of `store`, at work."""
    readers = Readers(store, keys)
    try:
        await readers.until_answered_again()
        yield readers
    finally:
        await readers.stop()


async def seconds_until_read(store: Store, users: list[int]) -> float:
    """How long from now until the store answers."""
    started = time.monotonic()
    while True:
        try:
            answer = await store.read(keys_of(users), time.monotonic() + 1.0)
        except StoreUnavailable:
            assert time.monotonic() - started < 10
            await asyncio.sleep(0.01)
        else:
            assert all(found[1] in (int64(user), None) for found, user in zip(answer[0], users, strict=True))
            return time.monotonic() - started


def of_user(number: int) -> Keys:
    return [[user_key((number,))], []]


async def own_id(store: Store, user: int, seconds: float = 5.0) -> bytes | None:
    answer = await store.read(of_user(user), time.monotonic() + seconds)
    value: bytes | None = answer[0][0][1]
    return value


async def impatient(url: str, send: Callable[[signal.Signals], None]) -> dict[str, int]:
    """How often readers with short deadlines were right, late or cancelled, on a server that stalls and goes on. `send`
    sends it a signal. An answer that is another user's ends the test."""
    outcomes = {"right": 0, "late": 0, "cancelled": 0}

    async def read(store: Store, rng: random.Random, stop: asyncio.Event) -> None:
        while not stop.is_set():
            user = rng.randrange(USERS)
            try:
                asking = own_id(store, user, seconds=rng.choice([0.0005, 0.002, 0.005, 1.0]))
                got = await asyncio.wait_for(asking, rng.choice([0.001, None, None]))
            except StoreUnavailable:
                outcomes["late"] += 1
            except TimeoutError:
                outcomes["cancelled"] += 1
            else:
                assert got == int64(user)
                outcomes["right"] += 1
            await asyncio.sleep(0)

    async with opened(url) as store:
        stop, rng = asyncio.Event(), random.Random(7)
        readers = [asyncio.create_task(read(store, random.Random(n), stop)) for n in range(16)]
        for _ in range(25):
            send(signal.SIGSTOP)
            await asyncio.sleep(rng.choice([0.001, 0.004, 0.01]))
            send(signal.SIGCONT)
            await asyncio.sleep(0.02)
        stop.set()
        await asyncio.gather(*readers)
    return outcomes
