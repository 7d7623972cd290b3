"""A worker: a process forked from the nursery that serves one bundle or, without one, is the front.

It listens on its own socket, for the door, which passes connections to it, and for the supervisor. It loads before it
looks at that socket: what is said to it meanwhile waits there.
"""

import asyncio
import gc
import logging
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uvloop

from sunup.errors import SunupError
from sunup.limits import FDS_PER_MESSAGE_MAX
from sunup.link.channel import Channel, Message
from sunup.link.process import name_process
from sunup.link.states import State, map_states
from sunup.serve import log
from sunup.serve.front import FrontHandler
from sunup.serve.handler import FunctionHandler
from sunup.serve.http.connection import Connection
from sunup.serve.http.message import Handler
from sunup.serve.opening import Opened, open_front, open_function

_LOG = logging.getLogger(__name__)
LAST_WORDS_SECONDS = 2.0  # s a worker that cannot serve waits for the supervisor to hear why
BIRTH = ("function", "revision", "digest", "bundle", "model", "settings", "prove", "cost")


def born(spec: dict[str, Any], fds: list[int]) -> None:
    """The life of a new process. `spec`: what the supervisor asked for; `fds`: its own socket, then what it gets."""
    name_process(f"sunup-{spec['function'] or 'front'}")
    log.configure(Path(spec["log"]), function=spec["function"], revision=spec["revision"])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(live(spec, fds, time.monotonic()))


async def live(spec: dict[str, Any], fds: list[int], begun: float) -> None:
    """Load, serve, drain."""
    worker = Worker(spec, fds)
    try:
        front = spec["function"] is None
        opened = await (open_front(Path(spec["run"]), fds[1]) if front else open_function(spec))
    except SunupError as error:
        _LOG.error("cannot serve: %s", error.message)
        worker.fail(error.code, error.message)
    except Exception as error:
        _LOG.exception("cannot serve")
        worker.fail("internal", f"{error!r}; the function's log says more.")
    else:
        gc.freeze()  # what serves for good is never scanned again
        gc.set_threshold(50_000, 20, 100)
        timings = {"fork": begun - spec["asked"], **opened.timings}
        worker.serve(opened, timings)
        _LOG.info("ready", extra={"ms": {stage: round(1000 * seconds, 3) for stage, seconds in timings.items()}})
    await worker.ended.wait()
    _LOG.info("ended")


class Worker:
    """The process as door and supervisor see it: who is connected, which connections it holds, how it ends."""

    def __init__(self, spec: Mapping[str, Any], fds: list[int]) -> None:
        self._spec = spec
        self._own = socket.socket(fileno=fds[0])
        self._handed_over = fds[1:]  # a listening socket to give to an adopter: the front's
        self._states = map_states(Path(spec["run"]) / f"{spec['id']}.states")
        self._loop = asyncio.get_running_loop()
        self._born = self._loop.time()
        self._handler: Handler | None = None
        self._timings: dict[str, float] = {}
        self._cost: tuple[int, float] | None = None
        self._error: dict[str, str] | None = None
        self._ready_at = 0.0
        self._woken = False
        self._door: Channel | None = None
        self._supervisor: Channel | None = None
        self._held: dict[int, tuple[Connection, socket.socket]] = {}
        self._draining = False
        self.ended = asyncio.Event()

    def __repr__(self) -> str:
        return f"Worker({self._spec['id']}, connections={len(self._held)}, draining={self._draining})"

    def serve(self, opened: Opened, timings: dict[str, float]) -> None:
        """Loaded: begin to listen."""
        self._handler = opened.handler
        self._cost = opened.cost
        self._timings = timings
        self._ready_at = self._loop.time()
        self._listen()

    def fail(self, code: str, message: str) -> None:
        """Cannot serve: tell the supervisor why, then end."""
        self._error = {"code": code, "message": message}
        self._loop.call_later(LAST_WORDS_SECONDS, self.ended.set)
        self._listen()

    # --- what connections tell (serve/links.py) -----------------------------------------------------------------------

    def state(self, slot: int, state: State) -> None:
        """One byte in shared memory, for the door to read if this process dies."""
        self._states[slot] = state

    def release(self, slot: int) -> None:
        """A connection ended."""
        del self._held[slot]
        self._tell_door({"op": "release", "slot": slot})

    def hand_back(self, slot: int, pending: bytes) -> None:
        """A connection goes back to the door; without a door, it ends here."""
        del self._held[slot]
        if not self._tell_door({"op": "back", "slot": slot}, pending):
            _LOG.warning("a connection could not be handed back: the door is away")

    # --- who connects -------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        self._own.setblocking(False)
        self._loop.add_reader(self._own.fileno(), self._acceptable)

    def _acceptable(self) -> None:
        try:
            sock, _ = self._own.accept()
        except BlockingIOError:
            return
        Channel(self._loop, sock, self._heard, self._closed)

    def _closed(self, channel: Channel) -> None:
        if channel is self._door:
            self._door = None
            self._end_if_drained()
        elif channel is self._supervisor:
            self._supervisor = None

    def _heard(self, channel: Channel, message: Message) -> None:
        head = message.head
        match head["op"]:
            case "take":
                self._take(head, message)
            case "drain":
                self._drain()
            case "hello" if head["role"] == "door":
                self._meet_door(channel)
            case "hello":
                self._meet_supervisor(channel)
            case "function" | "forget":
                assert isinstance(self._handler, FrontHandler)
                self._handler.heard(head)

    def _meet_supervisor(self, channel: Channel) -> None:
        self._supervisor = channel
        birth = {name: self._spec[name] for name in BIRTH}
        hello = {"op": "hello", "pid": os.getpid(), "slot": self._spec["slot"], "born": self._born, "birth": birth}
        channel.send(hello, fds=self._handed_over)
        if self._error is not None:
            channel.send({"op": "failed", "error": self._error})
            self.ended.set()
        else:
            channel.send({"op": "ready", "timings": self._timings, "cost": self._cost})

    def _meet_door(self, channel: Channel) -> None:
        """A door connected. If it replaces one that died, what that one said last comes first; then it gets duplicates
        of every connection held here."""
        while self._door is not None and not self._door.closed:
            self._door.pump()
        self._door = channel
        if self._error is not None:
            return
        channel.send({"op": "ready"})
        held = list(self._held.items())
        for start in range(0, len(held), FDS_PER_MESSAGE_MAX):
            part = held[start : start + FDS_PER_MESSAGE_MAX]
            slots, fds = [slot for slot, _ in part], [sock.fileno() for _, (_, sock) in part]
            channel.send({"op": "mine", "slots": slots}, fds=fds)

    # --- connections --------------------------------------------------------------------------------------------------

    def _take(self, head: dict[str, Any], message: Message) -> None:
        """A connection from the door, with the bytes it read."""
        assert self._handler is not None
        slot = head["slot"]
        self._states[slot] = State.READING
        sock = socket.socket(fileno=message.fds[0])
        sock.setblocking(False)
        connection = Connection(self._handler, self, slot, message.data)
        self._held[slot] = (connection, sock)
        if not self._woken:
            self._wake(head["since"])
        self._loop.create_task(self._loop.connect_accepted_socket(lambda: connection, sock))

    def _wake(self, since: float) -> None:
        """The first connection: if it waited for this birth, its answer and the supervisor tell what that took."""
        self._woken = True
        if since < self._ready_at and self._timings:
            spent = sum(self._timings.values())
            cold = {"hold": max(0.0, self._loop.time() - since - spent), **self._timings}
            if isinstance(self._handler, FunctionHandler):
                self._handler.cold = cold
            if self._supervisor is not None:
                self._supervisor.send({"op": "woke", "cold": cold})

    def _drain(self) -> None:
        self._draining = True
        for connection, _ in list(self._held.values()):
            connection.drain()
        self._end_if_drained()

    def _end_if_drained(self) -> None:
        """Everything is answered and handed back, and has left for the door, whose socket holds it."""
        if self._draining and not self._held and (self._door is None or self._door.idle):
            self.ended.set()

    def _tell_door(self, head: dict[str, Any], data: bytes = b"") -> bool:
        told = self._door is not None and self._door.send(head, data)
        if self._draining:
            self._loop.call_soon(self._end_if_drained)
        return told
