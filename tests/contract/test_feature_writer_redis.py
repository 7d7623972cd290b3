"""Redis that forgets scripts, is full, holds other things, fails over, moves slots or starts from a snapshot: what
writes features goes on, and sees what was lost."""

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.contract.test_feature_writer import STATS, Place, keys_of
from tests.contract.test_feature_writer_failures import SLACK, refused, written
from tests.contract.test_redis_topologies import end, moved_by_hand
from tests.redis_fixture import RedisServer
from tests.redis_topologies import RedisClusterOfThree, SentinelSet, running, until
from tests.writer_fill import AT, PLAN, rows

from sunup.lookup.store import StoreUnavailable
from sunup.lookup.stores.redis.slots import slot_of
from sunup.lookup.writing.open import open_writer
from sunup.lookup.writing.writer import FeatureWriter

RECOVERY_SECONDS_MAX = 1.0  # from a new master on, or a node's


@pytest.fixture
def writer(redis_server: RedisServer) -> Iterator[FeatureWriter]:
    with closing(open_writer(redis_server.url, PLAN)) as made:
        made.begin()
        yield made


def writes_again(writer: FeatureWriter, number: int) -> float:
    """Seconds until it does."""
    began = time.monotonic()
    while True:
        try:
            writer.write(STATS, rows(200, number))
        except StoreUnavailable:
            assert time.monotonic() - began < 10, "it never wrote again"
            time.sleep(0.02)  # as a tick comes again
        else:
            return time.monotonic() - began


def test_scripts_that_were_flushed_are_loaded_again(redis_server: RedisServer, writer: FeatureWriter) -> None:
    written(redis_server.url, writer, 1)
    with redis_server.client() as client:
        client.script_flush()
    written(redis_server.url, writer, 2)


def test_a_key_that_holds_something_else_keeps_nobody_from_writing(
    redis_server: RedisServer, writer: FeatureWriter, caplog: pytest.LogCaptureFixture
) -> None:
    other = rows(3, 5)[1].key + PLAN.project.encode()
    with redis_server.client() as client:
        client.set(other, "a text")
        with caplog.at_level(logging.WARNING):
            writer.write(STATS, rows(3, 5))
        assert "1 keys of the feature store hold no features" in caplog.text
        assert client.get(other) == b"a text"
    found = Place(redis_server.url, lambda: None).stats(keys_of(rows(3, 5)))
    assert found == [(5, 2.5, AT), (None, None, None), (7, 3.5, AT)]


def test_a_version_that_is_none_is_written_over(redis_server: RedisServer, writer: FeatureWriter) -> None:
    with redis_server.client() as client:
        client.hset(rows(1, 5)[0].key + PLAN.project.encode(), f"_sunup:{STATS}", "short")
    written(redis_server.url, writer)


def test_a_store_that_is_full_says_so(redis_server: RedisServer, writer: FeatureWriter) -> None:
    with redis_server.client() as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreUnavailable, match="OOM"):
            writer.write(STATS, rows(1, 5))
        client.config_set("maxmemory", 0)
    written(redis_server.url, writer)


def test_a_store_that_was_flushed_or_started_from_a_snapshot(tmp_path: Path) -> None:
    """The snapshot has the mark, and lacks the last values."""
    server = RedisServer(tmp_path, "--dbfilename", "dump.rdb")
    with running(server), closing(open_writer(server.url, PLAN)) as writer:
        writer.begin()
        with server.client() as client:
            client.save()
        written(server.url, writer)
        server.stop()
        server.start()
        assert Place(server.url, lambda: None).stats(keys_of(rows(1, 0))) == [(None, None, None)]
        assert writer.is_lost()
        writer.begin()
        assert not writer.is_lost()


def test_a_wrong_password_is_told(redis_secured: Any) -> None:
    with closing(open_writer(redis_secured.url.replace("%2F1", "x"), PLAN)) as writer:
        refused(writer, "WRONGPASS|refused")
    with closing(open_writer(redis_secured.url.partition("?")[0], PLAN)) as writer:
        refused(writer, "CERTIFICATE_VERIFY_FAILED")


@pytest.mark.parametrize("ends", ["killed", "paused", "told"])
def test_a_master_that_fails_over_is_followed(tmp_path: Path, ends: str) -> None:
    with running(SentinelSet(tmp_path)) as servers, closing(open_writer(servers.url, PLAN)) as writer:
        writer.begin()
        writes_again(writer, 1)
        servers.copied()
        old = servers.master()
        end(servers, old, ends)
        if ends == "paused":  # nothing breaks: the write waits out its time, and the next one asks the Sentinels
            with pytest.raises(StoreUnavailable, match="in time"):
                writer.write(STATS, rows(1, 1))
        new = servers.promoted(old)
        assert writes_again(writer, 2) < RECOVERY_SECONDS_MAX + SLACK
        until(lambda: _is_written(writer, new, 3), "the new master written")
        assert writer.is_lost()  # what the old one took last the new one may lack
        writer.begin()
        assert not writer.is_lost()
        if ends == "paused":
            old.signal(signal.SIGCONT)


def _is_written(writer: FeatureWriter, server: RedisServer, number: int) -> bool:
    """Whether what is written now is there: one that is told to step down takes some for a moment more."""
    writes_again(writer, number)
    return Place(server.url, lambda: None).stats(keys_of(rows(1, 0))) == [(number, number / 2, AT)]


def test_a_master_without_sentinels_is_written_on(tmp_path: Path) -> None:
    with running(SentinelSet(tmp_path)) as servers, closing(open_writer(servers.url, PLAN)) as writer:
        writer.write(STATS, rows(1, 1))
        servers.sentinel.stop()
        for number in (2, 3):
            time.sleep(0.6)  # so that Sentinels are asked again
            began = time.monotonic()
            writer.write(STATS, rows(1, number))
            assert time.monotonic() - began < SLACK


def test_slots_that_move_are_followed(tmp_path: Path) -> None:
    count = 400
    with running(RedisClusterOfThree(tmp_path)) as cluster, closing(open_writer(cluster.url, PLAN)) as writer:
        writer.begin()
        writer.write(STATS, rows(count, 0))
        keys = [row.key + PLAN.project.encode() for row in rows(count, 0)]
        slots = sorted({slot_of(key) for key in keys if slot_of(key) < 16384 // 3})[:10]
        ended, failures, number = threading.Event(), list[Exception](), 0

        def move() -> None:
            try:
                for slot in slots:
                    moved_by_hand(cluster, slot, *cluster.servers[:2])
            except Exception as error:  # told by the test
                failures.append(error)
            ended.set()

        thread = threading.Thread(target=move)
        thread.start()
        while not ended.is_set():
            number += 1
            writer.write(STATS, rows(count, number))
        thread.join()
        writer.write(STATS, rows(count, number + 1))
        assert not failures
        assert number > 3
        found = Place(cluster.url, lambda: None).stats(keys_of(rows(count, 0)))
        assert found == [(n + number + 1, (n + number + 1) / 2, AT) for n in range(count)]
        assert not writer.is_lost()


def test_a_node_of_a_cluster_that_is_killed(tmp_path: Path) -> None:
    """The others are written meanwhile; its replica behind it; and something may be lost."""
    with (
        running(RedisClusterOfThree(tmp_path, replicas=1)) as cluster,
        closing(open_writer(cluster.url, PLAN)) as writer,
    ):
        writer.begin()
        writer.write(STATS, rows(200, 1))
        with cluster.servers[0].client() as client:
            client.wait(1, 5000)
        cluster.servers[0].stop()
        with pytest.raises(StoreUnavailable):
            writer.write(STATS, rows(200, 2))
        until(lambda: _promoted(cluster.servers[3]), "the replica promoted")
        assert writes_again(writer, 3) < 2 * RECOVERY_SECONDS_MAX + SLACK
        assert writer.is_lost()
        writer.begin()
        assert not writer.is_lost()


def _promoted(server: RedisServer) -> bool:
    with server.client() as client:
        return bool(client.execute_command("ROLE")[0] == b"master")


def test_a_cluster_of_which_one_node_was_flushed(redis_cluster: RedisClusterOfThree) -> None:
    with closing(open_writer(redis_cluster.url, PLAN)) as writer:
        for server in redis_cluster.servers:
            writer.begin()
            assert not writer.is_lost()
            with server.client() as client:
                client.flushall()
            assert writer.is_lost()
