"""Messages between Sunup's processes: a Unix SOCK_SEQPACKET socket carrying a JSON head, raw bytes and descriptors.

A message is `uint32 head length (little endian) | JSON head | raw bytes`, at most MESSAGE_BYTES_MAX, with at most
FDS_PER_MESSAGE_MAX descriptors beside it (SCM_RIGHTS). The kernel keeps message boundaries, so there is no framing to
lose. Every living process listens on `run/<id>.sock`; whoever holds the folder (mode 0700) may connect and say hello.
"""

import array
import asyncio
import errno
import itertools
import json
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sunup.limits import FDS_PER_MESSAGE_MAX, MESSAGE_BYTES_MAX

_LENGTH = struct.Struct("<I")


class Message(NamedTuple):
    """One received message. The receiver owns `fds` and must close or keep every one of them."""

    head: dict[str, Any]
    data: bytes
    fds: list[int]


def listen(path: Path) -> socket.socket:
    """A listening socket at `path` (an old file there is replaced)."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.bind(str(path))
    sock.listen(64)
    return sock


def connect(path: Path) -> socket.socket:
    """A connection to the process listening at `path`. Raises OSError when nothing listens there.

    Succeeds as soon as the socket listens, before the other side accepts: a parent may connect to a child unborn.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.connect(str(path))
    except OSError:
        sock.close()
        raise
    return sock


def pack(head: dict[str, Any], data: bytes = b"") -> bytes:
    """The bytes of one message. Raises ValueError over the limit."""
    encoded = json.dumps(head, separators=(",", ":")).encode()
    message = _LENGTH.pack(len(encoded)) + encoded + data
    if len(message) > MESSAGE_BYTES_MAX:
        raise ValueError(f"message of {len(message)} bytes is over {MESSAGE_BYTES_MAX}")
    return message


def send(sock: socket.socket, head: dict[str, Any], data: bytes = b"", fds: Sequence[int] = ()) -> None:
    """Send one message. Raises BlockingIOError when a non-blocking socket is full, OSError when the peer is gone."""
    if len(fds) > FDS_PER_MESSAGE_MAX:
        raise ValueError(f"{len(fds)} descriptors in one message; the kernel takes {FDS_PER_MESSAGE_MAX}")
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([pack(head, data)], ancillary, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket) -> Message | None:
    """One message, or None at end of file. Raises BlockingIOError when a non-blocking socket has none."""
    room = socket.CMSG_SPACE(FDS_PER_MESSAGE_MAX * 4)
    packet, ancillary, flags, _ = sock.recvmsg(MESSAGE_BYTES_MAX, room, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, raw in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(raw[: len(raw) - len(raw) % 4])
    if not packet:
        return None
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        for fd in fds:
            os.close(fd)
        raise OSError("a link message arrived cut short")
    (length,) = _LENGTH.unpack_from(packet)
    return Message(json.loads(packet[4 : 4 + length]), packet[4 + length :], list(fds))


class Channel:
    """One end of a connection on an asyncio loop. `on_message` gets each message, `on_close` is called once at the end.

    Sending never blocks: messages queue when the socket is full, and their descriptors are duplicated so that the
    caller may close its own at once. The queue is bounded by what callers hand over: one message per connection held.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        on_message: Callable[["Channel", Message], None],
        on_close: Callable[["Channel"], None],
    ) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._on_message = on_message
        self._on_close = on_close
        self._waiting: deque[tuple[dict[str, Any], bytes, list[int]]] = deque()
        self.closed = False
        loop.add_reader(sock.fileno(), self.pump)

    def __repr__(self) -> str:
        return f"Channel(fd={self._sock.fileno()}, waiting={len(self._waiting)}, closed={self.closed})"

    def send(self, head: dict[str, Any], data: bytes = b"", fds: Sequence[int] = ()) -> bool:
        """Send or queue one message; False when the other side is gone (the message is dropped)."""
        if self.closed:
            return False
        if self._waiting:
            self._waiting.append((head, data, [os.dup(fd) for fd in fds]))
            return True
        try:
            send(self._sock, head, data, fds)
        except OSError as error:
            if not _full(error):
                self.close()
                return False
            self._waiting.append((head, data, [os.dup(fd) for fd in fds]))
            self._loop.add_writer(self._sock.fileno(), self._writable)
        return True

    @property
    def idle(self) -> bool:
        """Whether everything said has left this process."""
        return not self._waiting

    def close(self) -> None:
        """Close this end; `on_close` runs once."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        for _, _, fds in self._waiting:
            for fd in fds:
                os.close(fd)
        self._waiting.clear()
        self._on_close(self)

    def pump(self, most: int | None = 64) -> None:
        """Deliver what has arrived; at most so many messages, so that a busy peer does not hold the loop. None: all."""
        for _ in itertools.count() if most is None else range(most):
            if self.closed:
                return
            try:
                message = receive(self._sock)
            except BlockingIOError:
                return
            except OSError:
                message = None
            if message is None:
                self.close()
                return
            self._on_message(self, message)

    def _writable(self) -> None:
        while self._waiting:
            head, data, fds = self._waiting[0]
            try:
                send(self._sock, head, data, fds)
            except OSError as error:
                if not _full(error):
                    self.close()
                return
            self._waiting.popleft()
            for fd in fds:
                os.close(fd)
        self._loop.remove_writer(self._sock.fileno())


def _full(error: OSError) -> bool:
    """Whether a send failed for now only. ETOOMANYREFS: too many descriptors of this user are in flight (unix(7))."""
    return isinstance(error, BlockingIOError) or error.errno == errno.ETOOMANYREFS
