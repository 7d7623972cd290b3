"""A process as its supervisor sees it: it listens on a socket of its own, and says to whoever connects what it is.

It loads before it looks at that socket: what is said to it meanwhile waits there.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

from sunup.link.channel import Channel, Message
from sunup.link.process import introduction

LAST_WORDS_SECONDS: Final = 2.0  # s a process that cannot serve waits for the supervisor to hear why
BIRTH: Final = ("role", "function", "revision", "digest", "bundle", "model", "settings", "prove", "cost")


class Attached:
    """The supervisor's end of a process. `spec`: what it was born with; `fds`: its own socket, then what it hands over
    to an adopter. `heard` gets every message but a supervisor's hello; `closed` learns of connections that ended.

    `ended` is set when the process should end.
    """

    def __init__(
        self,
        spec: Mapping[str, Any],
        fds: list[int],
        heard: Callable[[Channel, Message], None],
        closed: Callable[[Channel], None] = lambda _: None,
    ) -> None:
        self._spec = spec
        self._own = socket.socket(fileno=fds[0])
        self._handed_over = fds[1:]
        self._others_heard = heard
        self._others_closed = closed
        self._loop = asyncio.get_running_loop()
        self._born = self._loop.time()
        self._supervisor: Channel | None = None
        self._ready: dict[str, Any] = {}
        self.error: dict[str, str] | None = None
        self.ended = asyncio.Event()

    def ready(self, timings: Mapping[str, float], cost: tuple[int, float, float] | None = None) -> None:
        """Loaded: begin to listen."""
        self._ready = {"op": "ready", "timings": dict(timings), "cost": cost}
        self._listen()

    def fail(self, code: str, message: str) -> None:
        """Cannot serve: tell the supervisor why, then end."""
        self.error = {"code": code, "message": message}
        self._loop.call_later(LAST_WORDS_SECONDS, self.ended.set)
        self._listen()

    def tell(self, head: dict[str, Any]) -> None:
        """Say something to the supervisor; nobody hears it while there is none."""
        if self._supervisor is not None:
            self._supervisor.send(head)

    def _listen(self) -> None:
        self._own.setblocking(False)
        self._loop.add_reader(self._own.fileno(), self._acceptable)
        self._acceptable()  # supervisor and door have been waiting since before the birth: no turn of the loop for each

    def _acceptable(self) -> None:
        while True:
            try:
                sock, _ = self._own.accept()
            except BlockingIOError:
                return
            # Two doors may have connected while this process loaded: the one that came first is heard first.
            Channel(self._loop, sock, self._heard, self._closed).pump()

    def _closed(self, channel: Channel) -> None:
        if channel is self._supervisor:
            self._supervisor = None
        self._others_closed(channel)

    def _heard(self, channel: Channel, message: Message) -> None:
        if message.head["op"] == "hello" and message.head["role"] == "supervisor":
            self._meet(channel)
        self._others_heard(channel, message)

    def _meet(self, channel: Channel) -> None:
        self._supervisor = channel
        birth = {name: self._spec[name] for name in BIRTH}
        hello = {"op": "hello", **introduction(), "slot": self._spec["slot"], "born": self._born, "birth": birth}
        channel.send(hello, fds=self._handed_over)
        if self.error is not None:
            channel.send({"op": "failed", "error": self.error})
            self.ended.set()
        else:
            channel.send(self._ready)
