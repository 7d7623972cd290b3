"""A real PostgreSQL server that stalls, dies, comes back, holds locks, lacks tables, lives in another time zone."""

import asyncio
import signal
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from tests.contract.test_stores import AT, LOOPS
from tests.postgres_fixture import PostgresServer
from tests.store_fill import PLAN, create_postgres_tables, int64, put_postgres, user_key
from tests.store_readers import impatient, own_id

from sunup.limits import POSTGRES_INFLIGHT_MAX, STORE_STALL_SECONDS_MAX
from sunup.lookup.plan import ReadPlan
from sunup.lookup.store import Store, StoreUnavailable
from sunup.lookup.stores.open import open_store

SLACK = 0.5  # s a loaded machine may add to what is measured
USERS = 200


@pytest.fixture(params=list(LOOPS))
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        yield runner


@pytest.fixture
def filled(postgres_server: PostgresServer) -> PostgresServer:
    """Every user's own_id is its own number: an answer given to another's question shows."""
    fill(postgres_server)
    return postgres_server


def fill(server: PostgresServer) -> None:
    with server.client() as client:
        create_postgres_tables(client)
        for user in range(USERS):
            put_postgres(client, "stats_v2", user_key((user,)), {"own_id": int64(user)}, AT)


async def opened(url: str, plan: ReadPlan = PLAN) -> Store:
    store = open_store(url, plan)
    await store.open()
    return store


async def answered_within(store: Store, user: int, seconds: float) -> None:
    """Right again that soon after the server's return, with calls whose deadline is short."""
    began = time.monotonic()
    while True:
        try:
            assert await own_id(store, user, seconds=0.1) == int64(user)
        except StoreUnavailable:
            assert time.monotonic() - began < seconds + SLACK
            await asyncio.sleep(0.01)
        else:
            return


async def refused_in_time(store: Store, seconds: float = 0.02) -> None:
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await own_id(store, 4, seconds=seconds)
    assert time.monotonic() - began < seconds + SLACK


def test_a_paused_server_costs_a_call_its_deadline_and_no_more(filled: PostgresServer, runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        store = await opened(filled.url)
        assert await own_id(store, 3) == int64(3)
        filled.signal(signal.SIGSTOP)
        await refused_in_time(store)
        filled.signal(signal.SIGCONT)
        assert await own_id(store, 5) == int64(5)  # the late result for 4 came first, and went nowhere
        await store.close()

    runner.run(scenario())


def test_a_late_result_is_never_given_to_another(filled: PostgresServer, runner: asyncio.Runner) -> None:
    """Readers with short deadlines on a server that stalls and goes on: late, cancelled, answered, never mixed up."""
    outcomes = runner.run(impatient(filled.url, filled.signal))
    assert all(count > 10 for count in outcomes.values()), outcomes


def test_a_server_that_stays_silent_loses_its_connection(filled: PostgresServer, runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        store = await opened(filled.url)
        filled.signal(signal.SIGSTOP)
        began = time.monotonic()
        while "connected" in repr(store):
            await refused_in_time(store)
            assert time.monotonic() - began < STORE_STALL_SECONDS_MAX + 2
        filled.signal(signal.SIGCONT)
        await answered_within(store, 2, 1)
        await store.close()

    runner.run(scenario())


def test_a_killed_server_is_found_again(filled: PostgresServer, runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        store = await opened(filled.url)
        assert await own_id(store, 1) == int64(1)
        reading = [asyncio.create_task(own_id(store, user, seconds=30)) for user in range(5)]
        await asyncio.sleep(0)
        await asyncio.to_thread(filled.kill)
        for got in await asyncio.wait_for(asyncio.gather(*reading, return_exceptions=True), 5):
            assert isinstance(got, StoreUnavailable) or got in [int64(user) for user in range(5)]
        await refused_in_time(store)
        assert "down" in repr(store)
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="not connected"):
            await own_id(store, 1)
        assert time.monotonic() - began < SLACK  # known to be down: no waiting for the deadline
        await asyncio.to_thread(filled.start)
        await answered_within(store, 2, 1)
        await store.close()

    runner.run(scenario())


def test_a_lock_of_another_session_is_not_waited_for(filled: PostgresServer, runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        store = await opened(filled.url)
        with filled.client() as other:
            other.execute("BEGIN")
            other.execute('LOCK TABLE "contract_stats_v2" IN ACCESS EXCLUSIVE MODE')
            for _ in range(5):
                await refused_in_time(store)
            await asyncio.sleep(0.2)
            with filled.client() as third:  # nor is it in the server: the statement timeout ends the reads
                waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sunup' AND state = 'active'"
                until = time.monotonic() + 5
                while third.execute(waiting).fetchall() != [(0,)]:
                    assert time.monotonic() < until
                    await asyncio.sleep(0.05)
            other.execute("COMMIT")
        await answered_within(store, 6, 1)
        await store.close()

    runner.run(scenario())


def test_a_missing_table_is_found_when_it_is_there(postgres_server: PostgresServer, runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        store = await opened(postgres_server.url)
        with pytest.raises(StoreUnavailable, match=r'relation "contract_\w+" does not exist'):
            await own_id(store, 1)
        fill(postgres_server)
        await answered_within(store, 1, 1)
        with postgres_server.client() as client:
            client.execute('DROP TABLE "contract_stats_v2"')
            with pytest.raises(StoreUnavailable, match="does not exist"):
                await own_id(store, 1)
            fill(postgres_server)
            await answered_within(store, 3, 1)
            # Another type of column cannot be read by the statement that was prepared: a new connection can.
            client.execute('ALTER TABLE "contract_stats_v2" ALTER feature_name TYPE VARCHAR(80)')
        await answered_within(store, 4, 1)
        await store.close()

    runner.run(scenario())


def test_one_reads_error_is_not_anothers(filled: PostgresServer, runner: asyncio.Runner) -> None:
    """Reads that are under way together with one that waits for a lock, of which only the statement timeout is told."""

    async def scenario() -> None:
        store = await opened(filled.url)
        with filled.client() as other:
            other.execute("BEGIN")
            other.execute('LOCK TABLE "contract_shops" IN ACCESS EXCLUSIVE MODE')
            reads = [asyncio.create_task(own_id(store, user, seconds=3)) for user in range(3)]
            await asyncio.sleep(0.15)  # longer than the statement timeout, so that the first of them has failed
            other.execute("COMMIT")
            got = await asyncio.gather(*reads, return_exceptions=True)
        assert any(isinstance(each, StoreUnavailable) for each in got)
        assert all(each == int64(user) for user, each in enumerate(got) if not isinstance(each, StoreUnavailable))
        assert await own_id(store, 9) == int64(9)
        await store.close()

    runner.run(scenario())


def test_reads_beside_a_large_one_have_another_connection(filled: PostgresServer, runner: asyncio.Runner) -> None:
    def sessions() -> int:
        with filled.client() as client:
            found = client.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sunup'").fetchall()
            return int(found[0][0])

    async def scenario() -> None:
        # The server gives a read up as soon as its plan's deadline allows: not here, however busy the machine is.
        store = await opened(filled.url, msgspec.structs.replace(PLAN, deadline_ms=10_000.0))
        users = list(range(USERS)) * 50
        for _ in range(3):
            assert await own_id(store, 1) == int64(1)
        assert sessions() == 1
        for _ in range(10):  # the second connection is made while they overlap
            large = asyncio.create_task(store.read([[user_key((user,)) for user in users], []], time.monotonic() + 10))
            few = await asyncio.gather(*(own_id(store, user) for user in range(20)))
            assert few == [int64(user) for user in range(20)]
            assert [found[1] for found in (await large)[0]] == [int64(user) for user in users]
        assert sessions() == 2
        await store.close()

    runner.run(scenario())


def test_too_many_waiting_are_refused_at_once(filled: PostgresServer, runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        store = await opened(filled.url)
        filled.signal(signal.SIGSTOP)
        reading = [asyncio.create_task(own_id(store, 1, seconds=60)) for _ in range(POSTGRES_INFLIGHT_MAX)]
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailable, match="too many"):
            await own_id(store, 1)
        filled.signal(signal.SIGCONT)
        assert set(await asyncio.gather(*reading)) == {int64(1)}
        await store.close()

    runner.run(scenario())


def test_a_session_that_is_ended_is_replaced_by_one_that_only_reads(filled: PostgresServer) -> None:
    async def scenario() -> None:
        store = await opened(filled.url)
        with filled.client() as client:
            ours = "FROM pg_stat_activity WHERE application_name = 'sunup'"
            assert client.execute(f"SELECT pg_terminate_backend(pid) {ours}").fetchall() == [(True,)]
        await answered_within(store, 1, 1)
        link = store._dials[0].link  # type: ignore[attr-defined]
        told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        delete = b'DELETE FROM "contract_stats_v2"'
        link._ask(lambda: link._pq.send_query_params(delete, []), 1, time.monotonic() + 5, told.set_result)
        assert "read-only" in (await told).message
        await store.close()

    asyncio.run(scenario())
