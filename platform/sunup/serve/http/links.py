"""What a connection tells the process that passed it on: the door, or nobody."""

import asyncio
import socket
from typing import Protocol

from sunup.limits import IDLE_SECONDS_MAX
from sunup.link.states import State


class Links(Protocol):
    """What a connection tells whoever passed it on. `slot` is the number it was passed with. `idle_s`: seconds a
    connection may be silent; `leaving`: no connection outlives the answer in hand, which says so."""

    idle_s: float
    leaving: bool

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
    """The links of a server without a door (the metrics port, a test): nobody to tell."""

    idle_s: float = IDLE_SECONDS_MAX
    leaving: bool = False

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
