"""What people ask of the engine: deploy, rollback, remove, status. One at a time for each function."""

import asyncio
import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sunup import __version__
from sunup.bundle.manifest import Manifest
from sunup.bundle.store import check, verify
from sunup.engine.engine import Event
from sunup.engine.follow.following import Following
from sunup.engine.local.bulk.deploy import Bulk, Wanted
from sunup.engine.local.live import Live
from sunup.engine.local.state import Revision
from sunup.engine.local.streaming.owners import check_owner, owners
from sunup.engine.local.streaming.pausing import Pausing
from sunup.engine.local.streaming.readers import taken_over
from sunup.engine.local.supervisor import Supervisor
from sunup.engine.local.upkeep.collection import Collector
from sunup.engine.local.upkeep.renewal import Renewal
from sunup.engine.local.workers import UNBORN, BirthFailed, Life, Role
from sunup.errors import EngineError, ProofFailed
from sunup.limits import ADOPT_SECONDS_MAX, BIRTH_SECONDS_MAX
from sunup.link.process import pss_bytes
from sunup.settings import Settings

BIRTHS_MAX = 3  # of a deploy whose nursery ends under it


class Operations:
    """The operations of one supervisor. `following`: what follows an alias."""

    def __init__(self, supervisor: Supervisor, following: Following) -> None:
        self._engine = supervisor
        self._following = following
        self._locks: dict[str, asyncio.Lock] = {}
        self._loop = asyncio.get_running_loop()
        self.pausing = Pausing(supervisor.streams, supervisor.state.pauses, self._known)
        self.renewal = Renewal(supervisor)
        self.collector = Collector(supervisor.project, supervisor.state.kept, self._in_use)

    async def deploy(
        self,
        function: str,
        digest: str,
        settings: Mapping[str, str],
        emit: Event,
        follow: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Prove a bundle in a worker of its own, record it, route it, then drain the old revision's workers.

        `follow`: see Following.deployed. Raises BundleDamaged, ProofFailed or EngineError; then what served before
        still does.
        """
        async with self._lock(function), self.collector.holding(digest):
            self._following.check(function, follow)
            live = self._engine.live.get(function)
            if live is not None and live.revision.digest == digest and dict(live.revision.settings) == dict(settings):
                return self._result(live, unchanged=True, seconds={}) | self._following.deployed(function, follow)
            began = self._loop.time()
            manifest = await self._verified(digest)
            if manifest.function != function:
                raise EngineError(f"Bundle {digest[:12]} is of the function {manifest.function}, not {function}.")
            verified = self._loop.time()
            emit({"stage": "verify", "seconds": verified - began})
            model = f"{manifest.model.name}/{manifest.model.version}"
            number = self._engine.state.next_revision(function)
            revision = Revision(function, number, digest, model, Settings(settings), time.time())
            self._check_owner(revision, manifest)
            await self._prove(revision)
            proven = self._loop.time()
            emit({"stage": "prove", "seconds": proven - verified})
            live = await self._route(revision, manifest)
            emit({"stage": "route", "seconds": self._loop.time() - proven})
            seconds = {"total": self._loop.time() - began}
            return self._result(live, unchanged=False, seconds=seconds) | self._following.deployed(function, follow)

    async def deploy_many(self, bundles: Sequence[Mapping[str, Any]], emit: Event) -> dict[str, Any]:
        """Deploy each {"function", "digest", "settings"}. Under "functions" what became of each, in their order: as
        `deploy` returns, without "seconds", or with an "error". Raises UsageError."""

        async def one(wanted: Wanted) -> dict[str, Any]:
            return await self.deploy(*wanted, lambda _: None)

        bulk = Bulk(self._engine, one, lock=self._lock, hold=self.collector.holding, tell=self._facts)
        wanted = [Wanted(bundle["function"], bundle["digest"], Settings(bundle["settings"])) for bundle in bundles]
        try:
            told = await bulk.deploy(wanted, emit)
        finally:
            self.collector.soon()
        follow_nothing = [{} if "error" in one else self._following.deployed(one["function"], None) for one in told]
        return {"functions": [one | follows for one, follows in zip(told, follow_nothing, strict=True)]}

    async def rollback(self, function: str, number: int | None) -> dict[str, Any]:
        """Route an earlier revision again. Raises EngineError when there is none.

        Every byte of its bundle was checked when it was deployed: what did not change since is not read again.
        """
        live = self._known(function)
        async with self._lock(function):
            known = self._engine.state.revisions(function)
            now = live.revision.revision
            earlier = [r for r in known if (r.revision < now if number is None else r.revision == number)]
            if not earlier:
                which = "no revision before the current one" if number is None else f"no revision {number}"
                kept = ", ".join(str(r.revision) for r in known)
                raise EngineError(f"{function} has {which}. Revisions kept: {kept}.")
            began = self._loop.time()
            folder = self._engine.project.bundles / earlier[-1].digest
            manifest = await asyncio.to_thread(check, folder)
            self._check_owner(earlier[-1], manifest)
            await self._prove(earlier[-1])
            live = await self._route(earlier[-1], manifest)
            seconds = {"total": self._loop.time() - began}
            return self._result(live, unchanged=False, seconds=seconds) | self._following.facts(function)

    async def remove(self, function: str) -> dict[str, Any]:
        """Stop serving a function and forget its revisions; bundles that no other one has are removed in a while."""
        self._known(function)
        async with self._lock(function):
            self._following.forget(function)
            self._engine.state.forget(function)
            self._engine.forget(function)
            self.collector.soon()
            return {"function": function, "removed": True}

    def status(self, function: str | None, *, latency: bool = False) -> dict[str, Any]:
        """Facts for `platform status`. `latency`: see Live.facts."""
        now = self._loop.time()
        engine = self._engine
        names = sorted(engine.live) if function is None else [self._known(function).revision.function]
        peers = [("door", engine.door.peer), ("nursery", engine.nursery.peer), ("follower", self._following.peer)]
        peers.append(("recorder", engine.recording.peer))
        peers += [(w.birth.role, w.peer) for w in engine.workers.of(None)]
        pids = [("supervisor", os.getpid())] + [(role, peer.pid) for role, peer in peers if peer is not None]
        processes = [{"role": role, "pid": pid, "pss_bytes": pss_bytes(pid)} for role, pid in pids]
        functions = [
            engine.live[name].facts(engine.workers.of(name), engine.state.revisions(name), now, latency=latency)
            | engine.streams.facts(name)
            | self._following.facts(name)
            for name in names
        ]
        for name, reason in engine.broken.items():
            if function in (None, name):
                functions.append({"name": name, "state": "failed", "reason": reason})
        facts = {**self.address(), "processes": processes, "access": engine.access.facts()}
        if stale := self.renewal.stale():
            facts["renewing"] = stale
        return {"engine": facts, "functions": functions}

    def pids(self) -> set[int]:
        """The processes that answer callers, and those they come from."""
        engine = self._engine
        peers = [engine.door.peer, engine.nursery.peer, *(worker.peer for worker in engine.workers.all.values())]
        return {peer.pid for peer in peers if peer is not None}

    def address(self) -> dict[str, Any]:
        """Where this engine listens."""
        host, port = self._engine.listener.getsockname()[:2]
        metrics_host, metrics_port = self._engine.metrics.getsockname()[:2]
        return {
            "version": __version__,
            "release": self._engine.release,
            "pid": os.getpid(),
            "url": f"http://{_bracket(host)}:{port}",
            "metrics_url": f"http://{_bracket(metrics_host)}:{metrics_port}/metrics",
        }

    async def _verified(self, digest: str) -> Manifest:
        """The manifest of a bundle every byte of which was checked, off the loop: a large model takes a while."""
        return await asyncio.to_thread(verify, self._engine.project.bundles / digest)

    async def _prove(self, revision: Revision) -> None:
        """Have a ready worker of `revision`, self-proven here; one that nobody bore says nothing of the bundle."""
        for left in reversed(range(BIRTHS_MAX)):
            try:
                await self._engine.nursery.wait_up(BIRTH_SECONDS_MAX)
                await self._engine.bear(revision).ready
            except TimeoutError as error:
                raise EngineError("No worker can be born: the nursery does not start; its log says why.") from error
            except BirthFailed as failed:
                if failed.error["code"] == UNBORN and left:
                    continue
                raise ProofFailed(
                    f"Revision {revision.revision} of {revision.function} did not become ready and was not routed; "
                    f"what served before still does. {failed.error['message']}"
                ) from failed
            break
        self._engine.state.note_proof(revision.digest, self._engine.machine)

    async def _route(self, revision: Revision, manifest: Manifest) -> Live:
        """Record first, then switch: a crash in between is repaired from the record. Whoever calls behind this gets the
        new revision, once a door that is being restarted is there; so do records that are produced behind it."""
        try:
            self._check_owner(revision, manifest)  # again: another function may have been routed since
        except EngineError:
            for worker in self._engine.workers.serving(revision, Role.CALLS):
                self._engine.drain(worker)
            raise
        self._engine.state.route(revision)
        self.collector.soon()
        live = self._engine.switch(revision, manifest)
        with contextlib.suppress(TimeoutError):  # it is told everything when it is back
            await asyncio.wait_for(live.routed.wait(), ADOPT_SECONDS_MAX)
        await taken_over(self._engine.workers, revision)
        return live

    def _check_owner(self, revision: Revision, manifest: Manifest) -> None:
        if manifest.aggregates:
            check_owner(revision.function, revision.settings, manifest.aggregates, owners(self._engine.live.values()))

    async def settle(self) -> None:
        """Wait for what is in progress."""
        for lock in list(self._locks.values()):
            async with lock:
                pass

    def _in_use(self) -> set[str]:
        """The bundles of what is served, of every worker that lives, and of rows that wait in the spool."""
        served = {live.revision.digest for live in self._engine.live.values()}
        spooled = self._engine.recording.digests()
        return served | {w.birth.digest for w in self._engine.workers.all.values()} | spooled

    def _known(self, function: str) -> Live:
        live = self._engine.live.get(function)
        if live is None and function in self._engine.broken:
            raise EngineError(self._engine.broken[function])
        if live is None:
            names = ", ".join(sorted(self._engine.live)) or "none yet"
            raise EngineError(f"No function {function} is deployed here. Deployed: {names}.")
        return live

    def _lock(self, function: str) -> asyncio.Lock:
        return self._locks.setdefault(function, asyncio.Lock())

    def _result(self, live: Live, *, unchanged: bool, seconds: dict[str, float]) -> dict[str, Any]:
        r = live.revision
        workers = self._engine.workers.of(r.function, Role.CALLS)
        timings = next((w.timings for w in workers if w.birth.revision == r.revision and w.life is Life.READY), {})
        return {**self._facts(r, unchanged), "seconds": {**timings, **seconds}}

    def _facts(self, revision: Revision, unchanged: bool) -> dict[str, Any]:
        return {
            "function": revision.function,
            "revision": revision.revision,
            "digest": revision.digest,
            "model": revision.model,
            "url": f"{self.address()['url']}/functions/{revision.function}",
            "unchanged": unchanged,
        }


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host
