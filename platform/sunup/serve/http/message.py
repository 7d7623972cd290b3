"""A request and a response as every part of serve sees them, and how a response becomes bytes."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator
from http import HTTPStatus
from math import inf
from typing import Any, Final, Protocol

import msgspec

from sunup.access.guard import CHALLENGE, Guard
from sunup.errors import CallError, ExecutionFailed, Unauthorized, UnsupportedMedia
from sunup.link.route import Route
from sunup.link.shape import shaped
from sunup.wire.codec import Encoded

_LOG: Final = logging.getLogger(__name__)

JSON: Final = (b"content-type", b"application/json")
TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")
_STATUS: Final = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}

Header = tuple[bytes, bytes]


class Request(msgspec.Struct):
    """One whole request. `target` is as sent, query included; header names are lower-case; `body` is complete.
    `since`: monotonic seconds since when it waits for an answer, infinity if that is now."""

    method: bytes
    target: bytes
    headers: list[Header]
    body: bytes
    since: float = inf


class Response(msgspec.Struct):
    """One whole response. `headers` without content-length and connection, which the connection adds."""

    status: int
    headers: list[Header]
    body: bytes


class Pending:
    """An answer that comes by a plain call, which costs a busy loop less than a task and its wake-ups.

    `told` gets the response in a later turn of the loop than the one it was asked for in; whoever asked puts it there.
    """

    __slots__ = ("told",)

    def __init__(self) -> None:
        self.told: Callable[[Response], None] | None = None

    def cancel(self) -> None:
        """Nobody waits for it any more, so nobody is told."""
        raise NotImplementedError

    def __await__(self) -> Generator[Any, None, Response]:
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self.told = future.set_result
        try:
            return (yield from future)
        except asyncio.CancelledError:
            self.cancel()
            raise


class Counted(Protocol):
    """Who holds bytes. `counted`: how many of them are in the count."""

    counted: int


class Unfinished:
    """Bytes of requests that are not whole yet, over all connections of a process; more than `most` is too many."""

    __slots__ = ("most", "used")

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0

    def __repr__(self) -> str:
        return f"Unfinished({self.used} of {self.most} bytes)"

    def note(self, one: Counted, held: int) -> bool:
        """So many bytes are held by `one` now; whether that is too much, all together."""
        self.used += held - one.counted
        one.counted = held
        return self.used > self.most


class Handler(Protocol):
    """Answers requests. One per process; every connection of the process shares it.

    `body_bytes_max`: bytes a request body may have. `room`: where reads land, PASSED_BYTES_MAX bytes; one for all
    connections, because each read is used up before the next. `unfinished`: what they wait for more of. `guard`: who
    may call, None for anyone; every request of every connection passes it before its body is read.
    """

    body_bytes_max: int
    room: memoryview
    unfinished: Unfinished
    guard: Guard | None

    def handle(self, request: Request) -> Response | Awaitable[Response]:
        """The answer, at once or later, perhaps a Pending. Raising is allowed: `refuse` then makes the answer."""
        ...

    def owns(self, route: Route) -> bool:
        """Whether a request of this route is answered here; otherwise its connection is handed back."""
        ...

    def refuse(self, error: Exception, target: bytes = b"") -> Response:
        """The answer to a request that could not be read, or whose handling raised `error`.

        `target` as sent, as far as it was read: errors have the shape of its protocol.
        """
        ...

    def connections(self, change: int) -> None:
        """A connection came (+1) or went (-1)."""
        ...


def header(request: Request, name: bytes) -> bytes | None:
    """The first value of a header, or None. `name` in lower case."""
    return next((value for key, value in request.headers if key == name), None)


def public(error: Exception, id: str = "") -> CallError:
    """What a caller may know of `error`. What nobody foresaw goes to the log, under the request's `id`."""
    if isinstance(error, CallError):
        return error
    _LOG.error("a request failed", exc_info=error, extra={"id": id})
    where = f" The reason is in the log under id {id}." if id else ""
    return ExecutionFailed(f"The server failed to answer this request.{where}")


def error_body(error: CallError, target: bytes = b"") -> bytes:
    """The JSON of an error, in the shape of the protocol `target` belongs to; see link/shape.py."""
    return msgspec.json.encode(shaped(target, error))


def error_response(error: CallError, body: bytes | Encoded) -> Response:
    """A response with `error`'s status and its protocol's `body`; Retry-After where a retry helps, with a 415 the
    content coding that is read (RFC 9110, 12.5.3), with a 401 the scheme of a key (RFC 6750)."""
    said, kinds = body if isinstance(body, Encoded) else (body, (JSON,))
    retry = [(b"retry-after", b"%d" % error.retry_after_s)] if error.retry else []
    readable = [(b"accept-encoding", b"gzip")] if error.status == UnsupportedMedia.status else []
    wanted = [(b"www-authenticate", CHALLENGE.encode())] if error.status == Unauthorized.status else []
    return Response(error.status, [*kinds, *retry, *readable, *wanted], said)


def render(response: Response, *, old: bool, keep: bool, head_only: bool) -> bytes:
    """The bytes of a response. `old`: an HTTP/1.0 client; `keep`: the connection stays; `head_only`: answer to HEAD."""
    parts = [_STATUS[response.status]]
    for name, value in response.headers:
        parts += (name, b": ", value, b"\r\n")
    if not keep:
        parts.append(b"connection: close\r\n")
    elif old:
        parts.append(b"connection: keep-alive\r\n")
    parts.append(b"content-length: %d\r\n\r\n" % len(response.body))
    if not head_only:
        parts.append(response.body)
    return b"".join(parts)
