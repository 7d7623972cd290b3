"""Replaces what runs other code than this supervisor, without a call noticing: after `platform up` of another Sunup.

First the nursery, so that whoever is born from then on runs this code; then the door, the front, and one by one the
workers: each is drained when one of the same revision is ready in its place. What cannot be replaced serves on, and is
tried again at the next `platform up`. Processes that speak another protocol were not adopted: they are ended in order.
"""

import asyncio
import sys
from collections.abc import Awaitable, Iterable

from sunup.engine.local.services import Service
from sunup.engine.local.supervisor import Supervisor
from sunup.engine.local.workers import BirthFailed, Life, Role, Worker
from sunup.errors import EngineError
from sunup.limits import DRAIN_SECONDS_MAX, RETIRE_SECONDS_MAX
from sunup.link.channel import connect
from sunup.link.peer import Peer


class Renewal:
    """Of one supervisor, once it serves."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._engine = supervisor
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"Renewal(stale={len(self.stale())})"

    def begin(self) -> None:
        """Begin; most engines have nothing to replace."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop in the middle: what was not replaced serves on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def stale(self) -> list[str]:
        """The processes that run other code."""
        engine = self._engine
        services = [service.role for service in (engine.nursery, engine.door) if self._is_stale(service)]
        return services + [worker.name for worker in engine.workers.all.values() if self._is_stale(worker)]

    def _is_stale(self, process: Service | Worker) -> bool:
        return bool(process.release) and process.release != self._engine.release

    async def _run(self) -> None:
        ending = asyncio.get_running_loop().create_task(self._end_foreign())
        try:
            if self._is_stale(self._engine.nursery):
                await self._try("The nursery", self._engine.nursery.replace(self._stop))
            if self._is_stale(self._engine.door):
                await self._try("The door", self._replace_door())
            for worker in list(self._engine.workers.all.values()):
                await asyncio.wait([worker.ready])  # one that is being born has not said what code it runs
                if self._is_stale(worker):
                    await self._try(worker.name, self._replace(worker))
        finally:
            await ending

    @staticmethod
    async def _try(name: str, replacing: Awaitable[None]) -> None:
        try:
            await replacing
        except (EngineError, BirthFailed, TimeoutError, OSError) as error:
            print(f"{name} could not be replaced, and runs the code of another Sunup on: {error!r}", file=sys.stderr)

    async def _stop(self, nursery: Peer | None) -> None:
        """A nursery has nothing to hand over: it answers what it was asked before it reads this."""
        if nursery is not None:
            nursery.channel.send({"op": "stop"})

    async def _replace_door(self) -> None:
        """The old one passes nothing any more before the new one is told of any worker; then it gets what that has."""
        service = self._engine.door
        old = service.peer
        service.retired.clear()
        try:
            await service.replace(self._retire)
            if old is not None:
                with connect(service.path) as sock:
                    old.channel.send({"op": "successor"}, fds=[sock.fileno()])
        except Exception:
            if old is not None:
                old.kill()  # whether it has retired or not: what follows a dead door is known
            raise

    async def _retire(self, door: Peer | None) -> None:
        if door is not None:
            door.channel.send({"op": "retire"})
            await asyncio.wait_for(self._engine.door.retired.wait(), RETIRE_SECONDS_MAX)

    async def _replace(self, old: Worker) -> None:
        """By one of the same revision, which is not counted before it takes over. Streams and watchers are born again
        when they are missed: their records wait."""
        if old.life is not Life.READY:
            return
        engine, live = self._engine, self._engine.live.get(old.birth.function or "")
        if old.birth.role is Role.FRONT:
            new = engine.bear_alone(Role.FRONT, {}, [engine.metrics.fileno()])
            await new.ready
        elif old.birth.role is Role.CALLS and live is not None and live.revision.revision == old.birth.revision:
            new = engine.bear(live.revision)
            new.understudy = True
            try:
                await new.ready
            finally:
                new.understudy = False
        engine.drain(old)
        engine.scaler.later()

    async def _end_foreign(self) -> None:
        """Intake, calls in progress, then who carries them: what the old door holds, it ends itself."""
        engine = self._engine
        door, nursery = (None if s.foreign is None else s.foreign[0] for s in (engine.door, engine.nursery))
        workers = engine.workers.foreign
        if door is not None:
            door.channel.send({"op": "close"})
        for name, worker in workers.items():
            if door is None or not door.channel.send({"op": "drain", "worker": name}):
                worker.channel.send({"op": "drain"})
        await self._ended(workers.values(), DRAIN_SECONDS_MAX)
        services = [service for service in (door, nursery) if service is not None]
        for service in services:
            service.channel.send({"op": "stop"})
        await self._ended(services, RETIRE_SECONDS_MAX)

    @staticmethod
    async def _ended(peers: Iterable[Peer], seconds: float) -> None:
        """Wait for their ends, and bring about those that do not come."""
        waiting = [asyncio.ensure_future(peer.ended.wait()) for peer in peers]
        if waiting:
            await asyncio.wait(waiting, timeout=seconds)
        for peer, wait in zip(peers, waiting, strict=True):
            if not wait.done():
                wait.cancel()
                peer.kill()
