"""A TCP proxy in the test's own process, in a thread of its own, that treats what passes badly."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.ports import free_port


class Proxy:
    """Forwards to 127.0.0.1:`port`. What it does to replies can be changed at any time."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.port = free_port()
        self.delay = 0.0  # s a piece of a reply waits before it is passed on
        self.cut = False  # the next reply passes by half, and its connection ends
        self.cuts = 0  # how often that was done
        self._flows = asyncio.Event()  # cleared: nothing is passed on, either way
        self._writers: set[asyncio.StreamWriter] = set()

    @contextmanager
    def running(self) -> Iterator["Proxy"]:
        """Listens from now on, to the end of the block."""
        loop, ready = asyncio.new_event_loop(), threading.Event()
        thread = threading.Thread(target=self._run, args=(loop, ready), name="proxy")
        thread.start()
        assert ready.wait(10)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    def stop(self) -> None:
        """Pass nothing on any more; connections stand."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def go(self) -> None:
        """Pass on what came meanwhile, and what comes."""
        self._loop.call_soon_threadsafe(self._flows.set)

    def _run(self, loop: asyncio.AbstractEventLoop, ready: threading.Event) -> None:
        self._loop = loop
        self._flows.set()
        server = loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", self.port))
        ready.set()
        loop.run_forever()
        loop.run_until_complete(self._end(server))
        loop.close()

    async def _end(self, server: asyncio.Server) -> None:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for writer in tuple(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, back}
        self._writers |= pair
        ways = [self._pass(reader, back, reply=False), self._pass(there, writer, reply=True)]
        tasks = [asyncio.ensure_future(way) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            return  # the proxy ends; the streams of Python 3.11 would report it as an error
        finally:
            for task in tasks:
                task.cancel()
            for each in pair:
                each.transport.abort()
            self._writers -= pair

    async def _pass(self, reader: asyncio.StreamReader, writer: Any, *, reply: bool) -> None:
        while data := await reader.read(65536):
            await self._flows.wait()
            if reply and self.delay:
                await asyncio.sleep(self.delay)
            if reply and self.cut and len(data) > 20:
                self.cut = False
                self.cuts += 1
                writer.write(data[: len(data) // 2])
                await writer.drain()
                return
            writer.write(data)
            await writer.drain()
