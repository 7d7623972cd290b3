"""A port of a pod, and the connections that come to it: nobody else holds them."""

import asyncio
import ctypes
import socket
import struct
from contextlib import suppress
from math import inf
from typing import Final

from sunup.errors import UsageError
from sunup.limits import CONNECTIONS_MAX, POD_HANDSHAKE_SECONDS, POD_IDLE_SECONDS_MAX, POD_SHED_SECONDS
from sunup.link.states import State
from sunup.serve.http.connection import Connection
from sunup.serve.http.message import Handler

BACKLOG: Final = 4096  # connections that wait to be accepted; the kernel's own bound may be lower

_SO_ATTACH_FILTER: Final = 26  # socket(7)
# Classic BPF over a TCP segment: drop what has the SYN flag, let everything else pass (linux/filter.h).
_NO_SYN: Final = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))


def bind(port: int, variable: str) -> socket.socket:
    """The socket of a port on every address, not listening yet: whoever comes is refused, and comes again. `variable`:
    what said so. Raises UsageError."""
    for family, address in ((socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")):  # a pod's own network
        try:
            sock = socket.socket(family)
        except OSError:  # a kernel without this family
            continue
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family is socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind((address, port))
            sock.setblocking(False)
            return sock  # noqa: TRY300  # the last of what may fail
        except OSError as error:
            sock.close()
            refused = error
    raise UsageError(f"{variable} {port} cannot be listened on: {refused.strerror}. Set another port.")


class Listening:
    """The connections of one port, served by `handler`. See links.Links: it is what they tell.

    Past CONNECTIONS_MAX those that have been silent longest make room (RFC 9112, 9.5); past the process's descriptors
    the event loop closes what comes.
    """

    def __init__(self, sock: socket.socket, handler: Handler, connections_max: int = CONNECTIONS_MAX) -> None:
        self.idle_s = POD_IDLE_SECONDS_MAX
        self.leaving = False
        self._sock = sock
        self._handler = handler
        self._most = connections_max
        self._open: dict[int, Connection] = {}
        self._made = 0
        self._shed_at = 0.0
        self._server: asyncio.Server | None = None

    def __repr__(self) -> str:
        return f"Listening({len(self._open)} connections, leaving={self.leaving})"

    def __len__(self) -> int:
        return len(self._open)

    async def open(self) -> None:
        """Begin to accept."""
        self._server = await asyncio.get_running_loop().create_server(self._make, sock=self._sock, backlog=BACKLOG)

    async def stop(self) -> None:
        """Accept what has connected, and nothing after it. None is lost in between: first no new one begins."""
        self._refuse_new()
        await asyncio.sleep(POD_HANDSHAKE_SECONDS)  # what had begun ends in it, and is accepted: nothing says when
        if self._server is not None:
            self._server.close()

    def close_silent(self, seconds: float) -> None:
        """End the connections on which nothing was asked for so long."""
        for connection in list(self._open.values()):
            connection.drain(silent=(seconds, inf))

    # --- links.Links --------------------------------------------------------------------------------------------------

    def state(self, slot: int, state: State) -> None:
        """Nobody reads it."""

    def release(self, slot: int) -> None:
        """One ended."""
        self._open.pop(slot, None)

    def hand_back(self, slot: int, pending: bytes) -> None:  # noqa: ARG002  # nobody takes it
        """One ended: its transport is closed."""
        self._open.pop(slot, None)

    def _make(self) -> Connection:
        if len(self._open) >= self._most:
            self._shed()
        self._made += 1
        self._open[self._made] = connection = Connection(self._handler, self, self._made)
        return connection

    def _shed(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._shed_at:
            self._shed_at = now + POD_SHED_SECONDS
            self.close_silent(POD_SHED_SECONDS)

    def _refuse_new(self) -> None:
        """Have the kernel drop the first segment of new connections: their clients send it again, and find another pod
        or nobody. Where it has no such filters (some sandboxes), closing may reset a connection that just began."""
        program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in _NO_SYN))
        attached = struct.pack("HL", len(_NO_SYN), ctypes.addressof(program))
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, attached)
