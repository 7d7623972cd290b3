"""Stores that are away, hang, refuse, lose what they held, or come back: what writes features tells, in time."""

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from tests.contract.test_feature_writer import STATS, Place, keys_of, place
from tests.ports import free_port
from tests.postgres_fixture import PostgresServer
from tests.proxy import Proxy
from tests.redis_fixture import RedisServer
from tests.writer_fill import AT, PLAN, make_postgres_tables, rows

from sunup.limits import STORE_WRITE_SECONDS_MAX
from sunup.lookup.store import StoreUnavailable
from sunup.lookup.writing.open import open_writer
from sunup.lookup.writing.within import resolve
from sunup.lookup.writing.writer import FeatureWriter

__all__ = ["place"]

SLACK = 0.7  # s a loaded machine may add to what is measured
ONE = [(5, 2.5, AT)]


def refused(writer: FeatureWriter, says: str | None = None) -> None:
    """Every method, each within its time."""
    for attempt in (lambda: writer.write(STATS, rows(1, 5)), writer.is_lost, writer.begin):
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match=says):
            attempt()
        assert time.monotonic() - began < STORE_WRITE_SECONDS_MAX + SLACK


def written(url: str, writer: FeatureWriter, number: int = 5) -> None:
    """It writes, and what it wrote is there."""
    writer.write(STATS, rows(1, number))
    assert Place(url, lambda: None).stats(keys_of(rows(1, 0))) == [(number, number / 2, AT)]


@pytest.fixture
def opened() -> Iterator[Callable[[str], FeatureWriter]]:
    made: list[FeatureWriter] = []

    def another(url: str) -> FeatureWriter:
        made.append(open_writer(url, PLAN))
        return made[-1]

    yield another
    for writer in made:
        writer.close()


Opened = Callable[[str], FeatureWriter]


@pytest.mark.parametrize("scheme", ["redis", "redis-sentinel", "redis-cluster", "rediss", "postgresql"])
def test_nobody_listens(opened: Opened, scheme: str) -> None:
    user = "a:b@" if scheme == "postgresql" else ""
    path = {"postgresql": "/db", "redis-sentinel": "/0?master=m"}.get(scheme, "")
    writer = opened(f"{scheme}://{user}127.0.0.1:{free_port()}{path}")
    refused(writer)
    refused(writer)


@pytest.mark.parametrize("scheme", ["redis", "redis-sentinel", "redis-cluster", "rediss", "postgresql"])
def test_somebody_listens_and_says_nothing(opened: Opened, scheme: str) -> None:
    user = "a:b@" if scheme == "postgresql" else ""
    path = {"postgresql": "/db", "redis-sentinel": "/0?master=m"}.get(scheme, "")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        refused(opened(f"{scheme}://{user}127.0.0.1:{silent.getsockname()[1]}{path}"))


def test_a_resolver_that_hangs(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    ends, real = threading.Event(), socket.getaddrinfo

    def hanging(host: str, port: int, **more: Any) -> Any:
        if more["flags"] == 0:  # else it is asked whether this is a number
            ends.wait(20)
        return real("127.0.0.1" if more["flags"] == 0 else host, port, **more)

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    try:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="nobody said in time where store"):
            resolve("store.example", 1, time.monotonic() + 0.1)
        assert time.monotonic() - began < 0.1 + SLACK
        refused(opened("redis://store.example:1/0"), "nobody said")
        refused(opened("postgresql://a:b@store.example:1/c"), "nobody said")
    finally:
        ends.set()


@pytest.mark.parametrize("kind", ["redis", "postgres"])
def test_a_store_behind_a_network_that_hangs(request: pytest.FixtureRequest, opened: Opened, kind: str) -> None:
    """A write waits for its time and no longer; when the network is back it writes, and so it does behind a cut."""
    server, lose = store_of(request, kind)
    lose()
    with Proxy(server.port).running() as proxy:
        url = server.url.replace(str(server.port), str(proxy.port))
        writer = opened(url)
        writer.begin()
        written(server.url, writer, 1)
        proxy.stop()
        refused(writer, "in time")
        proxy.go()
        written(server.url, writer, 6)
        assert not writer.is_lost()
        proxy.cut = True
        if kind == "postgres":  # Redis answers a write in fewer bytes than are cut
            with pytest.raises(StoreUnavailable, match="lost"):
                writer.write(STATS, rows(1, 7))
        written(server.url, writer, 8)


@pytest.mark.parametrize("kind", ["redis", "postgres"])
def test_a_server_that_is_paused_and_one_that_is_killed(
    request: pytest.FixtureRequest, opened: Opened, kind: str
) -> None:
    server, lose = store_of(request, kind)
    lose()
    writer = opened(server.url)
    writer.begin()
    server.signal(signal.SIGSTOP)
    refused(writer, "in time")
    server.signal(signal.SIGCONT)
    written(server.url, writer)
    assert not writer.is_lost()
    server.kill() if isinstance(server, PostgresServer) else server.stop()
    refused(writer)
    server.start()
    assert writer.is_lost()  # what the server last took before it was killed nobody knows
    writer.begin()
    written(server.url, writer, 7)
    assert not writer.is_lost()


def store_of(request: pytest.FixtureRequest, kind: str) -> tuple[Any, Callable[[], None]]:
    """A server and what empties it."""
    if kind == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        return server, lambda: None
    postgres: PostgresServer = request.getfixturevalue("postgres_server")

    def lose() -> None:
        with postgres.client() as client:
            make_postgres_tables(client)

    return postgres, lose


def test_many_who_write_at_once_leave_the_newest(place: Place) -> None:
    """Four threads, the same keys in another order each, versions in any order."""
    if place.memory is not None:
        return
    count, failures = 60, list[BaseException]()

    def write(number: int) -> None:
        try:
            with closing(open_writer(place.url, PLAN)) as writer:
                for step in range(12):
                    batch = rows(count, (7 * number + 5 * step) % 48)
                    writer.write(STATS, batch[:: (-1) ** number])
        except BaseException as error:  # told by the test
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    newest = max((7 * number + 5 * step) % 48 for number in range(4) for step in range(12))
    found = place.stats(keys_of(rows(count, 0)))
    assert found == [(n + newest, (n + newest) / 2, AT) for n in range(count)]
