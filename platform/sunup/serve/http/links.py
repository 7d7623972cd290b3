"""What a connection tells the process that passed it on: the door, or nobody."""

import asyncio
import socket
from typing import Protocol

from sunup.link.states import State


class Links(Protocol):
    """What a connection tells whoever passed it on. `slot` is the number it was passed with."""

    def state(self, slot: int, state: State) -> None:
        """What the connection is doing now. Called four times per request."""
        ...

    def release(self, slot: int) -> None:
        """The connection has ended, and was shut down for both sides."""
        ...

    def hand_back(self, slot: int, pending: bytes) -> None:
        """The connection lives on elsewhere, beginning with `pending`: bytes read from it but not answered."""
        ...


class Alone:
    """The links of a server without a door (a pod, a test): nobody to tell."""

    def state(self, slot: int, state: State) -> None:
        """Nobody reads it."""

    def release(self, slot: int) -> None:
        """Nobody holds a duplicate."""

    def hand_back(self, slot: int, pending: bytes) -> None:
        """The transport is closed already, which without a duplicate ends the connection."""


def shut(transport: asyncio.Transport, how: int) -> None:
    """shutdown(2) of a transport's socket, which reaches the client whoever else holds a descriptor of it."""
    known = transport.get_extra_info("socket")
    sock = socket.socket(known.family, known.type, known.proto, fileno=known.fileno())  # uvloop's own cannot shut
    try:
        sock.shutdown(how)
    except OSError:
        pass  # the client was faster
    finally:
        sock.detach()
