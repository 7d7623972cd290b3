"""A client connection in the door's hand, and the few answers the door gives itself."""

import json
import re
import socket
import struct
from enum import Enum

from sunup.access.guard import CHALLENGE, Guard, given_in
from sunup.errors import CallError, Unauthorized
from sunup.limits import HEAD_BYTES_MAX, PASSED_BYTES_MAX
from sunup.link.route import Route, origin_form, route
from sunup.link.shape import shaped

_METHOD = re.compile(b"[A-Z]{1,20}")  # whether there is such a one, the parser behind the door knows
_END = re.compile(rb"\n\r?\n")  # of a head; bare LF too, so that a worker may refuse it at once
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s


class Look(Enum):
    """What the bytes read so far say."""

    MORE = 0  # the request line is not complete
    ROUTED = 1
    BROKEN = 2  # not HTTP


class Held:
    """One client connection. `data`: bytes read, not yet answered; `since`: monotonic seconds of the first of them."""

    __slots__ = ("_target", "data", "route", "since", "sock")

    def __init__(self, sock: socket.socket, since: float) -> None:
        self.sock = sock
        self.data = b""
        self.since = since
        self.route: Route | None = None
        self._target = b""

    def __repr__(self) -> str:
        return f"Held(fd={self.sock.fileno()}, bytes={len(self.data)}, route={self.route})"

    def read(self, now: float) -> bool:
        """Take what the socket has; False when the client has ended or is gone. Raises BlockingIOError when empty."""
        try:
            got = self.sock.recv(PASSED_BYTES_MAX - len(self.data))
        except BlockingIOError:
            raise
        except OSError:
            return False
        if not self.data:
            self.since = now
        self.data += got
        return bool(got)

    def look(self, *, whole: bool) -> Look:
        """Find the function from the request line alone; the worker parses and checks the rest. `whole`: look again
        until the whole head is here."""
        line, newline, _ = self.data.lstrip(b"\r\n").partition(b"\n")
        if not newline:
            return Look.BROKEN if len(line) > HEAD_BYTES_MAX else Look.MORE
        method, _, rest = line.partition(b" ")
        target, _, version = rest.partition(b" ")
        if not _METHOD.fullmatch(method) or not version.startswith(b"HTTP/1."):
            return Look.BROKEN
        self._target = origin_form(target)[0]
        if whole and _END.search(self.data) is None and len(self.data) <= HEAD_BYTES_MAX:
            return Look.MORE
        self.route = route(method, self._target)
        return Look.ROUTED

    def admit(self, guard: Guard) -> None:
        """Look at the key, as a worker will, before one is born for it. Raises what `Guard.check` does.

        A head that is not well-formed may pass, or not: the worker that gets it refuses it for that.
        """
        _, *lines = _END.split(self.data.lstrip(b"\r\n"), 1)[0].split(b"\n")
        fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
        function = self.route.function if self.route is not None else None
        guard.check(host=None, given=given_in(fields), function=function, target=self._target)

    def refuse(self, error: CallError) -> None:
        """Answer with `error` and shut the sending side. The caller lingers, so that no reset destroys the answer."""
        encoded = json.dumps(shaped(self._target, error)).encode()
        more = f"retry-after: {error.retry_after_s}\r\n" if error.retry else ""
        more += f"www-authenticate: {CHALLENGE}\r\n" if error.status == Unauthorized.status else ""
        head = f"HTTP/1.1 {error.status} {error.code}\r\ncontent-type: application/json\r\n{more}"
        answer = f"{head}connection: close\r\ncontent-length: {len(encoded)}\r\n\r\n".encode() + encoded
        try:
            self.sock.send(answer)  # a fresh answer of a few hundred bytes fits the send buffer, or the client is gone
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.sock.close()

    def close(self) -> None:
        """End the connection for both sides, whoever else holds a descriptor of it."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the client ended it first
        self.sock.close()

    def reset(self) -> None:
        """End the connection with a reset: part of an answer is out and the rest will never come."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.sock.close()
