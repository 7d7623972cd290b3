"""A connection to Redis without one: what is written when, and who gets which reply."""

import asyncio
import socket
import time
from typing import Any

import pytest

from sunup.lookup.store import StoreUnavailable
from sunup.lookup.stores.redis.link import Link


class Transport:
    """What was written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.socket = socket.socket()

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def abort(self) -> None:
        self.written.append(b"aborted")

    def get_extra_info(self, _: str) -> socket.socket:
        return self.socket


async def connected() -> tuple[Link, Transport]:
    link, transport = Link(asyncio.get_running_loop(), lambda *_: None), Transport()
    link.connection_made(transport)  # type: ignore[arg-type]  # as much of one as is used
    transport.socket.close()
    return link, transport


def test_what_one_turn_of_the_loop_asks_for_leaves_together() -> None:
    async def run() -> None:
        link, transport = await connected()
        until = time.monotonic() + 1
        first, second = link.request(b"a", 1, until), link.request(b"bb", 2, until)
        assert transport.written == []
        await asyncio.sleep(0)
        assert transport.written == [b"abb"]
        third = link.request(b"c", 1, until)
        await asyncio.sleep(0)
        assert transport.written == [b"abb", b"c"]
        link.data_received(b":1\r\n:2\r\n:3")
        assert [first.done(), second.done()] == [True, False]
        link.data_received(b"\r\n:4\r\n")
        assert [await each for each in (first, second, third)] == [[1], [2, 3], [4]]
        link.connection_lost(None)

    asyncio.run(run())


def test_a_connection_lost_before_its_turn_writes_nothing_and_fails_who_waits() -> None:
    async def run() -> Any:
        link, transport = await connected()
        asked = link.request(b"a", 1, time.monotonic() + 1)
        link.connection_lost(None)
        with pytest.raises(StoreUnavailable):
            await asked
        await asyncio.sleep(0)
        assert transport.written == []
        with pytest.raises(StoreUnavailable):
            link.request(b"b", 1, time.monotonic() + 1)

    asyncio.run(run())


def test_who_left_is_not_told_and_its_replies_are_nobody_elses() -> None:
    async def run() -> None:
        link, transport = await connected()
        until, heard, gone = time.monotonic() + 1, list[Any](), list[Any]()
        link.ask(b"a", 2, until, gone.append).cancel()
        link.ask(b"b", 1, until, heard.append)
        link.data_received(b":1\r\n:2\r\n:3\r\n")
        assert (heard, gone) == ([[3]], [])
        await asyncio.sleep(0)
        assert transport.written == [b"ab"]
        link.connection_lost(None)

    asyncio.run(run())


def test_who_is_told_may_ask_again() -> None:
    """Also while others are told that their time is up."""

    async def run() -> None:
        link, _ = await connected()
        again: list[Any] = []
        done = asyncio.Event()

        def late(what: Any) -> None:
            assert isinstance(what, StoreUnavailable)
            again.append(link.request(b"b", 1, time.monotonic() + 1))
            if len(again) == 2:
                done.set()

        for _ in range(2):
            link.ask(b"a", 1, time.monotonic() + 0.01, late)
        await asyncio.wait_for(done.wait(), 5)
        link.data_received(b":1\r\n:2\r\n:3\r\n:4\r\n")
        assert [await each for each in again] == [[3], [4]]
        link.connection_lost(None)

    asyncio.run(run())
