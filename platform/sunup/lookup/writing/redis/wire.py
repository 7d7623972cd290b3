"""One blocking connection to a Redis server: commands out, replies back, everything within a deadline."""

import socket
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

import hiredis

from sunup.lookup.store import StoreUnavailable
from sunup.lookup.stores.redis.address import Address
from sunup.lookup.stores.redis.connect import command
from sunup.lookup.writing.within import left, ready, resolve, shares

_RECEIVE_BYTES: Final = 64 * 1024


class Asked(NamedTuple):
    """One command that has one reply. `key`: what it is about, by which a cluster finds who is to be asked."""

    key: bytes
    data: bytes


class Servers(Protocol):
    """A place where Redis is. Errors of single commands are among the replies, as hiredis gives them; everything else
    is StoreUnavailable, after which it may be asked again."""

    def ask(self, asked: Sequence[Asked], deadline: float) -> list[Any]:
        """A reply for each. `deadline` is monotonic seconds."""
        ...

    def everywhere(self, data: bytes, deadline: float) -> list[Any]:
        """The replies to one command of every server that takes writes, in an order of their own."""
        ...

    def close(self) -> None:
        """Let go of connections: who is asked next is found anew."""
        ...


class Wire:
    """A connection that has authenticated, chosen its database and answered; of no use after an error."""

    def __init__(self, at: Address, deadline: float, *, master: bool = False, first: Sequence[bytes] = ()) -> None:
        """Connect. With `master`, only to one. `first`: commands that are sent in advance of all others."""
        self.at = at
        self._reader = hiredis.Reader()
        self._socket = _connected(at, deadline)
        try:
            self._greet(first, deadline, master=master)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<Wire {self.at}>"

    @property
    def idle(self) -> bool:
        """Whether nothing has come since the last reply: neither an end nor what nobody asked for."""
        number = self._socket.fileno()
        return number >= 0 and not any(ready(number, reads=True, writes=False, seconds=0.0))

    def ask(self, data: bytes, count: int, deadline: float) -> list[Any]:
        """Send commands that get `count` replies, and wait for them. Raises StoreUnavailable."""
        self.send(data, deadline)
        return self.receive(count, deadline)

    def send(self, data: bytes, deadline: float) -> None:
        rest = memoryview(data)
        try:
            while rest:
                self._socket.settimeout(left(deadline))
                rest = rest[self._socket.send(rest) :]
        except OSError as error:
            raise self._lost(error) from error

    def receive(self, count: int, deadline: float) -> list[Any]:
        replies: list[Any] = []
        try:
            while len(replies) < count:
                reply = self._reader.gets()
                if reply is not False:
                    replies.append(reply)
                    continue
                self._socket.settimeout(left(deadline))
                data = self._socket.recv(_RECEIVE_BYTES)
                if not data:
                    raise ConnectionResetError("closed by the server")
                self._reader.feed(data)
        except (OSError, hiredis.ProtocolError) as error:
            raise self._lost(error) from error
        return replies

    def close(self) -> None:
        self._socket.close()

    def _greet(self, first: Sequence[bytes], deadline: float, *, master: bool) -> None:
        at, words = self.at, []
        if at.password:
            user = [at.username.encode()] if at.username else []
            words.append(command(b"AUTH", *user, at.password.encode()))
        if at.db:
            words.append(command(b"SELECT", b"%d" % at.db))
        words += [*first, command(b"ROLE") if master else command(b"PING")]
        replies = self.ask(b"".join(words), len(words), deadline)
        for reply in replies:
            if isinstance(reply, Exception):
                raise StoreUnavailable(f"{at} refused: {reply}")
        if master and replies[-1][0] != b"master":
            raise StoreUnavailable(f"{at} is not a master")

    def _lost(self, error: Exception) -> StoreUnavailable:
        says = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        return StoreUnavailable(f"{self.at}: the connection was lost ({says})")


def _connected(at: Address, deadline: float) -> socket.socket:
    failure: OSError = OSError("no address")
    places = resolve(at.host, at.port, deadline)
    for place, until in zip(places, shares(len(places), deadline), strict=True):
        made = socket.socket(place.family, socket.SOCK_STREAM)
        try:
            made.settimeout(left(until))
            made.connect(place.to)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if at.tls is None:
                return made
            made.settimeout(left(until))
            return at.tls.wrap_socket(made, server_hostname=at.host)
        except OSError as error:  # of TLS, too
            made.close()
            failure = error
    says = "no answer in time" if isinstance(failure, TimeoutError) else str(failure)
    raise StoreUnavailable(f"cannot connect to {at}: {says}")
