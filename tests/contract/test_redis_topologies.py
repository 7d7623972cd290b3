"""A master that fails over and slots that move, while they are read: every value is its key's own, and reads go on."""

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from redis.crc import key_slot
from tests.redis_fixture import RedisServer
from tests.redis_topologies import RedisClusterOfThree, SentinelSet, running, until
from tests.store_fill import PLAN, int64, user_key
from tests.store_readers import DEADLINE, USERS, fill, keys_of, opened, reading, seconds_until_read

from sunup.limits import STORE_RETRY_SECONDS
from sunup.lookup.store import StoreUnavailable
from sunup.lookup.stores.redis.slots import redirect, slot_of

SLACK = 1.0  # s a loaded machine may add to what is measured


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    loops = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    with asyncio.Runner(loop_factory=loops[request.param]) as runner:
        yield runner.run


# --- Sentinel ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", ["killed", "paused", "told"])
def test_readers_follow_a_master_that_fails_over(tmp_path: Path, ends: str) -> None:
    """Killed: its connections break. Paused: they stand, and only the Sentinel knows better. Told: it steps down."""

    async def scenario(servers: SentinelSet) -> None:
        loop = asyncio.get_running_loop()
        async with opened(servers.url) as store, reading(store) as readers:
            old = servers.master()
            await loop.run_in_executor(None, end, servers, old, ends)
            new = await loop.run_in_executor(None, servers.promoted, old)
            promoted = time.monotonic()
            assert await readers.until_answered_again() - promoted < 1.0 + SLACK
            while f":{new.port}/" not in await address_of(store):  # told: the old one answers until it obeys
                assert time.monotonic() - promoted < 2.0 + SLACK
                await asyncio.sleep(0.01)
            if ends == "paused":
                old.signal(signal.SIGCONT)
            await readers.until_answered_again()

    with running(SentinelSet(tmp_path)) as servers:
        with servers.client() as client:
            fill(client)
        servers.copied()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(scenario(servers))


def end(servers: SentinelSet, old: RedisServer, how: str) -> None:
    if how == "killed":
        old.stop()
    elif how == "paused":
        old.signal(signal.SIGSTOP)
    else:
        with servers.sentinel.client() as client:
            until(lambda: client.execute_command("SENTINEL", "FAILOVER", servers.NAME), "a failover begun")


async def address_of(store: Any) -> str:
    await store._dial.linked(time.monotonic() + 5)
    return repr(store._follower._known)


def test_a_store_opens_without_sentinels_and_finds_them_later(tmp_path: Path, run: Any) -> None:
    servers = SentinelSet(tmp_path)

    async def scenario() -> None:
        async with opened(servers.url) as store:
            with pytest.raises(StoreUnavailable, match="no Sentinel names the master fraud-master"):
                await store.read(keys_of([1]), time.monotonic() + 1)
            assert "down" in repr(store)
            await asyncio.get_running_loop().run_in_executor(None, servers.start)
            assert await seconds_until_read(store, [1]) < STORE_RETRY_SECONDS + SLACK
            servers.sentinel.stop()  # reads go on without
            await asyncio.sleep(0.7)
            assert await store.read(keys_of([1]), time.monotonic() + 1) == [[[None] * 5], [[None, None]]]

    try:
        run(scenario())
    finally:
        servers.stop()


def test_another_masters_name_is_told(redis_sentinels: SentinelSet, run: Any) -> None:
    async def scenario() -> None:
        async with opened(redis_sentinels.url.replace(SentinelSet.NAME, "other")) as store:
            with pytest.raises(StoreUnavailable, match="knows no such master"):
                await store.read(keys_of([1]), time.monotonic() + 1)

    run(scenario())


# --- Cluster ----------------------------------------------------------------------------------------------------------


def test_slots_are_the_clusters_own(redis_cluster: RedisClusterOfThree) -> None:
    keys = [b"", b"123456789", b"{a}b", b"x{a}b", b"{}a", b"a{", b"a}b{c}", b"{{a}}", b"\x00\xff{\xfe}", b"a{b}{c}"]
    assert slot_of(b"123456789") == 0x31C3  # the check value of CRC16/XMODEM
    with redis_cluster.servers[0].client() as client:
        for key in keys:
            assert slot_of(key) == client.execute_command("CLUSTER KEYSLOT", key) == key_slot(key), key


def test_redirections_are_read() -> None:
    assert redirect("MOVED 3999 127.0.0.1:6381") == ("127.0.0.1", 6381, 3999, False)
    assert redirect("ASK 3999 ::1:6381") == ("::1", 6381, 3999, True)
    assert redirect("MOVED 3999 :6381") == ("", 6381, 3999, False)
    for other in ("MOVED", "MOVED x y", "WRONGTYPE Operation against", "MOVED 1 a:b"):
        assert redirect(other) is None


def moved_by_hand(cluster: RedisClusterOfThree, slot: int, source: RedisServer, target: RedisServer) -> None:
    """Redis' own way to move a slot, key by key: ASK while it is on its way, MOVED behind it."""
    names = {server: cluster.id_of(server) for server in (source, target)}
    with source.client() as leaving, target.client() as coming:
        coming.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
        leaving.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target])
        while keys := leaving.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1):
            leaving.execute_command("MIGRATE", "127.0.0.1", target.port, keys[0], 0, 5000)
            time.sleep(0.02)  # readers meet a slot that is half here and half there
        for client in (coming, leaving):
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", names[target])


def test_readers_go_on_while_slots_move(tmp_path: Path, run: Any) -> None:
    async def scenario(cluster: RedisClusterOfThree) -> None:
        loop = asyncio.get_running_loop()
        async with opened(cluster.url) as store:
            assert "3 of 3 nodes connected" in repr(store)
            slots = sorted({slot_of(user_key((user,)) + PLAN.project.encode()) for user in range(USERS)})
            async with reading(store) as readers:
                for slot in [each for each in slots if each < 16384 // 3][:15]:
                    source, target = cluster.servers[:2]
                    await loop.run_in_executor(None, moved_by_hand, cluster, slot, source, target)
                await readers.until_answered_again()
            assert len(readers.failed_at) <= len(readers.answered_at) // 100  # what a loaded machine makes late

    with running(RedisClusterOfThree(tmp_path)) as cluster:
        with cluster.client() as client:
            fill(client)
        run(scenario(cluster))


@pytest.mark.parametrize("ends", ["killed", "paused"])
def test_a_node_that_is_gone_is_followed_by_its_replica_and_costs_only_its_keys(tmp_path: Path, ends: str) -> None:
    async def scenario(cluster: RedisClusterOfThree) -> None:
        loop = asyncio.get_running_loop()
        everything = list(range(USERS))
        async with opened(cluster.url) as store, reading(store, keys=1) as readers:
            old, replica = cluster.servers[0], cluster.servers[3]
            gone = time.monotonic()
            await loop.run_in_executor(None, end_node, old, ends)
            await loop.run_in_executor(None, until, lambda: is_master(replica), "a master")
            promoted = time.monotonic()
            assert await seconds_until_read(store, everything) < 1.0 + SLACK
            answer = await store.read(keys_of(everything), time.monotonic() + 1.0)
            assert [found[1] for found in answer[0]] == [int64(user) for user in everything]
            assert sum(gone < at < promoted for at in readers.answered_at) > 20  # the other two thirds
            assert readers.longest < DEADLINE + SLACK

    with running(RedisClusterOfThree(tmp_path, replicas=1)) as cluster:
        with cluster.client() as client:
            fill(client)
        with cluster.servers[0].client() as client:
            assert client.wait(1, 10_000) == 1
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(scenario(cluster))


def end_node(server: RedisServer, how: str) -> None:
    if how == "killed":
        server.stop()
    else:
        server.signal(signal.SIGSTOP)


def is_master(server: RedisServer) -> bool:
    with server.client() as client:
        return bool(client.execute_command("ROLE")[0] == b"master")


def test_a_cluster_that_is_away_is_found_later(tmp_path: Path, run: Any) -> None:
    cluster = RedisClusterOfThree(tmp_path)

    async def scenario() -> None:
        async with opened(cluster.url) as store:
            with pytest.raises(StoreUnavailable, match="not connected to cluster of"):
                await store.read(keys_of([1]), time.monotonic() + 1)
            await asyncio.get_running_loop().run_in_executor(None, cluster.start)
            assert await seconds_until_read(store, list(range(50))) < 1.0 + SLACK

    try:
        run(scenario())
    finally:
        cluster.stop()
