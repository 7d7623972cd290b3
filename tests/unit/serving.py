"""A real event loop in a thread, real sockets, and a small function to serve on them."""

import asyncio
import os
import queue
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import uvloop

from sunup import limits
from sunup.access.guard import Guard
from sunup.errors import CallError
from sunup.limits import PASSED_BYTES_MAX
from sunup.link.route import Route
from sunup.link.states import State
from sunup.serve.http.connection import Connection
from sunup.serve.http.message import TEXT, Pending, Request, Response, Unfinished, error_body, error_response

T = TypeVar("T")

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}

HEAD = b"POST /functions/echo HTTP/1.1\r\nHost: a\r\n"
GET = b"GET /functions/echo HTTP/1.1\r\nHost: a\r\n\r\n"
SLOW = b"GET /functions/echo/slow HTTP/1.1\r\nHost: a\r\n\r\n"


def post(body: bytes, *headers: bytes) -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    return HEAD + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body


class Gated(Pending):
    """The answer that comes when a gate opens."""

    def __init__(self, body: bytes, gate: asyncio.Event) -> None:
        super().__init__()
        self.cancelled = False
        self._body = body
        self._waiting = asyncio.get_running_loop().create_task(gate.wait())
        self._waiting.add_done_callback(self._opened)

    def cancel(self) -> None:
        self.cancelled = True
        self._waiting.cancel()

    def _opened(self, waited: "asyncio.Task[bool]") -> None:
        if self.told is not None and not waited.cancelled():
            self.told(Response(200, [TEXT], b"slow " + self._body))


class Echo:
    """The function `echo`: answers with method and body at once, or when `gate` opens (`/slow`; `/soon` by a plain
    call), or not (`/boom`)."""

    def __init__(self, *, body_bytes_max: int = 1000) -> None:
        self.body_bytes_max = body_bytes_max
        self.room = memoryview(bytearray(PASSED_BYTES_MAX))
        self.unfinished = Unfinished(2000)
        self.guard: Guard | None = None
        self.gate = asyncio.Event()
        self.open = 0
        self.order: list[bytes] = []
        self.pending: list[Gated] = []
        self.since: list[float] = []

    def handle(self, request: Request) -> Response | Awaitable[Response]:
        self.order.append(request.target)
        self.since.append(request.since)
        path, _, size = request.target.partition(b"?")
        if path.endswith(b"/slow"):
            return self._slow(request)
        if path.endswith(b"/soon"):
            self.pending.append(Gated(request.body, self.gate))
            return self.pending[-1]
        if path.endswith(b"/boom"):
            raise RuntimeError("boom")
        if path.endswith(b"/big"):
            return Response(200, [TEXT], b"x" * int(size))
        return Response(200, [TEXT], request.method + b" " + request.body)

    def owns(self, route: Route) -> bool:
        return route.function in ("echo", None)

    def refuse(self, error: Exception, target: bytes = b"") -> Response:  # noqa: ARG002
        known = error if isinstance(error, CallError) else CallError("It failed.")
        return error_response(known, error_body(known))

    def connections(self, change: int) -> None:
        self.open += change

    async def _slow(self, request: Request) -> Response:
        await self.gate.wait()
        return Response(200, [TEXT], b"slow " + request.body)


class Told:
    """Links that remember what they were told."""

    def __init__(self) -> None:
        self.idle_s = limits.IDLE_SECONDS_MAX
        self.leaving = False
        self.states: list[State] = []
        self.released: queue.Queue[int] = queue.Queue()
        self.back: queue.Queue[tuple[int, bytes]] = queue.Queue()

    def state(self, slot: int, state: State) -> None:  # noqa: ARG002
        self.states.append(state)

    def release(self, slot: int) -> None:
        self.released.put(slot)

    def hand_back(self, slot: int, pending: bytes) -> None:
        self.back.put((slot, pending))


class Loop:
    """An event loop in a thread."""

    def __init__(self, kind: str) -> None:
        self.loop = LOOPS[kind]()
        self.errors: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.errors.append(context))
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    def call(self, function: Callable[[], T]) -> T:
        """Run a plain function on the loop's thread."""

        async def run() -> T:
            return function()

        return self.wait(run())

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
        assert not self.errors, self.errors


@contextmanager
def running(kind: str) -> Iterator[Loop]:
    loop = Loop(kind)
    try:
        yield loop
    finally:
        loop.stop()


class Passed:
    """A client connection served as the door passes it: the test keeps a duplicate of the server's descriptor."""

    def __init__(self, loop: Loop, handler: Echo, initial: bytes = b"", slot: int = 7, hold: float = 0.0) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.client = socket.create_connection(listener.getsockname(), timeout=5)
            accepted, _ = listener.accept()
        self.duplicate = socket.socket(fileno=os.dup(accepted.fileno()))
        accepted.setblocking(False)
        self.told = Told()
        self.connection = loop.call(lambda: Connection(handler, self.told, slot, initial, hold))
        self._loop = loop
        loop.wait(loop.loop.connect_accepted_socket(lambda: self.connection, accepted))

    def __enter__(self) -> "Passed":
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self.duplicate, self.client):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()
        self._loop.call(lambda: None)

    def ask(self, data: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
        """Send, and read one response: status, headers, body."""
        self.client.sendall(data)
        return self.answer()

    def answer(self, *, head_only: bool = False) -> tuple[int, dict[bytes, bytes], bytes]:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self.client.recv(1)
            if not byte:
                raise ConnectionError(f"closed after {head!r}")
            head += byte
        line, *fields = head[:-4].split(b"\r\n")
        headers = dict(field.split(b": ", 1) for field in fields)
        body = b""
        left = 0 if head_only else int(headers.get(b"content-length", b"0"))
        while len(body) < left:
            body += self.client.recv(left - len(body))
        return int(line.split()[1]), headers, body

    def ended(self) -> bool:
        """Whether the server has ended the connection: end of file arrives, though the duplicate is still open."""
        return self.client.recv(1) == b""
