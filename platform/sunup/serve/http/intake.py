"""Bytes to whole requests: llhttp's callbacks, and every check that needs no handler.

llhttp in its strict mode refuses the shapes that smuggle requests (both kinds of length, two lengths, bare LF, folded
lines, spaces before a colon); what it lets pass and a server of functions should not is refused here.
"""

from collections import deque
from typing import Final

import httptools

from sunup.access.guard import Guard, given_in
from sunup.errors import BadRequest, CallError, HeadTooLarge, MethodNotAllowed, TooLarge
from sunup.limits import HEAD_BYTES_MAX
from sunup.link.route import origin_form, route
from sunup.serve.http.message import Handler, Header, Request

_NOTED: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect", b"upgrade"})
_FRAMING_MAX: Final = 8  # bytes on the wire per byte of a chunked body: one-byte chunks take six


class Incoming:
    """A whole request. `keep`: the connection may stay after its answer; `old`: the client speaks HTTP/1.0."""

    __slots__ = ("keep", "old", "request")

    def __init__(self, request: Request, *, keep: bool, old: bool) -> None:
        self.request = request
        self.keep = keep
        self.old = old


class _Foreign(Exception):  # not an error: it stops the parser
    """The request whose head is complete belongs to another function."""


class Intake:
    """Parses one connection. `whole` holds the requests that can be answered, oldest first.

    `closed`: nothing more is parsed, because of `refused`, or because the next request is another's: `pending` are its
    bytes, or it is `lost` when it began in the middle of a read. `begun`, `headed`: a request is partly here, its head
    completely. `target`: of that request, or of the last one. `kept`: the bytes of an incomplete head, None when it
    began in the middle of a read. `expects`: the client waits for 100 Continue. `came`: monotonic seconds of the
    present read. `hold`: seconds the first request waited at the door; its client's own slowness is not waiting.
    """

    __slots__ = (
        "_after", "_authority", "_body", "_bytes", "_function", "_handler", "_headers", "_hold", "_method", "_old",
        "_ours", "_owed", "_parser", "_reading", "begun", "came", "closed", "counted", "expects", "headed", "kept",
        "lost", "pending", "refused", "target", "whole",
    )  # fmt: skip

    def __init__(self, handler: Handler, hold: float = 0.0) -> None:
        self.whole: deque[Incoming] = deque()
        self.refused: CallError | None = None
        self.pending: bytes | None = None
        self.lost = False
        self.closed = False
        self.begun = False
        self.headed = False
        self.expects = False
        self.came = 0.0
        self.counted = 0  # bytes of an unfinished request, in the handler's count
        self._hold = hold
        self.kept: bytes | None = b""
        self._handler = handler
        self._parser = httptools.HttpRequestParser(self)
        self._ours = (b"", b"")  # method and target last found to be ours
        self._function: str | None = None  # that target names
        self._authority: bytes | None = None  # of an absolute target, which overrules the Host header
        self._after = False  # a request ended within the present read
        self._reading = 0  # bytes of the present read
        self._bytes = 0  # bytes of earlier reads that belong to the request in progress
        self._method = b""
        self.target = b""
        self._headers: list[Header] = []
        self._body: bytes | bytearray = b""
        self._old = False
        self._owed = 0  # bytes of body that llhttp leaves out, because the request offers to change protocols

    def room(self) -> memoryview:
        """Where the next read goes: with what is kept it must fit the message that takes it back to the door."""
        return self._handler.room[: -len(self.kept)] if self.kept else self._handler.room

    def feed(self, data: memoryview | bytes) -> None:
        """Parse one read. Nothing is raised: see `refused`."""
        while data and not self.closed:
            self._after = False
            self._reading = len(data)
            if self._owed:
                data = self._pay(data)
                continue
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                # An offer to change protocols is ignored: the parser goes on behind the head that made it.
                data = data[upgrade.args[0] :]
                continue
            except httptools.HttpParserCallbackError as error:
                self._stop(error.__context__, data)
            except httptools.HttpParserError as error:
                self._stop(BadRequest(f"This is not a valid HTTP/1.1 request: {error}."), data)
            else:
                if self.begun:
                    self._unfinished(data)
            return

    @property
    def held(self) -> int:
        """Bytes of a request that is partly here."""
        return len(self._body) + len(self.kept or b"")

    @property
    def bodiless(self) -> bool:
        """Whether the answer to the request in hand has no body: it was asked with HEAD."""
        return self.headed and self._method == b"HEAD"

    def _stop(self, reason: BaseException | None, data: memoryview | bytes) -> None:
        self.closed = True
        match reason:
            case CallError():
                self.refused = reason
            case _Foreign() if self.kept is None:
                self.lost = True
            case _Foreign():
                self.pending = (self.kept or b"") + bytes(data)
            case _:
                raise RuntimeError("a parser callback failed") from reason

    def _pay(self, data: memoryview | bytes) -> memoryview | bytes:
        """Take what `data` has of a body that llhttp leaves out; the bytes behind it."""
        part = bytes(data[: self._owed])
        self._owed -= len(part)
        self.on_body(part)
        if not self._owed:
            self.on_message_complete()
        return data[len(part) :]

    def _unfinished(self, data: memoryview | bytes) -> None:
        """Account for a request that goes on in the next read."""
        if not self._after:
            self._bytes += len(data)
        if not self.headed:
            if self.kept is not None:
                self.kept += bytes(data)
            if self._bytes > HEAD_BYTES_MAX:
                self._stop(_head_too_large(), data)
        elif self._bytes > HEAD_BYTES_MAX + _FRAMING_MAX * self._handler.body_bytes_max:
            self._stop(self._too_large(), data)  # chunk extensions or trailers without end

    # --- What llhttp calls --------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.begun = True
        self.headed = False
        self.kept = None if self._after else b""
        self._bytes = 0
        self.target = b""
        self._authority = None
        self._headers = []
        self._body = b""

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.headed:  # trailers are dropped: nothing here reads them
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.headed = True
        self._method = self._parser.get_method()
        if self._ours != (self._method, self.target):
            self.target, self._authority = origin_form(self.target)
            found = route(self._method, self.target)
            if not self._handler.owns(found):
                raise _Foreign
            self._ours = (self._method, self.target)
            self._function = found.function
        self.kept = b""
        self._check_head(self._parser.get_http_version())

    def on_body(self, part: bytes) -> None:
        if not self._body:
            self._body = part
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += part
        if len(self._body) > self._handler.body_bytes_max:
            raise self._too_large()

    def on_message_complete(self) -> None:
        if self._owed:
            return
        self.begun = self.expects = False
        self._after = True
        body = self._body if isinstance(self._body, bytes) else bytes(self._body)
        request = Request(self._method, self.target, self._headers, body, self.came - self._hold)
        self._hold = 0.0
        self.whole.append(Incoming(request, keep=self._parser.should_keep_alive(), old=self._old))

    # --- Checks -------------------------------------------------------------------------------------------------------

    def _check_head(self, version: str) -> None:
        self._old = version == "1.0"
        if not self._old and version != "1.1":
            raise BadRequest(f"HTTP/{version} is not spoken here. Use HTTP/1.1.")
        if self._method == b"CONNECT":
            raise MethodNotAllowed("This server is no proxy.")
        if self.target == b"*" and self._method != b"OPTIONS":
            raise BadRequest("Only OPTIONS is asked of the whole server.")
        if self._bytes + self._reading > HEAD_BYTES_MAX:
            size = len(self.target) + sum(len(name) + len(value) + 4 for name, value in self._headers)
            if size > HEAD_BYTES_MAX:
                raise _head_too_large()
        host = self._check_fields()
        if self._handler.guard is not None:  # before the body: a stranger's is not read
            self._admit(self._handler.guard, host)

    def _check_fields(self) -> bytes | None:
        """Raises what is wrong with the headers; the Host."""
        hosts = length = 0
        chunked = upgrade = False
        host = None
        for name, value in self._headers:
            if name not in _NOTED:
                continue
            if name == b"host":
                hosts += 1
                host = value
            elif name == b"content-length":
                length = int(value)  # llhttp has seen to it that it is a number
            elif name == b"transfer-encoding":
                chunked = True
                if self._old or value.lower() != b"chunked":
                    raise BadRequest("The only transfer encoding read here is chunked, of HTTP/1.1.")
            elif name == b"expect":
                self.expects = value.lower() == b"100-continue" and not self._old
            else:
                upgrade = True
        if hosts != 1 and not (self._old and hosts == 0):
            raise BadRequest("A request needs exactly one Host header.")
        if length > self._handler.body_bytes_max:
            raise self._too_large()
        if upgrade and self._parser.should_upgrade():
            if chunked:
                raise BadRequest("An Upgrade with a chunked body is not read here. Send it without Upgrade.")
            self._owed = length
        return host

    def _admit(self, guard: Guard, host: bytes | None) -> None:
        given = None if guard.keys is None else given_in(self._headers)
        host = self._authority or host
        guard.check(host=host, given=given, function=self._function, target=self.target)

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The body is over {self._handler.body_bytes_max} bytes, the most this function takes.")


def _head_too_large() -> HeadTooLarge:
    return HeadTooLarge(f"The request head is over {HEAD_BYTES_MAX} bytes.")
