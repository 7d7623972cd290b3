"""The supervisor: holds the state file, the listening sockets and the record of every process, and passes the word.

Nothing a warm call needs goes through it, so it may die: door and workers go on, and the next supervisor adopts them.
"""

import asyncio
import socket
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from sunup.bundle.manifest import Manifest
from sunup.bundle.store import read_manifest
from sunup.engine.access import Access, Rules
from sunup.engine.local.bulk.provers import Provers
from sunup.engine.local.live import Chores, Live, unsaved
from sunup.engine.local.scaler import Scaler
from sunup.engine.local.services import DOOR_MODULE, NURSERY_MODULE, SERVICE_SECONDS_MAX, Service, listen, stop_all
from sunup.engine.local.state import Revision, StateFile
from sunup.engine.local.streaming.streams import Streams
from sunup.engine.local.workers import Birth, Life, Role, Worker, Workers
from sunup.engine.recording import Recording
from sunup.errors import CommandError
from sunup.limits import DRAIN_SECONDS_MAX, RESTART_BACKOFF_SECONDS_MAX
from sunup.link.board import Board
from sunup.link.channel import Message
from sunup.link.peer import Peer
from sunup.link.process import machine_key, release
from sunup.settings import Project

Address = tuple[str, int]


class Supervisor:
    """The local engine of one project. `address` and `metrics_address` are (host, port) to listen on; a living door or
    front hands over its listening socket instead, with whatever waits in the backlog. `rules`: who may call."""

    listener: socket.socket
    metrics: socket.socket

    def __init__(self, project: Project, address: Address, metrics_address: Address, rules: Rules) -> None:
        self.project = project
        self._addresses = (address, metrics_address)
        self.access = Access(rules, self._tell_guarded)
        self.machine, self.release = machine_key(), release()
        self.state = StateFile(project.state / "state.db")
        self.broken: dict[str, str] = {}  # recorded functions that cannot be served, and why
        self.live: dict[str, Live] = {}
        self._loop = asyncio.get_running_loop()
        self._stopping = False
        self.costs: dict[str, tuple[int, float, float]] = {}  # of a model run and of loading it, by digest
        self._board = Board(project.run / "counters" / "engine.seg", self._loop.call_later)
        rights, said = self.access.rights, self._worker_said
        self.workers = Workers(project, rights, fork=self._fork, on_change=self._changed, on_message=said)
        self.recording = Recording(project, self.release)
        self._chores = Chores(self.workers, self._board, self.state.silences, self.recording.look)
        self.streams = Streams(self.workers, self, self._board, self.state.pauses)
        self.provers = Provers(self)
        self.scaler = Scaler(self.live, self.workers, self, self._before_tick)
        service = partial(Service, project=project, rights=rights, release=self.release)
        self.door = service(
            "door",
            DOOR_MODULE,
            inherited=lambda: [self.listener.fileno()],
            on_up=self._door_up,
            on_message=self._door_said,
        )
        self.nursery = service(
            "nursery",
            NURSERY_MODULE,
            on_up=lambda _peer, _message: self.scaler.tick(),
            on_message=lambda _, m: self.workers.forked(m.head["id"], m.head["pid"], m.fds[0]),
            on_end=self.workers.nursery_died,
        )

    # --- begin and end ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Adopt what lives, start what does not, and serve the recorded revisions."""
        for revision in self.state.current():
            try:
                manifest = read_manifest(self.project.bundles / revision.digest)
            except CommandError as error:
                print(error.message, file=sys.stderr)
                self.broken[revision.function] = error.message
            else:
                self.live[revision.function] = Live(revision, manifest, self.state.silences.of(revision.function))
                self.streams.switch(revision, manifest)
        fds = await self.workers.adopt()
        self.streams.adopt()
        for name, live in self.live.items():  # what outlived the last supervisor has its idle time
            live.needs.hold(self._loop.time(), len(self.workers.serving(live.revision, Role.CALLS)))
            self.scaler.later(name)
        self.metrics = socket.socket(fileno=fds[0]) if fds else listen(*self._addresses[1])
        if not await self.door.adopt():
            self.listener = self.door.handed_over() or listen(*self._addresses[0])
            self.door.start()
        self.access.listens(self.listener.getsockname()[0])
        if not await self.nursery.adopt():
            self.nursery.start()
        await asyncio.gather(*(service.wait_up(SERVICE_SECONDS_MAX) for service in (self.nursery, self.door)))
        for worker in list(self.workers.all.values()):
            routed = self.live.get(worker.birth.function or "")
            current = routed is not None and routed.revision.revision == worker.birth.revision
            if worker.birth.role is Role.PROVER or (worker.birth.function is not None and not current):
                self.drain(worker)  # of a deploy that nobody ends, or of a removed function
        self.scaler.tick()
        await asyncio.wait_for(asyncio.shield(self.workers.of(None, Role.FRONT)[0].ready), SERVICE_SECONDS_MAX)

    async def stop(self, *, leave: bool) -> None:
        """End everything; or `leave` it to the supervisor that follows, for which the door holds calls meanwhile."""
        self._stopping = True
        self.access.close()
        if leave:
            self._tell_door({"op": "leaving"})
        else:
            await self._end()
        self._board.flush()
        self.state.silences.note(unsaved(self.live, float("inf")))
        self.state.close()

    async def _end(self) -> None:
        """In the order that loses nothing: intake, then calls in progress, then who carries them."""
        # 1. No new connections, and those that wait are refused: from here on only what workers hold is left.
        self._tell_door({"op": "close"})
        # 2. Workers finish what they have; their idle connections come back to the door, which ends them.
        ending = list(self.workers.all.values())
        for worker in ending:
            self.drain(worker)
        if ending:
            await asyncio.wait([asyncio.ensure_future(w.ended.wait()) for w in ending], timeout=DRAIN_SECONDS_MAX + 1)
        # 3. Nobody serves, so nobody spools; the door and the nursery have nothing left to carry or to bear.
        await self.recording.finish()
        await stop_all(self.door, self.nursery)

    # --- revisions --------------------------------------------------------------------------------------------------

    def switch(self, revision: Revision, manifest: Manifest, *, warm: bool = True) -> Live:
        """Route a recorded revision: door and front are told, and the old revision's workers drain. `warm`: somebody
        asked for just this one, so its worker is kept for the idle time."""
        name = revision.function
        self.broken.pop(name, None)
        if (live := self.live.get(name)) is None:
            live = self.live[name] = Live(revision, manifest, self.state.silences.of(name))
        else:
            live.switch(revision, manifest)
        if warm:
            live.needs.hold(self._loop.time(), 1)
        for worker in self.workers.serving(revision, Role.CALLS):
            if worker.life is Life.READY:
                live.read(self.project.run, worker)
        self.streams.switch(revision, manifest)
        self.announce(live)
        for worker in self.workers.of(name):
            if worker.birth.revision != revision.revision:
                self.drain(worker)
        self.scaler.later(name)
        return live

    def forget(self, function: str) -> None:
        """Stop serving a function."""
        self.live.pop(function).counts.close()
        self.streams.forget(function)
        self._tell_all({"op": "forget", "function": function})
        self._board.forget(function=function)
        for worker in self.workers.of(function):
            self.drain(worker)

    # --- what the scaler may do -------------------------------------------------------------------------------------

    @property
    def able(self) -> bool:
        """Whether workers can be born now."""
        return not self._stopping and self.nursery.peer is not None

    def bear(self, revision: Revision, role: Role = Role.CALLS) -> Worker:
        """Begin the birth of a worker; it proves its bundle unless that was done on this machine before."""
        name, number, digest, model, settings, _ = revision
        prove, folder = not self.state.proven(digest, self.machine), str(self.project.bundles / digest)
        return self._born(Birth(role, name, number, digest, folder, model, settings, prove, self.costs.get(digest)))

    def bear_alone(self, role: Role, settings: Mapping[str, str], fds: Sequence[int] = ()) -> Worker:
        """Begin the birth of a process without a function."""
        return self._born(Birth(role, None, 0, "", "", "", settings, False, None), fds)

    def drain(self, worker: Worker) -> None:
        """Let a worker finish. The word goes through the door, behind the last connection, if the door knows it."""

        def tell(worker: Worker) -> None:
            through = worker.birth.role.by_door and self._tell_door({"op": "drain", "worker": worker.name})
            if not through and worker.peer is not None:
                worker.peer.channel.send({"op": "drain"})

        self.workers.drain(worker, tell)

    def announce(self, live: Live) -> None:
        """Tell door and front, and whoever reads the metrics, how a function stands."""
        self._tell_all(self._entry(live))
        name = live.revision.function
        lives = [w.life for w in self.workers.of(name)]
        for life in (Life.STARTING, Life.READY, Life.DRAINING):
            self._board.put_change("sunup_workers", float(lives.count(life)), function=name, state=life.value)

    # --- what others say --------------------------------------------------------------------------------------------

    def _door_up(self, peer: Peer, message: Message) -> None:
        """A door is there (new, or adopted): tell it everything."""
        if message.fds:
            self.listener = socket.socket(fileno=message.fds[0])  # the same socket, or an adopted door's
        self.access.greet(peer.channel.send)
        for live in self.live.values():
            peer.channel.send(self._entry(live))
        for worker in self.workers.all.values():
            self._attach(worker)
            if worker.birth.role.by_door and worker.life is Life.DRAINING:  # the last door may have died with the word
                peer.channel.send({"op": "drain", "worker": worker.name})

    def _door_said(self, _: Peer, message: Message) -> None:
        if (live := self.live.get(message.head["function"] or "")) is None:
            return
        live.waiting = message.head.get("waiting", 0)  # `wake` says how many wait, `flushed` that none does
        if message.head.get("revision") == live.revision.revision:
            live.routed.set()
        if live.waiting:
            self.scaler.scale(live)
        self.scaler.later(live.revision.function)

    def _worker_said(self, worker: Worker, head: dict[str, Any]) -> None:
        """`woke`: the first call of a new worker tells how long its cold start took, stage by stage (seconds)."""
        live = self.live.get(worker.birth.function or "")
        if worker.birth.role is Role.PROVER:
            self.provers.heard(worker, head)
        elif head["op"] == "woke" and live is not None:
            live.woke(head["cold"], self._board)
        elif head["op"] != "woke" and self.streams.said(worker, head):
            self.scaler.tick()

    def _changed(self, worker: Worker) -> None:
        """A worker became ready or ended."""
        if worker.cost is not None:
            self.costs[worker.birth.digest] = worker.cost
        live = self.live.get(worker.birth.function or "")
        if not worker.birth.role.by_door:
            self.streams.changed(worker)
            if live is not None:
                self.announce(live)
        elif worker.birth.function is None:
            if worker.life is Life.READY and worker.peer is not None:
                for one in self.live.values():
                    worker.peer.channel.send(self._entry(one))
        elif live is not None and live.revision.revision == worker.birth.revision:
            if worker.life is Life.READY:
                live.failures = 0
                live.read(self.project.run, worker)
            elif worker.timings:
                live.counts.lost(worker.slot)
            else:  # it never was ready
                live.failures += 1
                live.reason = str(worker.ready.exception())
                live.not_before = self._loop.time() + min(RESTART_BACKOFF_SECONDS_MAX, 0.05 * 2**live.failures)
            self.announce(live)
        if not self._stopping:
            self.scaler.later(worker.birth.function or "")

    def _before_tick(self) -> float | None:
        """There is a front, chores are done, streams have the workers they need. See Streams.scale."""
        if not self.workers.of(None, Role.FRONT):
            self.bear_alone(Role.FRONT, {}, [self.metrics.fileno()])
        self._chores.do(self._loop.time(), self.live)
        return self.streams.scale()

    def _born(self, birth: Birth, fds: Sequence[int] = ()) -> Worker:
        worker = self.workers.bear(birth, list(fds))
        self._attach(worker)
        return worker

    def _fork(self, head: dict[str, Any], fds: list[int]) -> bool:
        head["guard"], head["machine"] = self.access.word, self.machine
        return self.nursery.peer is not None and self.nursery.peer.channel.send(head, fds=fds)

    def _attach(self, worker: Worker) -> None:
        of = worker.birth
        if of.role.by_door:
            self._tell_door({"op": "attach", "worker": worker.name, "function": of.function, "revision": of.revision})

    def _entry(self, live: Live) -> dict[str, Any]:
        folder = str(self.project.bundles / live.revision.digest)
        return {**live.entry(self.workers.of(live.revision.function)), "bundle": folder}

    def _tell_door(self, head: dict[str, Any]) -> bool:
        return self.door.peer is not None and self.door.peer.channel.send(head)

    def _tell_guarded(self, word: dict[str, Any]) -> None:
        self._tell_door(word)
        self.workers.tell(word, Role.CALLS, Role.FRONT)

    def _tell_all(self, head: dict[str, Any]) -> None:
        self._tell_door(head)
        self.workers.tell(head, Role.FRONT)
