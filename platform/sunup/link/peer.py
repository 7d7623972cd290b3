"""Another Sunup process as this one knows it: a channel to it and a pidfd that tells of its end.

Whoever starts a process listens on its socket first and connects before the process is born, so no start-up race needs
a retry; whoever finds a process already there connects the same way. Both begin with `hello`.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from sunup.link import channel as link
from sunup.link.channel import Channel, Message


class Peer:
    """One process. `on_message` gets what it says; `on_end` is called once, when the process has ended."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        on_message: Callable[["Peer", Message], None],
        on_end: Callable[["Peer"], None],
    ) -> None:
        self._loop = loop
        self._on_end = on_end
        self.pid = 0
        self.ended = asyncio.Event()
        self._pidfd = -1
        self.channel = Channel(loop, sock, lambda _, message: on_message(self, message), lambda _: None)
        self.channel.send({"op": "hello", "role": "supervisor"})

    def __repr__(self) -> str:
        return f"Peer(pid={self.pid}, {self.channel})"

    def watch(self, pid: int, pidfd: int | None = None) -> None:
        """Follow the process to its end. Takes over `pidfd`, or opens one (the process must be known to live)."""
        self.pid = pid
        self._pidfd = os.pidfd_open(pid) if pidfd is None else pidfd
        self._loop.add_reader(self._pidfd, self._ended)

    def kill(self) -> None:
        """End it now (SIGKILL through the pidfd, so never a stranger with the same number)."""
        if self._pidfd >= 0:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _ended(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        try:
            os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            pass  # somebody else's child: its parent, or init, reaps it
        self.channel.pump()  # what it said last comes before the news of its end
        self.channel.close()
        self.ended.set()
        self._on_end(self)


def prepare(path: Path) -> tuple[socket.socket, socket.socket]:
    """For a process about to be born: its listening socket, and a connection that already waits in its backlog."""
    own = link.listen(path)
    return own, link.connect(path)


def find(path: Path) -> socket.socket | None:
    """A connection to the process listening at `path`; None when it has died (its socket file is removed)."""
    try:
        return link.connect(path)
    except OSError:
        path.unlink(missing_ok=True)
        return None
