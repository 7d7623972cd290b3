"""Processes that prove bundles one after another, forked from the nursery for one deploy of many.

A worker for each would prove as well, but its birth and end cost more than the proof; here a bundle costs the loading
of its model and one run. Only a bundle with code of its own has a process to itself: nothing of that code stays behind.
"""

import asyncio
import os
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from sunup.engine.local.services import Service
from sunup.engine.local.workers import BirthFailed, Life, Role, Worker, Workers
from sunup.limits import PROOF_SECONDS_MAX, PROVERS_MAX

TRIES_MAX = 3  # of a bundle whose prover, or the nursery, ends under it
START_SECONDS_MAX = 15.0  # until there is a nursery to fork from


class Acts(Protocol):
    """What provers need of the supervisor."""

    workers: Workers
    nursery: Service

    def bear_alone(self, role: Role, settings: Mapping[str, str]) -> Worker: ...
    def drain(self, worker: Worker) -> None: ...


class Job(NamedTuple):
    """One bundle to prove. `run`: its model too, which was not done on this machine before; `alone`: it brings code."""

    bundle: Path
    settings: Mapping[str, str]
    run: bool
    alone: bool


class Outcome(NamedTuple):
    """What came of a job: `cost` as a worker tells it (rows, seconds of their run, seconds of loading), if that was
    measured; or why the bundle is refused."""

    cost: tuple[int, float, float] | None = None
    error: Mapping[str, str] | None = None


class Provers:
    """All of one engine. `heard` gets what they say; `prove` is what a deploy calls."""

    def __init__(self, acts: Acts) -> None:
        self._acts = acts
        self._answers: dict[str, asyncio.Future[Outcome]] = {}  # by prover: one job at a time

    def __repr__(self) -> str:
        return f"Provers(busy={len(self._answers)})"

    def heard(self, worker: Worker, head: Mapping[str, Any]) -> None:
        """A prover's answer."""
        answer = self._answers.pop(worker.name, None)
        if answer is not None and not answer.done():
            cost = head["cost"]
            answer.set_result(Outcome(cost and (cost[0], cost[1], cost[2]), head["error"]))

    async def prove(self, jobs: Sequence[Job], idle: list[Worker]) -> list[Outcome]:
        """The outcomes, in the order of `jobs`. `idle`: provers kept from earlier jobs; they are used, and those that
        can do more are left in it for `dismiss`."""
        waiting = deque(enumerate(jobs))
        outcomes = [Outcome()] * len(jobs)

        async def work() -> None:
            while waiting:
                index, job = waiting.popleft()
                outcomes[index] = await self._prove(job, idle)

        count = min(len(jobs), PROVERS_MAX, os.cpu_count() or 1)
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(work())
        return outcomes

    def dismiss(self, idle: list[Worker]) -> None:
        """The deploy is over."""
        for worker in idle:
            self._acts.drain(worker)
        idle.clear()

    async def _prove(self, job: Job, idle: list[Worker]) -> Outcome:
        """One bundle. What ends under it again and again is the bundle's doing; once may be somebody else's."""
        died = _refused("birth", "The process that proved it ended, again and again; prover.log says more.")
        for _ in range(TRIES_MAX):
            try:
                worker = await self._prover([] if job.alone else idle)
            except (BirthFailed, TimeoutError) as failed:
                died = _refused("birth", f"No process to prove it was born. {failed}")
                continue
            outcome = await self._ask(worker, job)
            if outcome is not None and not job.alone and worker.life is Life.READY:
                idle.append(worker)
            else:
                self._acts.drain(worker)
            if outcome is not None:
                return outcome
        return died

    async def _prover(self, idle: list[Worker]) -> Worker:
        while idle:
            worker = idle.pop()
            if worker.life is Life.READY:
                return worker
        await self._acts.nursery.wait_up(START_SECONDS_MAX)
        worker = self._acts.bear_alone(Role.PROVER, {})
        await worker.ready
        return worker

    async def _ask(self, worker: Worker, job: Job) -> Outcome | None:
        """What the prover says; None when it ended first."""
        self._acts.workers.rights.read(job.bundle)
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._answers[worker.name] = answer
        ended = asyncio.ensure_future(worker.ended.wait())
        try:
            asked = {"op": "prove", "bundle": str(job.bundle), "settings": dict(job.settings), "prove": job.run}
            if worker.peer is not None:
                worker.peer.channel.send({**asked, "cost": None})
            await asyncio.wait((answer, ended), timeout=PROOF_SECONDS_MAX, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            if ended.done() or worker.peer is None:
                return None
            worker.peer.kill()
            return _refused("birth", f"It was not proven within {PROOF_SECONDS_MAX:g} s.")
        finally:
            ended.cancel()
            self._answers.pop(worker.name, None)


def _refused(code: str, message: str) -> Outcome:
    return Outcome(error={"code": code, "message": message})
