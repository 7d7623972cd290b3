"""What a retired door still has, on its way to the door that takes over."""

import asyncio
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

from sunup.engine.door.clients import Clients
from sunup.engine.door.held import Held
from sunup.engine.door.target import Target
from sunup.limits import DRAIN_SECONDS_MAX
from sunup.link import channel as link
from sunup.link.channel import Channel

LOOK_SECONDS = 0.02  # between looks at what still has to leave


class Handover:
    """Takes every connection that is the door's own, and keeps it until the other door is known; then passes it there
    with the bytes that were read. `place`: where this door listens for supervisors, and the other one will."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clients: Clients,
        targets: Mapping[str | None, Target],
        place: Path,
    ) -> None:
        self._place = place
        self._inode = place.stat().st_ino
        self._loop = loop
        self._clients = clients
        self._targets = targets
        self._kept: list[Held] = []
        self._to: Channel | None = None
        clients.retire(self.give)
        for target in targets.values():
            while target.queue:
                self._kept.append(target.next())

    def __repr__(self) -> str:
        return f"Handover(kept={len(self._kept)}, to={self._to})"

    @property
    def begun(self) -> bool:
        """Whether the other door is known: there is no way back."""
        return self._to is not None

    def give(self, held: Held) -> None:
        """Pass a connection on, with the bytes that were read of it."""
        if self._to is None:
            self._kept.append(held)
            return
        self._to.send({"op": "have"}, held.data, [held.sock.fileno()])
        held.sock.close()

    def when_quiet(self, call: Callable[[], object]) -> None:
        """Call once what was passed to workers has left: they hear the other door only behind it."""
        links = [worker.channel for target in self._targets.values() for worker in target.workers.values()]
        if all(channel is None or channel.idle for channel in links):
            call()
        else:
            self._loop.call_later(LOOK_SECONDS, self.when_quiet, call)

    def begin(self, sock: socket.socket, ended: Callable[[], None]) -> None:
        """A connection to the other door. It says nothing on it: what it said would be unread when this process ends,
        and the kernel would take what is under way to it along (ECONNRESET).

        `ended()`: every worker has met it, what was given has left, and who was refused has had a moment to read why.
        """
        self._to = Channel(self._loop, sock, lambda _, __: None, lambda _: None)
        self._to.send({"op": "hello", "role": "door"})
        self._loop.call_later(DRAIN_SECONDS_MAX, ended)
        for held in self.take_back():
            self.give(held)
        self._look(self._to, ended)

    def overtaken(self, ended: Callable[[], None]) -> bool:
        """The supervisor died. Whether the other door has the place already: then it gets everything, as in `begin`."""
        try:
            if self._place.stat().st_ino == self._inode:
                return False
            self.begin(link.connect(self._place), ended)
        except OSError:
            ended()  # it is gone, or not for this user to reach: what is held here is lost as with a door that died
        return True

    def take_back(self) -> list[Held]:
        """What is kept, for the door to serve on."""
        kept, self._kept = self._kept, []
        return kept

    def _look(self, to: Channel, ended: Callable[[], None]) -> None:
        workers = any(target.workers for target in self._targets.values())
        if not workers and (to.idle or to.closed) and not self._clients.lingering:
            ended()
        else:
            self._loop.call_later(LOOK_SECONDS, self._look, to, ended)
