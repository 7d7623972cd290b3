"""The door: the process that accepts every connection and passes each one, descriptor and bytes, to a worker.

It reads a request line and no more, so a warm request crosses no proxy. It holds a connection whose function has no
worker while one is born. It keeps a duplicate of every descriptor it passed: when a worker dies, idle connections come
back unseen and the others are answered as the state byte of each says (link/states.py).
"""

import asyncio
import socket
from pathlib import Path
from typing import Any

from sunup.access.guard import Guard
from sunup.engine.door.balance import Balance
from sunup.engine.door.clients import Clients
from sunup.engine.door.handover import Handover
from sunup.engine.door.held import Held
from sunup.engine.door.room import Room
from sunup.engine.door.target import Target, WorkerLink
from sunup.errors import CallError, DeadlineExceeded, Overloaded, Unavailable
from sunup.limits import DOOR_BYTES_MAX, SUPERVISOR_SECONDS_MAX
from sunup.link import channel as link
from sunup.link.board import Board
from sunup.link.channel import Channel, Message
from sunup.link.process import introduction
from sunup.link.states import State


class Door:
    """Passes connections to workers. Told what exists by the supervisor."""

    def __init__(self, loop: asyncio.AbstractEventLoop, listener: socket.socket, run: Path) -> None:
        self._loop = loop
        self._listener = listener
        self._run = run
        self._room = Room(DOOR_BYTES_MAX)
        self._targets: dict[str | None, Target] = {None: Target(None, self._room)}
        self._supervisor: Channel | None = None
        self._expected = 0.0  # until when calls wait for the next supervisor: the last one said that it comes
        self._open = False  # it was told whom to serve
        self._handover: Handover | None = None  # another door takes over
        self._guard: Guard | None = None
        self._board = Board(run / "counters" / "door.seg", loop.call_later)
        self._balance = Balance(loop, self._targets)
        self._clients = Clients(loop, listener, room=self._room, on_routed=self._dispatch, on_full=self._balance.shed)
        self.stopped = asyncio.Event()

    def __repr__(self) -> str:
        return f"Door({self._clients}, {list(self._targets.values())})"

    # --- the supervisor -----------------------------------------------------------------------------------------------

    def meet(self, sock: socket.socket) -> None:
        """Somebody connected: a supervisor, or the door before this one. Its hello says which."""
        Channel(self._loop, sock, self._told, self._left)

    def _meet_supervisor(self, channel: Channel) -> None:
        """The one that lives now. It gets the listening socket, to keep its backlog alive, and hears what waits."""
        self._supervisor, self._expected = channel, 0.0
        channel.send({"op": "hello", **introduction(), "role": "door"}, fds=[self._listener.fileno()])
        for target in self._targets.values():
            if target.queue:
                channel.send({"op": "wake", "function": target.name, "waiting": len(target.queue)})

    def _left(self, channel: Channel) -> None:
        """A supervisor ended. A door it had begun to replace serves on, unless the other one is in its place; one that
        it told nothing yet was to be the other one, and ends."""
        if channel is not self._supervisor:
            return
        if not self._open:
            self.stopped.set()
        elif self._handover is None or self._handover.begun or self._handover.overtaken(self.stopped.set):
            return
        else:
            kept, self._handover = self._handover.take_back(), None
            self._board.muted = False
            self._clients.open()
            for held in kept:
                self._clients.take_back(held, held.data)

    def _told(self, channel: Channel, message: Message) -> None:
        head = message.head
        match head["op"]:
            case "hello" if head["role"] == "supervisor":
                self._meet_supervisor(channel)
            case "have":
                self._clients.take_back(Held(socket.socket(fileno=message.fds[0]), self._loop.time()), message.data)
            case "leaving":
                self._expected = self._loop.time() + SUPERVISOR_SECONDS_MAX
            case "retire":
                self._retire()
            case "successor" if self._handover is not None:
                self._handover.begin(socket.socket(fileno=message.fds[0]), self.stopped.set)
            case "function":
                self._function(head)
            case "guard":
                self._told_guard(Guard.heard(head))
            case "forget":
                self._forget(head["function"])
            case "attach":
                self._attach(head)
            case "drain":
                self._drain(head["worker"])
            case "close":
                self._close()
            case "stop":
                self._board.flush()
                self.stopped.set()

    def _retire(self) -> None:
        """Another door takes over: accept nothing, pass nothing to workers, and keep for it what is here."""
        self._handover = Handover(self._loop, self._clients, self._targets, self._run / "door.sock")
        for target in self._targets.values():
            self._note_queue(target)
        self._board.flush()
        self._board.muted = True
        asked = self._supervisor
        self._handover.when_quiet(lambda: asked is not None and asked.send({"op": "retired"}))

    def _told_guard(self, guard: Guard | None) -> None:
        self._guard, self._clients.whole_heads = guard, guard is not None and guard.keys is not None
        if not self._open:  # what there is, is told next; a door that it replaces has written its counters by now
            self._open, self._board = True, Board(self._run / "counters" / "door.seg", self._loop.call_later)
            self._clients.open()

    def _function(self, head: dict[str, Any]) -> None:
        """A function exists, or its routed revision changed, which the supervisor waits to hear."""
        target = self._target(head["function"])
        if self._supervisor is not None and (head["revision"] != target.revision or not target.exists):
            routed = {"function": target.name, "revision": head["revision"], "waiting": len(target.queue)}
            self._supervisor.send({"op": "routed", **routed})
            target.births.clear()  # another model takes another time to load
        target.revision = head["revision"]
        target.queue_max = head["queue_max"]
        target.timeout = head["timeout_s"]
        target.exists = True
        self._flush(target)

    def _forget(self, function: str) -> None:
        target = self._target(function)
        target.exists = False
        self._refuse_queue(target, Unavailable(f"The function {function} was removed."))
        self._board.forget(function=function)

    def _attach(self, head: dict[str, Any]) -> None:
        """A worker is being born, or outlived the last door: connect to it. It says when it is ready."""
        target = self._target(head["function"])
        name = head["worker"]
        if name in target.workers:
            return  # the supervisor is new; this door is not
        try:
            worker = WorkerLink(name, head["revision"], self._run / f"{name}.states")
            sock = link.connect(self._run / f"{name}.sock")
        except OSError:
            return  # it died at birth, which the supervisor sees by itself
        target.workers[name] = worker
        worker.channel = Channel(
            self._loop, sock, lambda _, m: self._heard(target, worker, m), lambda _: self._lost(target, worker)
        )
        worker.channel.send({"op": "hello", "role": "door"})

    def _drain(self, name: str) -> None:
        """Pass no more connections to a worker, and tell it so behind the last one."""
        for target in self._targets.values():
            worker = target.workers.get(name)
            if worker is not None and worker.channel is not None:
                worker.draining = True
                worker.channel.send({"op": "drain"})

    def _close(self) -> None:
        """Stop intake and refuse what waits. What was passed on is the workers' to finish; then it comes back here."""
        self._clients.close()
        for target in self._targets.values():
            self._refuse_queue(target, Unavailable("The server is stopping."))

    # --- clients ------------------------------------------------------------------------------------------------------

    def _dispatch(self, held: Held) -> None:
        """Pass a routed connection on, or hold it while a worker is born, or refuse it now."""
        if self._handover is not None:
            self._handover.give(held)
            return
        assert held.route is not None
        target = self._targets.get(held.route.function) if held.route.predicts else None
        if target is None or not target.exists:
            target = self._targets[None]  # unknown names, and calls that need no model, are the front's
        worker = target.choose()
        if worker is not None and worker.take(held):
            return
        if target.name is not None and self._guard is not None and self._guard.keys is not None:
            try:
                held.admit(self._guard)  # a worker would refuse it, too: a stranger wakes nobody and waits in no queue
            except CallError as error:
                self._refuse(held, error)
                return
        if (full := target.full(held)) is not None:
            self._refuse(held, full)
        elif target.late(held.since, self._loop.time()):
            self._wake_for_the_next(target)
            self._refuse(held, Overloaded(f"A worker of {target.name} will be ready too late for this call."))
        elif not self._wake(target, len(target.queue) + 1):
            self._refuse(held, Unavailable("The engine is being restarted. Try again shortly."))
        else:
            target.hold(held)
            self._note_queue(target)
            if target.timer is None:
                target.timer = self._loop.call_at(held.since + target.timeout, self._expire, target)

    def _wake(self, target: Target, waiting: int) -> bool:
        """Ask for a worker when a queue begins and each time it doubles; False when nobody is there to ask."""
        if self._supervisor is None or self._supervisor.closed:
            return self._loop.time() < self._expected
        if waiting & (waiting - 1) == 0:
            target.woken = self._loop.time() if target.woken is None else target.woken
            return self._supervisor.send({"op": "wake", "function": target.name, "waiting": waiting})
        return True

    def _wake_for_the_next(self, target: Target) -> None:
        """A call comes too early to wait for a worker, which those behind it will find; not asked for each of them."""
        if target.asks_again(self._loop.time()):
            self._wake(target, 1)
            self._note_queue(target)

    def _flush(self, target: Target) -> None:
        """Pass on what waits, oldest first."""
        if target.flush():
            self._note_queue(target)

    def _expire(self, target: Target) -> None:
        """Refuse those that waited their function's whole time limit for a worker."""
        target.timer = None
        now = self._loop.time()
        while target.queue and target.queue[0].since + target.timeout <= now:
            self._refuse(target.next(), DeadlineExceeded(f"No worker was ready within {target.timeout:g} s."))
        self._note_queue(target)
        if target.queue:
            target.timer = self._loop.call_at(target.queue[0].since + target.timeout, self._expire, target)

    def _refuse_queue(self, target: Target, error: CallError) -> None:
        while target.queue:
            self._refuse(target.next(), error)
        self._note_queue(target)

    def _refuse(self, held: Held, error: CallError) -> None:
        target = self._targets.get(held.route.function) if held.route is not None else None
        if target is not None and target.name is not None and target.exists:
            labels = {"function": target.name, "revision": str(target.revision), "code": str(error.status)}
            self._board.add("sunup_requests_total", 1.0, **labels)
        self._clients.refuse(held, error)

    def _note_queue(self, target: Target) -> None:
        if target.name is None:
            return
        self._board.put("sunup_queue_depth", float(len(target.queue)), function=target.name)
        if not target.queue and self._supervisor is not None:
            self._supervisor.send({"op": "flushed", "function": target.name})

    # --- workers ------------------------------------------------------------------------------------------------------

    def _target(self, function: str | None) -> Target:
        return self._targets.setdefault(function, Target(function, self._room))

    def _heard(self, target: Target, worker: WorkerLink, message: Message) -> None:
        head = message.head
        match head["op"]:
            case "ready":
                worker.begin()
                if worker.revision == target.revision:
                    target.was_born(self._loop.time())
                self._flush(target)
                self._balance.joined(target)
            case "release":
                if (held := worker.release(head["slot"])) is not None:
                    held.sock.close()
                self._flush(target)
            case "back":
                if (held := worker.release(head["slot"])) is not None:
                    self._clients.take_back(held, message.data)
            case "parted":
                worker.part()
            case "mine":
                worker.adopt(head["slots"], message.fds, self._loop.time())

    def _lost(self, target: Target, worker: WorkerLink) -> None:
        """A worker ended. Whatever it still held is answered by what its state bytes say it was doing."""
        del target.workers[worker.worker]
        if not target.exists and not target.workers:
            self._targets.pop(target.name, None)
        for slot, held in list(worker.held.items()):
            state = worker.state(slot)
            worker.release(slot)
            if state is State.FREE and held.route is not None:
                self._dispatch(held)  # it never took this one
            elif state is State.IDLE:
                self._clients.take_back(held, b"")
            elif state is State.WRITING:
                held.reset()
            else:
                self._refuse(held, Unavailable("The worker that had this call ended before it answered."))
        worker.close()
