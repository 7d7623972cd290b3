"""Real Redis servers that stall, die, lie, move and refuse."""

import asyncio
import math
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from tests.contract.test_stores import AT, LOOPS
from tests.ports import free_port
from tests.redis_fixture import RedisServer
from tests.redis_topologies import Certificates
from tests.store_fill import PLAN, int64, put_redis, user_key
from tests.store_readers import impatient, of_user, own_id

from sunup.limits import STORE_INFLIGHT_MAX, STORE_STALL_SECONDS_MAX
from sunup.lookup.store import Store, StoreUnavailable
from sunup.lookup.stores.open import open_store
from sunup.lookup.stores.redis.store import RedisStore

SLACK = 0.5  # s a loaded machine may add to what is measured


@pytest.fixture(params=list(LOOPS))
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        yield runner


def fill(server: RedisServer, users: int = 200) -> None:
    """Every user's own_id is its own number: an answer given to another's question shows."""
    with server.client() as client:
        for user in range(users):
            put_redis(client, "stats_v2", user_key((user,)), {"own_id": int64(user)}, AT)


async def until_answered(store: Store, user: int, seconds: float = 10.0) -> bytes | None:
    """The first answer of a store that is on its way back."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await own_id(store, user)
        except StoreUnavailable:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.02)


def test_a_stalled_server_costs_a_call_its_deadline_and_no_more(
    redis_server: RedisServer, runner: asyncio.Runner
) -> None:
    async def scenario() -> None:
        store = open_store(redis_server.url, PLAN)
        await store.open()
        assert await own_id(store, 3) == int64(3)
        redis_server.signal(signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match="deadline"):
            await own_id(store, 4, seconds=0.02)
        assert 0.015 < time.monotonic() - started < 0.02 + SLACK
        redis_server.signal(signal.SIGCONT)
        assert await own_id(store, 5) == int64(5)  # the late reply for 4 came first, and went nowhere
        await store.close()

    fill(redis_server)
    runner.run(scenario())


def test_a_late_reply_is_never_given_to_another(redis_server: RedisServer, runner: asyncio.Runner) -> None:
    """Readers with short deadlines on a server that stalls and goes on: late, cancelled, answered, never mixed up."""
    fill(redis_server)
    outcomes = runner.run(impatient(redis_server.url, redis_server.signal))
    assert all(count > 10 for count in outcomes.values()), outcomes


def test_a_server_that_stays_silent_loses_its_connection(redis_server: RedisServer, runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        store = open_store(redis_server.url, PLAN)
        await store.open()
        redis_server.signal(signal.SIGSTOP)
        started = time.monotonic()
        while "connected" in repr(store):
            with pytest.raises(StoreUnavailable):
                await own_id(store, 1, seconds=0.02)
            assert time.monotonic() - started < STORE_STALL_SECONDS_MAX + 2
        redis_server.signal(signal.SIGCONT)
        assert await until_answered(store, 2) == int64(2)
        await store.close()

    fill(redis_server)
    runner.run(scenario())


def test_a_restarted_server_is_found_again(redis_server: RedisServer, runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        store = open_store(redis_server.url, PLAN)
        await store.open()
        reading = asyncio.create_task(own_id(store, 1))
        assert await reading == int64(1)
        redis_server.stop()
        with pytest.raises(StoreUnavailable):
            await until_answered(store, 1, seconds=0.5)
        assert "down" in repr(store)
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match="not connected"):
            await own_id(store, 1)
        assert time.monotonic() - started < SLACK  # known to be down: no waiting for the deadline
        redis_server.start()
        fill(redis_server)
        assert await until_answered(store, 2) == int64(2)
        await store.close()

    fill(redis_server)
    runner.run(scenario())


def test_what_waits_when_the_connection_dies_is_told(redis_server: RedisServer, runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        store = open_store(redis_server.url, PLAN)
        await store.open()
        redis_server.signal(signal.SIGSTOP)
        reading = [asyncio.create_task(own_id(store, user, seconds=30)) for user in range(5)]
        await asyncio.sleep(0)
        redis_server.stop()
        told = await asyncio.wait_for(asyncio.gather(*reading, return_exceptions=True), 5)
        assert all(isinstance(each, StoreUnavailable) for each in told)
        await store.close()

    runner.run(scenario())


def test_too_many_waiting_are_refused_at_once(redis_server: RedisServer, runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        store = open_store(redis_server.url, PLAN)
        await store.open()
        redis_server.signal(signal.SIGSTOP)
        reading = [asyncio.create_task(own_id(store, 1, seconds=60)) for _ in range(STORE_INFLIGHT_MAX)]
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailable, match="too many"):
            await own_id(store, 1)
        redis_server.signal(signal.SIGCONT)
        assert set(await asyncio.gather(*reading)) == {int64(1)}
        await store.close()

    fill(redis_server, users=2)
    runner.run(scenario())


def test_passwords_and_databases(redis_server: RedisServer, runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        at = f"127.0.0.1:{redis_server.port}"
        for url, fits in {
            f"redis://:p%40ss@{at}/3": True,
            f"redis://:no@{at}/3": False,
            f"redis://{at}/3": False,
        }.items():
            store = open_store(url, PLAN)
            await store.open()
            if fits:
                assert await own_id(store, 9) == int64(9)
            else:
                with pytest.raises(StoreUnavailable, match="refused"):
                    await own_id(store, 9)
            await store.close()

    with redis.Redis(port=redis_server.port, db=3) as client:
        put_redis(client, "stats_v2", user_key((9,)), {"own_id": int64(9)}, AT)
        client.config_set("requirepass", "p@ss")
    runner.run(scenario())


def test_tls(tmp_path: Path, runner: asyncio.Runner) -> None:
    certificates = Certificates(tmp_path)
    server = RedisServer(tmp_path, *certificates.arguments(), tls=True)
    server.start()

    async def scenario() -> None:
        trusting = open_store(f"{server.url}?ssl_ca_certs={certificates.certificate}", PLAN)
        await trusting.open()
        assert await trusting.read(of_user(1), time.monotonic() + 5) == [[[None] * 5], []]
        await trusting.close()
        doubting = open_store(server.url, PLAN)
        await doubting.open()
        with pytest.raises(StoreUnavailable, match="certificate"):
            await own_id(doubting, 1)
        await doubting.close()

    try:
        runner.run(scenario())
    finally:
        server.stop()


def test_a_key_of_another_kind_is_absent_and_costs_no_other_its_features(
    redis_server: RedisServer, runner: asyncio.Runner, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        store = open_store(redis_server.url, PLAN)
        await store.open()
        users = [user_key((user,)) for user in range(3)]
        answer = await store.read([users, []], time.monotonic() + 5)
        assert [found[1] for found in answer[0]] == [int64(0), None, int64(2)]
        await store.close()

    fill(redis_server)
    with redis_server.client() as client:
        client.set(user_key((1,)) + PLAN.project.encode(), b"not a hash")
    runner.run(scenario())
    assert "WRONGTYPE" in caplog.text


def test_a_read_that_the_server_refuses_is_an_error(redis_server: RedisServer, runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        store = open_store(f"redis://reader:r@127.0.0.1:{redis_server.port}/0", PLAN)
        await store.open()
        with pytest.raises(StoreUnavailable, match="NOPERM"):
            await own_id(store, 1)
        await store.close()

    with redis_server.client() as client:
        client.acl_setuser("reader", enabled=True, passwords=["+r"], commands=["+ping"], keys=["*"])
    runner.run(scenario())


def test_a_server_that_is_not_redis_is_never_believed(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await writer.drain()
            writer.close()

        port = free_port()
        async with await asyncio.start_server(talk, "127.0.0.1", port):
            store = open_store(f"redis://127.0.0.1:{port}/0", PLAN)
            await store.open()
            with pytest.raises(StoreUnavailable, match="not connected"):
                await own_id(store, 1)
            await store.close()

    runner.run(scenario())


def test_a_redis_store_is_not_read_inline() -> None:
    store = open_store("redis://127.0.0.1:1/0", PLAN)
    assert isinstance(store, RedisStore)
    with pytest.raises(StoreUnavailable):
        store.read_now(of_user(1), math.inf)
