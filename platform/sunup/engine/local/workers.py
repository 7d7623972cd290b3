"""The supervisor's record of every worker: births through the nursery, adoption, readiness, draining, death.

The front and the watcher of streams are workers without a function; their records are here too.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from sunup.access.rights import Rights
from sunup.engine.local.state import Revision
from sunup.limits import ADOPT_SECONDS_MAX, BIRTH_SECONDS_MAX, DRAIN_SECONDS_MAX, PROOF_SECONDS_MAX
from sunup.link.channel import Message
from sunup.link.peer import Peer, find, prepare
from sunup.link.process import PROTOCOL
from sunup.link.states import create_states
from sunup.settings import Project

UNBORN = "unborn"


class Life(Enum):
    """Where a worker is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    DEAD = "dead"


class Role(StrEnum):
    """What a worker is for."""

    CALLS = "calls"  # answers calls of a function
    STREAM = "stream"  # scores the records of a function's topic
    FRONT = "front"
    WATCHER = "watcher"
    PROVER = "prover"  # proves the bundles of a deploy of many

    @property
    def by_door(self) -> bool:
        """Whether the door passes connections to it."""
        return self in (Role.CALLS, Role.FRONT)


class Birth(NamedTuple):
    """What a worker is born with. Front and watcher have no function."""

    role: Role
    function: str | None
    revision: int
    digest: str
    bundle: str
    model: str
    settings: Mapping[str, str]
    prove: bool
    cost: tuple[int, float, float] | None  # rows, seconds of their run and of loading, as measured before


class Worker:
    """One worker process. `ready` resolves when it can serve, or fails with what it said or that it died."""

    def __init__(self, name: str, slot: int, birth: Birth, born: float) -> None:
        self.name = name
        self.slot = slot
        self.birth = birth
        self.born = born
        self.life = Life.STARTING
        self.drained = False  # it was told to end
        self.release, self.understudy = "", False  # what its code is called; to replace another one: not counted yet
        self.due: asyncio.TimerHandle | None = None  # what comes if it takes too long to be born, or to drain
        self.peer: Peer | None = None
        self.timings: dict[str, float] = {}
        self.cost: tuple[int, float, float] | None = None
        self.ended = asyncio.Event()
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ready.add_done_callback(lambda f: f.cancelled() or f.exception())  # looked at: nobody has to await it

    def __repr__(self) -> str:
        return f"Worker({self.name}, {self.birth.role}, {self.birth.function}/{self.birth.revision}, {self.life.value})"


class BirthFailed(Exception):
    """A worker said why it cannot serve (`error`: code, message), or ended without a word. UNBORN: it never was."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(error["message"])
        self.error = error


class Workers:
    """All workers, whose they are by `rights`. `fork(head, fds)` asks the nursery; `on_change(worker)` runs when one
    became ready or died."""

    def __init__(
        self,
        project: Project,
        rights: Rights,
        *,
        fork: Callable[[dict[str, Any], list[int]], bool],
        on_change: Callable[[Worker], None],
        on_message: Callable[[Worker, dict[str, Any]], None],
    ) -> None:
        self.run, self.logs, self.rights = project.run, project.logs, rights
        self._fork, self._on_change, self._on_message = fork, on_change, on_message
        self._loop = asyncio.get_running_loop()
        # A name is never used twice: the door may not have seen yet that who had it before a supervisor died is gone.
        self._last = int(1000 * self._loop.time())
        self.foreign: dict[str, Peer] = {}  # by name: workers that speak another protocol, and cannot be adopted
        self.all: dict[str, Worker] = {}
        self._by_function: dict[str | None, list[Worker]] = {}  # the scaler asks for every function at every tick

    def of(self, function: str | None, role: Role | None = None) -> list[Worker]:
        """The living workers of a function, of one role or of any."""
        return [w for w in self._by_function.get(function, ()) if role in (None, w.birth.role)]

    def serving(self, revision: Revision, role: Role) -> list[Worker]:
        """The workers of a revision that are ready or about to be."""
        alive = [w for w in self.of(revision.function, role) if w.life in (Life.STARTING, Life.READY)]
        return [w for w in alive if w.birth.revision == revision.revision and not w.understudy]

    def tell(self, head: dict[str, Any], *roles: Role) -> None:
        """Say something to every worker of these roles."""
        for worker in self.all.values():
            if worker.birth.role in roles and worker.peer is not None:
                worker.peer.channel.send(head)

    def bear(self, birth: Birth, fds: list[int]) -> Worker:
        """Begin the birth of a worker. `fds` (beside its own socket) are duplicated into it."""
        self._last += 1
        name = f"worker-{self._last}"
        used = {w.slot for w in self.of(birth.function, birth.role)}
        slot = next(s for s in range(len(used) + 1) if s not in used)
        worker = Worker(name, slot, birth, self._loop.time())
        self._add(worker)
        states, path = self.run / f"{name}.states", self.run / f"{name}.sock"
        create_states(states)
        own, sock = prepare(path)
        worker.peer = self._peer(sock, worker)
        log = self.logs / f"{birth.function or birth.role}.log"
        self.rights.log(log)
        if birth.role is Role.CALLS:
            self.rights.log(log.with_suffix(".access.log"))
        self.rights.own(states)
        self.rights.own(path)  # the door connects to it
        if birth.bundle:
            self.rights.read(Path(birth.bundle))
        head = {"op": "fork", "id": name, "slot": slot, "asked": self._loop.time(), "run": str(self.run)}
        if not self._fork({**head, "log": str(log), **birth._asdict()}, [own.fileno(), *fds]):
            self._loop.call_soon(self._unborn, worker, "the nursery is being restarted")
        own.close()
        bound = PROOF_SECONDS_MAX if birth.prove else BIRTH_SECONDS_MAX
        worker.due = self._loop.call_later(bound, self._overdue, worker, bound)
        return worker

    def forked(self, name: str, pid: int, pidfd: int) -> None:
        """The nursery's answer: the process exists."""
        worker = self.all.get(name)
        if worker is None or worker.peer is None:
            os.close(pidfd)
        else:
            worker.peer.watch(pid, pidfd)

    def nursery_died(self) -> None:
        """Births it was asked for and never answered will not come."""
        for worker in list(self.all.values()):
            if worker.peer is not None and worker.peer.pid == 0:
                self._unborn(worker, "the nursery ended during the birth")

    async def adopt(self) -> list[int]:
        """Take over the workers that outlived the last supervisor; the descriptors they handed over (the front's)."""
        fds: list[int] = []
        for path in sorted(self.run.glob("worker-*.sock")):
            sock = find(path)
            if sock is None:
                path.with_suffix(".states").unlink(missing_ok=True)
            else:
                fds += await self._adopt(path.stem, sock)
        return fds

    async def _adopt(self, name: str, sock: socket.socket) -> list[int]:
        """Greet one worker; its hello says what it serves. One that does not answer in time is left unrouted."""
        said: asyncio.Queue[Message] = asyncio.Queue()
        found: list[Worker] = []

        def heard(_: Peer, message: Message) -> None:
            if found:
                self._heard(found[0], message)
            else:
                said.put_nowait(message)

        peer = Peer(self._loop, sock, heard, lambda _: self._ended(found[0]) if found else None)
        try:
            message = await asyncio.wait_for(said.get(), ADOPT_SECONDS_MAX)
        except TimeoutError:
            peer.channel.close()
            return []
        hello = message.head
        peer.watch(hello["pid"])
        if hello.get("protocol") != PROTOCOL:
            self.foreign[name] = peer
            return message.fds
        birth = Birth(**{**hello["birth"], "role": Role(hello["birth"]["role"])})
        worker = Worker(name, hello["slot"], birth, hello["born"])
        worker.peer, worker.release = peer, hello["release"]
        self._add(worker)
        found.append(worker)
        while not said.empty():
            self._heard(worker, said.get_nowait())
        return message.fds

    def drain(self, worker: Worker, tell: Callable[[Worker], None]) -> None:
        """Let a worker finish what it has and end; killed after DRAIN_SECONDS_MAX. `tell` passes the word through the
        door, behind the last connection the door gave it."""
        if worker.life in (Life.DRAINING, Life.DEAD):
            return
        worker.life = Life.DRAINING
        worker.drained = True
        tell(worker)
        _in_time(worker)
        worker.due = self._loop.call_later(DRAIN_SECONDS_MAX, self._kill, worker)

    def _kill(self, worker: Worker) -> None:
        if worker.life is not Life.DEAD and worker.peer is not None:
            worker.peer.kill()

    def _peer(self, sock: socket.socket, worker: Worker) -> Peer:
        return Peer(self._loop, sock, lambda _, m: self._heard(worker, m), lambda _: self._ended(worker))

    def _heard(self, worker: Worker, message: Message) -> None:
        head = message.head
        match head["op"]:
            case "ready":
                worker.timings = head["timings"]
                worker.cost = head["cost"]
                if worker.life is Life.STARTING:
                    worker.life = Life.READY
                    _in_time(worker)
                if not worker.ready.done():
                    worker.ready.set_result(None)
                self._on_change(worker)
            case "failed":
                if not worker.ready.done():
                    worker.ready.set_exception(BirthFailed(head["error"]))
            case "hello":
                worker.release = head["release"]
                for fd in message.fds:  # handed over for an adopter; the parent of a new worker has its own
                    os.close(fd)
            case _:
                self._on_message(worker, head)

    def _overdue(self, worker: Worker, bound: float) -> None:
        if worker.life is Life.STARTING:
            if not worker.ready.done():
                message = f"The worker was not ready within {bound:g} s."
                worker.ready.set_exception(BirthFailed({"code": "birth", "message": message}))
            self._kill(worker)

    def _unborn(self, worker: Worker, reason: str) -> None:
        if worker.peer is not None:
            worker.peer.channel.close()
        if not worker.ready.done():
            worker.ready.set_exception(BirthFailed({"code": UNBORN, "message": f"No worker was born: {reason}."}))
        self._ended(worker)

    def _add(self, worker: Worker) -> None:
        self.all[worker.name] = worker
        self._by_function.setdefault(worker.birth.function, []).append(worker)

    def _drop(self, worker: Worker) -> None:
        if self.all.pop(worker.name, None) is not None:
            of = self._by_function[worker.birth.function]
            of.remove(worker)
            if not of:
                del self._by_function[worker.birth.function]

    def _ended(self, worker: Worker) -> None:
        if worker.life is Life.DEAD:
            return
        worker.life = Life.DEAD
        _in_time(worker)
        worker.ended.set()
        self._drop(worker)
        if not worker.ready.done():
            message = "The worker ended before it was ready; its log says more."
            worker.ready.set_exception(BirthFailed({"code": "birth", "message": message}))
        # The door may still have to read the states of what this worker held: it maps the file, so the name can go.
        for suffix in (".sock", ".states"):
            (self.run / f"{worker.name}{suffix}").unlink(missing_ok=True)
        self._on_change(worker)


def _in_time(worker: Worker) -> None:
    """Nothing is due any more; a timer left to itself would keep all of the worker for its whole time."""
    if worker.due is not None:
        worker.due.cancel()
