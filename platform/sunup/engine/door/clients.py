"""Client connections while they are the door's: accepted, read up to the request line, refused, or closed in time."""

import asyncio
import errno
import resource
import socket
from collections.abc import Callable

from sunup.engine.door.held import Held, Look
from sunup.engine.door.room import Room
from sunup.errors import BadRequest, BodyTimeout, CallError, Overloaded
from sunup.limits import DOOR_SPARE_DESCRIPTORS, HEAD_SECONDS_MAX, IDLE_SECONDS_MAX, LINGER_SECONDS_MAX

SWEEP_SECONDS = 0.25
SHED = 64  # connections closed at once when descriptors run short
BURST = 64  # connections accepted in one turn of the loop, so that everything else has its turn too
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Clients:
    """Accepts on `listener`; `on_routed(held)` gets each connection whose request line is complete, or whose head is,
    with `whole_heads`: they are looked at for keys. `on_full(count)` is asked to have workers hand back so many idle
    connections when descriptors run short; what comes back idle soon after is closed. `room`: for bytes read."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        *,
        room: Room,
        on_routed: Callable[[Held], None],
        on_full: Callable[[int], None],
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._room = room
        self._on_routed = on_routed
        self._on_full = on_full
        self._full_until = 0.0  # monotonic seconds: descriptors are short
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = limit - min(DOOR_SPARE_DESCRIPTORS, limit // 4)  # the kernel gives the lowest free number
        self._reading: dict[Held, float] = {}  # connection -> monotonic second at which it has waited long enough
        self._lingering: dict[Held, float] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = True
        self._elsewhere: Callable[[Held], None] | None = None
        self.whole_heads = False
        listener.setblocking(False)

    def __repr__(self) -> str:
        return f"Clients(reading={len(self._reading)}, lingering={len(self._lingering)}, closed={self._closed})"

    @property
    def lingering(self) -> bool:
        """Whether some client still has a moment to read its refusal."""
        return bool(self._lingering)

    def open(self) -> None:
        """Begin intake."""
        if self._closed:
            self._closed, self._elsewhere = False, None
            self._loop.add_reader(self._listener.fileno(), self._acceptable)

    def close(self) -> None:
        """Stop intake, and end the connections nothing was asked on. The listening socket stays, for the next door."""
        self.retire(Held.close)

    def retire(self, elsewhere: Callable[[Held], None]) -> None:
        """Stop intake. `elsewhere(held)` gets the connections nothing was asked on, and those that come back."""
        self._closed = True
        self._loop.remove_reader(self._listener.fileno())
        for held in list(self._reading):
            self._leave(held)
            elsewhere(held)
        self._elsewhere = elsewhere

    def take_back(self, held: Held, data: bytes) -> None:
        """A connection between requests (`data` empty), or at the start of one that its worker did not own."""
        held.data = data
        held.since = self._loop.time()
        held.route = None
        if self._elsewhere is not None:
            self._elsewhere(held)
            return
        if not data and self._loop.time() < self._full_until:
            held.close()
            return
        self._await_bytes(held, HEAD_SECONDS_MAX if data else IDLE_SECONDS_MAX)
        if data:
            self._look(held)

    def refuse(self, held: Held, error: CallError) -> None:
        """Answer with an error, then give the client a moment to read it before the socket goes."""
        held.refuse(error)
        if held.sock.fileno() < 0:
            return
        self._lingering[held] = self._loop.time() + LINGER_SECONDS_MAX
        self._loop.add_reader(held.sock.fileno(), self._discard, held)
        self._sweep_later()

    def _acceptable(self) -> None:
        for _ in range(BURST):
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _FULL:
                    self._shed()
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._begin(Held(sock, self._loop.time()))
            if sock.fileno() >= self._most:
                self._shed()
                return

    def _begin(self, held: Held) -> None:
        """A new connection. Its first bytes are usually here, and then its descriptor is never watched."""
        try:
            alive = held.read(self._loop.time())
        except BlockingIOError:
            alive = True
        if not alive:
            held.close()
        elif held.data and held.look(whole=self.whole_heads) is Look.ROUTED:
            self._on_routed(held)
        else:
            self._await_bytes(held, HEAD_SECONDS_MAX)
            if held.data:
                self._look(held)

    def _shed(self) -> None:
        """Descriptors run short: the rest stays in the backlog until idle connections have made room, which a client
        must expect of any server (RFC 9112, 9.5). Those that wait here with nothing said go first."""
        self._full_until = self._loop.time() + 4 * SWEEP_SECONDS
        self._loop.remove_reader(self._listener.fileno())
        self._loop.call_later(SWEEP_SECONDS, self._accept_again)
        silent = [held for held in self._reading if not held.data and held.since < self._loop.time() - SWEEP_SECONDS]
        for held in silent[:SHED]:
            self._leave(held)
            held.close()
        if len(silent) < SHED:
            self._on_full(SHED - len(silent))

    def _accept_again(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listener.fileno(), self._acceptable)

    def _await_bytes(self, held: Held, seconds: float) -> None:
        self._reading[held] = self._loop.time() + seconds
        self._room.used += len(held.data)
        self._loop.add_reader(held.sock.fileno(), self._readable, held)
        self._sweep_later()

    def _leave(self, held: Held) -> None:
        self._loop.remove_reader(held.sock.fileno())
        del self._reading[held]
        self._room.used -= len(held.data)

    def _readable(self, held: Held) -> None:
        before = len(held.data)
        try:
            alive = held.read(self._loop.time())
        except BlockingIOError:
            return
        self._room.used += len(held.data) - before
        if alive:
            self._look(held)
        else:
            self._leave(held)
            held.close()

    def _look(self, held: Held) -> None:
        match held.look(whole=self.whole_heads):
            case Look.ROUTED:
                self._leave(held)
                self._on_routed(held)
            case Look.BROKEN:
                self._leave(held)
                self.refuse(held, BadRequest("This is not an HTTP/1.1 request."))
            case Look.MORE if self._room.full:
                self._leave(held)
                self.refuse(held, Overloaded("The server holds as many unfinished requests as it may."))
            case Look.MORE:
                self._reading[held] = held.since + HEAD_SECONDS_MAX

    def _discard(self, held: Held) -> None:
        held.data = b""
        try:
            if held.read(0.0):
                return
        except BlockingIOError:
            return
        self._end_linger(held)

    def _end_linger(self, held: Held) -> None:
        del self._lingering[held]
        self._loop.remove_reader(held.sock.fileno())
        held.close()

    def _sweep_later(self) -> None:
        if self._sweep is None:
            self._sweep = self._loop.call_later(SWEEP_SECONDS, self._sweep_now)

    def _sweep_now(self) -> None:
        """End what has waited too long. Runs only while something waits."""
        self._sweep = None
        now = self._loop.time()
        for held in [h for h, end in self._reading.items() if end <= now]:
            self._leave(held)
            if held.data:
                self.refuse(held, BodyTimeout(f"The request head did not arrive within {HEAD_SECONDS_MAX:g} s."))
            else:
                held.close()
        for held in [h for h, end in self._lingering.items() if end <= now]:
            self._end_linger(held)
        if self._reading or self._lingering:
            self._sweep_later()
