"""What has no deadline of its own, within one: names of hosts to addresses, and the wait for a socket."""

import select
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from sunup.lookup.store import StoreUnavailable


class Place(NamedTuple):
    """An address of a host. `to`: as `socket.connect` takes it."""

    family: socket.AddressFamily
    to: tuple[Any, ...]


def resolve(host: str, port: int, deadline: float) -> Sequence[Place]:
    """Where `host` is. Raises StoreUnavailable when nobody knows, or not by `deadline` (monotonic seconds)."""
    with suppress(OSError):  # a number is no question to anybody
        return _places(host, port, socket.AI_NUMERICHOST)
    found: list[Sequence[Place] | OSError] = []

    def ask() -> None:
        try:
            found.append(_places(host, port, 0))
        except OSError as error:
            found.append(error)

    thread = threading.Thread(target=ask, name="resolver", daemon=True)  # one that hangs must not hold up the end
    thread.start()
    thread.join(max(0.0, deadline - time.monotonic()))
    if not found:
        raise StoreUnavailable(f"nobody said in time where {host} is")
    if isinstance(found[0], OSError):
        raise StoreUnavailable(f"nobody knows where {host} is: {found[0]}")
    return found[0]


def _places(host: str, port: int, flags: int) -> Sequence[Place]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [Place(family, to) for family, _, _, _, to in found]


def left(deadline: float) -> float:
    """Seconds until `deadline`. Raises TimeoutError when it has passed."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def shares(count: int, deadline: float) -> Iterator[float]:
    """Until when each of `count` addresses may be tried, one after the other: one that is silent leaves the others
    their time."""
    for rest in range(count, 0, -1):
        now = time.monotonic()
        yield now + (deadline - now) / rest


def ready(descriptor: int, *, reads: bool, writes: bool, seconds: float) -> tuple[bool, bool]:
    """Whether it can be read and written, as asked, waiting no longer than `seconds`. An end can be read.

    By poll: select takes no descriptor above 1023.
    """
    asked = select.poll()
    asked.register(descriptor, select.POLLIN * reads | select.POLLOUT * writes)
    found = dict(asked.poll(1000 * seconds)).get(descriptor, 0)
    ended = bool(found & (select.POLLERR | select.POLLHUP | select.POLLNVAL))
    return reads and (ended or bool(found & select.POLLIN)), writes and (ended or bool(found & select.POLLOUT))
