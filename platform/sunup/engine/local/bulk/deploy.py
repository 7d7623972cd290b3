"""A deploy of many bundles: what is proven is recorded in one transaction, some dozens at a time, and then routed.

So a kill at any moment loses nothing that was told of, and the same command again does what was left.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

from sunup.bundle.manifest import FEATURES_CODE, Manifest
from sunup.bundle.store import read_manifest
from sunup.engine.engine import Event
from sunup.engine.local.bulk.provers import Job
from sunup.engine.local.state import Revision
from sunup.engine.local.streaming.owners import check_owner, owned, owners
from sunup.engine.local.streaming.readers import taken_over
from sunup.engine.local.supervisor import Supervisor
from sunup.engine.local.workers import Role, Worker
from sunup.errors import CommandError, EngineError, UsageError
from sunup.limits import ADOPT_SECONDS_MAX, DEPLOY_TOGETHER
from sunup.settings import Settings

Facts = dict[str, Any]
CODE = ("handler.py", FEATURES_CODE)  # what a bundle may bring that runs


class Wanted(NamedTuple):
    """A bundle of the store to deploy. `settings`: what its workers get at birth."""

    function: str
    digest: str
    settings: Mapping[str, str]


class Bulk:
    """Deploys many. `one` deploys a single one with a worker that stays, `lock` is each function's own, `hold` keeps a
    bundle from being removed, and `tell` gives the facts of one that is routed."""

    def __init__(
        self,
        engine: Supervisor,
        one: Callable[[Wanted], Awaitable[Facts]],
        *,
        lock: Callable[[str], asyncio.Lock],
        hold: Callable[[str], AbstractAsyncContextManager[None]],
        tell: Callable[[Revision, bool], Facts],
    ) -> None:
        self._engine = engine
        self._one = one
        self._lock = lock
        self._hold = hold
        self._tell = tell

    async def deploy(self, bundles: Sequence[Wanted], emit: Event) -> list[Facts]:
        """The facts of each, in their order; of one that failed `function`, `digest` and `error` (code, message).

        Functions at zero stay there. Those with workers get one of the new revision before it is routed, as ever.
        Raises UsageError when two bundles are of the same function.
        """
        if len({wanted.function for wanted in bundles}) < len(bundles):
            raise UsageError("Two of these bundles are of the same function.")
        told: dict[str, Facts] = {}
        provers: list[Worker] = []
        try:
            for part in _parts(bundles):
                told |= await self._part(part, provers)
                emit({"stage": "self-proof", "done": len(told), "of": len(bundles)})
        finally:
            self._engine.provers.dismiss(provers)
        return [told[wanted.function] for wanted in bundles]

    async def _part(self, part: Sequence[Wanted], provers: list[Worker]) -> dict[str, Facts]:
        warm = [wanted for wanted in part if self._engine.workers.of(wanted.function, Role.CALLS)]
        told = {}
        for wanted in warm:
            try:
                told[wanted.function] = await self._one(wanted)
            except CommandError as error:
                told[wanted.function] = _failed(wanted, error.code, error.message)
        cold = sorted(wanted for wanted in part if wanted.function not in told)
        async with contextlib.AsyncExitStack() as stack:
            for wanted in cold:  # in order of their names: two such deploys do not wait for each other
                await stack.enter_async_context(self._lock(wanted.function))
                await stack.enter_async_context(self._hold(wanted.digest))
            return told | await self._cold(cold, provers)

    async def _cold(self, part: Sequence[Wanted], provers: list[Worker]) -> dict[str, Facts]:
        """Prove, record, route."""
        told: dict[str, Facts] = {}
        fresh: list[tuple[Wanted, Manifest]] = []
        for wanted in part:
            live = self._engine.live.get(wanted.function)
            if live is not None and (live.revision.digest, dict(live.revision.settings)) == wanted[1:]:
                told[wanted.function] = self._tell(live.revision, True)
                continue
            try:
                fresh.append((wanted, self._manifest(wanted)))
            except CommandError as error:
                told[wanted.function] = _failed(wanted, error.code, error.message)
        outcomes = await self._engine.provers.prove([self._job(*one) for one in fresh], provers)
        good = []
        aggregated = owners(self._engine.live.values())
        for (wanted, manifest), outcome in zip(fresh, outcomes, strict=True):
            if outcome.error is not None:
                told[wanted.function] = _failed(wanted, outcome.error["code"], outcome.error["message"])
                continue
            try:
                check_owner(wanted.function, wanted.settings, manifest.aggregates, aggregated)
            except EngineError as error:
                told[wanted.function] = _failed(wanted, error.code, error.message)
                continue
            aggregated |= dict.fromkeys(owned(wanted.settings, manifest.aggregates), wanted.function)
            if outcome.cost is not None:
                self._engine.costs[wanted.digest] = outcome.cost  # so that a cold start need not measure it
            model = f"{manifest.model.name}/{manifest.model.version}"
            number = self._engine.state.next_revision(wanted.function)
            revision = Revision(wanted.function, number, wanted.digest, model, Settings(wanted.settings), time.time())
            good.append((revision, manifest))
        self._engine.state.route(*(revision for revision, _ in good), proven_on=self._engine.machine)
        lives = [self._engine.switch(revision, manifest, warm=False) for revision, manifest in good]
        with contextlib.suppress(TimeoutError):  # a door that is being restarted is told everything when it is back
            async with asyncio.timeout(ADOPT_SECONDS_MAX):
                for live in lives:
                    await live.routed.wait()
        await taken_over(self._engine.workers, *(revision for revision, _ in good))
        return told | {revision.function: self._tell(revision, False) for revision, _ in good}

    def _manifest(self, wanted: Wanted) -> Manifest:
        manifest = read_manifest(self._engine.project.bundles / wanted.digest)
        if manifest.function != wanted.function:
            raise EngineError(
                f"Bundle {wanted.digest[:12]} is of the function {manifest.function}, not {wanted.function}."
            )
        return manifest

    def _job(self, wanted: Wanted, manifest: Manifest) -> Job:
        run = not self._engine.state.proven(wanted.digest, self._engine.machine)
        folder = self._engine.project.bundles / wanted.digest
        return Job(folder, wanted.settings, run, alone=any(name in manifest.files for name in CODE))


def _parts(bundles: Sequence[Wanted]) -> Iterator[Sequence[Wanted]]:
    for start in range(0, len(bundles), DEPLOY_TOGETHER):
        yield bundles[start : start + DEPLOY_TOGETHER]


def _failed(wanted: Wanted, code: str, message: str) -> Facts:
    return {"function": wanted.function, "digest": wanted.digest, "error": {"code": code, "message": message}}
