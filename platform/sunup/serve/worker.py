"""A worker: a process forked from the nursery that serves one bundle or, without one, is the front.

It listens on its own socket, for the door, which passes connections to it, and for the supervisor.
"""

import asyncio
import gc
import logging
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvloop

from sunup.access.guard import Guard
from sunup.errors import SunupError
from sunup.execute.executor import Executor
from sunup.limits import FDS_PER_MESSAGE_MAX, IDLE_SECONDS_MAX, TRIM_SECONDS
from sunup.link.channel import Channel, Message
from sunup.link.process import name_process, trim_heap
from sunup.link.states import State, map_states
from sunup.serve.attached import Attached
from sunup.serve.front import FrontHandler
from sunup.serve.handler import FunctionHandler
from sunup.serve.http.connection import Connection
from sunup.serve.http.message import Handler
from sunup.serve.opening import Opened, access_rate, open_front, open_function, settle
from sunup.serve.proving import prover
from sunup.serve.telemetry import log
from sunup.settings import CONFLUENT, EMBEDDED, FEATURES_URL, PICTURES, STREAM_BROKER, STREAM_CLIENT, TAKES

_LOG = logging.getLogger(__name__)

Life = Callable[[dict[str, Any], list[int], float, Executor | None], Coroutine[Any, Any, None]]


def prepare(spec: Mapping[str, Any]) -> None:
    """Import, in the nursery, what a process of this kind needs and others do not: its siblings share it then."""
    if spec["role"] in ("stream", "watcher"):
        _life(spec)
        if spec["settings"][STREAM_BROKER] == EMBEDDED:
            pass  # needs none of these
        elif spec["role"] == "stream" and spec["settings"].get(STREAM_CLIENT) == CONFLUENT:
            with suppress(ImportError):  # whoever opens the broker says what to install
                import sunup.stream.kafka.confluent.broker  # confluent-kafka: 0.1 s; nothing is made before the fork
        else:
            import sunup.stream.kafka.python  # kafka-python: 0.25 s and 10 MB
        gc.freeze()
    if spec["settings"].get(TAKES) == PICTURES and "sunup.wire.image.pictures" not in sys.modules:
        import sunup.wire.image.pictures  # Pillow: 60 ms that others are spared

        gc.freeze()
    if spec["settings"].get(FEATURES_URL, "").startswith("postgres") and "psycopg" not in sys.modules:
        with suppress(ImportError):  # whoever opens the store says what to install
            import sunup.lookup.stores.postgres.store  # noqa: F401  # psycopg: 150 ms and 10 MB that others are spared

            gc.freeze()


def born(spec: dict[str, Any], fds: list[int], kept: Executor | None = None) -> None:
    """The life of a new process. `spec`: what the supervisor asked for; `fds`: its own socket, then what it gets;
    `kept`: its model, if the nursery has it open."""
    name_process(f"sunup-{spec['function'] or spec['role']}")
    log.configure(Path(spec["log"]), function=spec["function"], revision=spec["revision"] or None)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_life(spec)(spec, fds, time.monotonic(), kept))


def _life(spec: Mapping[str, Any]) -> Life:
    # Imported in the nursery by `prepare`: 50 ms that an engine without streams does without.
    if spec["role"] == "stream":
        from sunup.serve.streams.worker import live as live_stream  # see above: 50 ms

        return live_stream
    if spec["role"] == "watcher":
        from sunup.serve.streams.watcher import live as live_watcher  # see above: 50 ms

        return live_watcher
    return prover.live if spec["role"] == "prover" else live


async def live(spec: dict[str, Any], fds: list[int], begun: float, kept: Executor | None) -> None:
    """Load, serve, drain."""
    worker = Worker(spec, fds)
    attached = worker.attached
    try:
        front = spec["role"] == "front"
        opened = await (open_front(Path(spec["run"]), fds[1], worker.guard) if front else open_function(spec, kept))
    except SunupError as error:
        _LOG.error("cannot serve: %s", error.message)
        attached.fail(error.code, error.message)
    except Exception as error:
        _LOG.exception("cannot serve")
        attached.fail("internal", f"{error!r}; the function's log says more.")
    else:
        settle()
        timings = {"fork": begun - spec["asked"], **opened.timings}
        worker.serve(opened, timings)
        if kept is None:  # loading a model took twice what it keeps
            asyncio.get_running_loop().call_later(TRIM_SECONDS, trim_heap)
        _LOG.info("ready", extra={"ms": {stage: round(1000 * seconds, 3) for stage, seconds in timings.items()}})
    await attached.ended.wait()
    worker.close()
    _LOG.info("ended")


class Worker:
    """The process as door and supervisor see it: who is connected, which connections it holds, how it ends."""

    idle_s: float = IDLE_SECONDS_MAX
    leaving: bool = False  # a connection outlives this process: it goes back to the door

    def __init__(self, spec: Mapping[str, Any], fds: list[int]) -> None:
        self._spec = spec
        # Beyond its own socket: a listening socket to give to an adopter, the front's.
        self.attached = Attached(spec, fds, self._heard, self._closed)
        self._states = map_states(Path(spec["run"]) / f"{spec['id']}.states")
        self._loop = asyncio.get_running_loop()
        self._handler: Handler | None = None
        self.guard = Guard.heard(spec["guard"])
        self._timings: dict[str, float] = {}
        self._ready_at = 0.0
        self._woken = False
        self._door: Channel | None = None
        self._held: dict[int, tuple[Connection, socket.socket]] = {}
        self._draining = False

    def __repr__(self) -> str:
        return f"Worker({self._spec['id']}, connections={len(self._held)}, draining={self._draining})"

    def serve(self, opened: Opened, timings: dict[str, float]) -> None:
        """Loaded: begin to listen."""
        self._handler = opened.handler
        self._handler.guard = self.guard
        self._timings = timings
        self._ready_at = self._loop.time()
        self.attached.ready(timings, opened.cost)

    def close(self) -> None:
        """Everything is answered: what is still to be written about it is written."""
        if isinstance(self._handler, FunctionHandler):
            self._handler.close()

    # --- what connections tell (serve/http/links.py) ------------------------------------------------------------------

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

    def _closed(self, channel: Channel) -> None:
        if channel is self._door:
            self._door = None
            self._end_if_drained()

    def _heard(self, channel: Channel, message: Message) -> None:
        head = message.head
        match head["op"]:
            case "take":
                self._take(head, message)
            case "drain":
                self._drain()
            case "yield":
                self._yield(head["count"], tuple(head["silent"]))
            case "hello" if head["role"] == "door":
                self._meet_door(channel)
            case "guard":
                self.guard = Guard.heard(head)
                if self._handler is not None:
                    self._handler.guard = self.guard
                if isinstance(self._handler, FunctionHandler) and self._handler.access is not None:
                    self._handler.access.set_rate(access_rate(head))
            case "function" | "forget":
                assert isinstance(self._handler, FrontHandler)
                self._handler.heard(head)

    def _meet_door(self, channel: Channel) -> None:
        """A door connected. If it replaces one, what that one said last comes first: it has died, or passes nothing any
        more. Then the new one gets duplicates of every connection held here, and only behind them the word to pass
        more: it must know which slots are used. The old one, if it lives, hears that nothing more comes to it."""
        before = self._door
        if before is not None:
            before.pump(None)
        self._door = channel
        if self.attached.error is not None:
            return
        held = list(self._held.items())
        for start in range(0, len(held), FDS_PER_MESSAGE_MAX):
            part = held[start : start + FDS_PER_MESSAGE_MAX]
            slots, fds = [slot for slot, _ in part], [sock.fileno() for _, (_, sock) in part]
            channel.send({"op": "mine", "slots": slots}, fds=fds)
        channel.send({"op": "ready"})
        if before is not None:
            before.send({"op": "parted"})

    # --- connections --------------------------------------------------------------------------------------------------

    def _take(self, head: dict[str, Any], message: Message) -> None:
        """A connection from the door, with the bytes it read."""
        assert self._handler is not None
        slot = head["slot"]
        self._states[slot] = State.READING
        sock = socket.socket(fileno=message.fds[0])
        sock.setblocking(False)
        hold = max(0.0, self._loop.time() - head["since"])
        connection = Connection(self._handler, self, slot, message.data, hold)
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
            self.attached.tell({"op": "woke", "cold": cold})

    def _yield(self, count: int, silent: tuple[float, float]) -> None:
        """The door wants so many connections back: for another worker, or to close those that do nothing."""
        for connection, _ in list(self._held.values()):
            if count <= 0:
                return
            count -= connection.drain(silent=silent)

    def _drain(self) -> None:
        self._draining = True
        for connection, _ in list(self._held.values()):
            connection.drain()
        self._end_if_drained()

    def _end_if_drained(self) -> None:
        """Everything is answered and handed back, and has left for the door, whose socket holds it."""
        if self._draining and not self._held and (self._door is None or self._door.idle):
            self.attached.ended.set()

    def _tell_door(self, head: dict[str, Any], data: bytes = b"") -> bool:
        told = self._door is not None and self._door.send(head, data)
        if self._draining:
            self._loop.call_soon(self._end_if_drained)
        return told
