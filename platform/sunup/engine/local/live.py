"""A function that is being served: its routed revision, what its scaling needs, and what its workers count."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sunup.bundle.manifest import Manifest
from sunup.cron import Cron
from sunup.engine.local.services import rotate
from sunup.engine.local.state import Revision, Silences
from sunup.engine.local.workers import Life, Role, Worker, Workers
from sunup.link.board import Board
from sunup.link.counters import STAGE_BUCKETS, Segment, counters_path, stage_quantile
from sunup.link.process import pss_bytes
from sunup.scale.needs import Needs
from sunup.scale.policy import Bounds, Sample
from sunup.scale.schedule import Warm

INFLIGHT, REQUESTS, LAST = "sunup_inflight", "sunup_requests_total", "sunup_last_activity"
RATE_SECONDS = 10.0  # requests/s is the mean of about this long
CHORE_SECONDS = 1.0
ROTATE_SECONDS = 10.0  # between looks at how long logs are: one at each of hundreds
WEIGH_SECONDS = 2.0  # between functions whose memory is weighed: two milliseconds of the kernel's time


class Counts:
    """What the workers of one function have counted, by the slot each of them is in."""

    __slots__ = ("_places", "_segments")

    def __init__(self) -> None:
        self._segments: dict[int, Segment] = {}
        self._places: dict[str, dict[int, list[int]]] = {name: {} for name in (INFLIGHT, REQUESTS, LAST)}

    def follow(self, path: Path, slot: int) -> None:
        """Read the counters at `path` from now on."""
        old = self._segments.pop(slot, None)
        if old is not None:
            old.close()
        segment = self._segments[slot] = Segment.open(path, write=True)
        for name, places in self._places.items():  # found once: every tick asks for these, of every function
            places[slot] = [segment.slot(one.name, **one.labels) for one in segment.series if one.name == name]

    def lost(self, slot: int) -> None:
        """A worker ended: what it gauged no longer is."""
        segment = self._segments.get(slot)
        if segment is not None:
            for series in segment.series:
                if series.kind == "gauge":
                    segment.values[segment.slot(series.name, **series.labels)] = 0.0

    def total(self, name: str, slots: Iterable[int] | None = None) -> float:
        """One of the three series above, whatever its labels; over some workers, or over all there ever were."""
        places = self._places[name]
        chosen = places if slots is None else [slot for slot in slots if slot in places]
        return sum([self._segments[slot].values[place] for slot in chosen for place in places[slot]])

    def latency(self) -> list[float]:
        """Calls per STAGE_BUCKETS bucket, all workers together, from request read to answer written."""
        counts = [0.0] * (len(STAGE_BUCKETS) + 1)
        for segment in self._segments.values():
            for index, series in enumerate(segment.series):
                if series.name == "sunup_request_seconds" and series.labels.get("stage") == "total":
                    counts = [a + b for a, b in zip(counts, segment.read(index)[:-1], strict=True)]
        return counts

    def close(self) -> None:
        """Unmap the counters."""
        for segment in self._segments.values():
            segment.close()
        self._segments.clear()


class Live:
    """One function. `waiting`: connections the door last said it holds for it; `routed`: the door passes connections to
    the present revision; `failures`: births failed in a row; `silences`: what was kept of its history.

    An engine holds thousands: of a manifest no more is kept than scaling, the door and `platform status` ask for.
    """

    __slots__ = (
        "_answered",
        "_cold_seconds",
        "_declared",
        "_rate",
        "_rest",
        "aggregates",
        "cold_starts",
        "counts",
        "failures",
        "last_cold_ms",
        "needs",
        "not_before",
        "reason",
        "revision",
        "routed",
        "waiting",
    )

    def __init__(self, revision: Revision, manifest: Manifest, silences: bytes = b"") -> None:
        self.waiting = 0
        self.routed = asyncio.Event()
        self.failures = 0
        self.reason = ""  # why the last birth failed
        self.not_before = 0.0  # monotonic seconds: no birth earlier, after failed ones
        self.cold_starts = 0
        self.last_cold_ms: dict[str, float] = {}
        self._cold_seconds: dict[str, float] = {}  # of all cold starts, by stage
        self.needs = Needs(silences)
        self.counts = Counts()
        self._answered = 0.0
        self._rate: list[tuple[float, float]] = []
        self.switch(revision, manifest)

    def __repr__(self) -> str:
        return f"Live({self.revision.function}/{self.revision.revision}, waiting={self.waiting})"

    def switch(self, revision: Revision, manifest: Manifest) -> None:
        """Serve another revision from now on."""
        scale = manifest.scale
        self.revision = revision
        self.aggregates = manifest.aggregates
        self._declared = (scale.queue_max, manifest.limits.timeout_s, manifest.accept_difference)
        self.routed.clear()
        bounds = Bounds(scale.min, scale.max, scale.target_concurrency)
        warm = [Warm(Cron.parse(one.cron), one.min, one.for_s) for one in scale.warm]
        self.needs.declare(bounds, scale.idle_s, auto=scale.idle_auto, warm=warm)
        self.failures = 0
        self.not_before = 0.0
        self._rest = (0.0, 0, 0.0)  # until when, if as many workers are there then, and their latest calls are these

    def entry(self, workers: Iterable[Worker]) -> dict[str, Any]:
        """What door and front are told."""
        r, (queue_max, timeout_s, _) = self.revision, self._declared
        return {
            "op": "function",
            "function": r.function,
            "revision": r.revision,
            "digest": r.digest,
            "queue_max": queue_max,
            "timeout_s": timeout_s,
            "state": self._state(workers),
        }

    def _state(self, workers: Iterable[Worker]) -> str:
        """ready, starting, failed or cold."""
        mine = (Role.CALLS, self.revision.revision)
        lives = {w.life for w in workers if (w.birth.role, w.birth.revision) == mine}
        if Life.READY in lives:
            return "ready"
        if Life.STARTING in lives:
            return "starting"
        return "failed" if self.failures else "cold"

    def read(self, run: Path, worker: Worker) -> None:
        """Follow the counters of a worker that became ready."""
        self.counts.follow(counters_path(run, self.revision.function, worker.slot), worker.slot)
        self._answered = self.counts.total(REQUESTS)
        self.needs.started(sum(worker.timings.get(stage, 0.0) for stage in ("fork", "load")))

    def woke(self, stages: dict[str, float], board: Board) -> None:
        """Note a cold start: seconds by stage."""
        name = self.revision.function
        board.add("sunup_cold_starts_total", function=name)
        for stage, seconds in stages.items():
            board.observe("sunup_cold_start_seconds", STAGE_BUCKETS, seconds, function=name, stage=stage)
            self._cold_seconds[stage] = self._cold_seconds.get(stage, 0.0) + seconds
        self.cold_starts += 1
        self.last_cold_ms = _with_total(stages)

    def sample(self, workers: Iterable[Worker], now: float) -> Sample:
        """What the function is doing now, for the scaling decision."""
        inflight = self.counts.total(INFLIGHT, [w.slot for w in workers if w.life in (Life.READY, Life.DRAINING)])
        answered = self.counts.total(REQUESTS)
        since, self._answered = answered - self._answered, answered
        self._rate = [(t, n) for t, n in self._rate if t > now - RATE_SECONDS]
        self._rate.append((now, since))
        return Sample(int(inflight), self.waiting, int(since))

    def look(self, now: float, workers: int, *, calm: bool) -> None:
        """It was looked at just now, with so many workers of any kind. `calm`: nothing was going on."""
        rest = self.needs.rest_seconds(workers) if calm else 0.0
        self._rest = (now + rest, workers, self.counts.total(LAST))

    def rests(self, now: float, workers: int) -> bool:
        """Whether nothing can have changed since the last look."""
        until, before, last = self._rest
        return now < until and workers == before and not self.waiting and self.counts.total(LAST) == last

    def facts(
        self, workers: list[Worker], revisions: list[Revision], now: float, *, latency: bool = False
    ) -> dict[str, Any]:
        """What `platform status` shows. `latency`: also the histogram, for whoever takes the difference of two."""
        r, accepted = self.revision, self._declared[2]
        recent = [n for t, n in self._rate if t > now - RATE_SECONDS]
        counts = self.counts.latency()
        return {
            "name": r.function,
            "revision": r.revision,
            "digest": r.digest,
            "model": r.model,
            "state": self._state(workers),
            **({"accept_difference": accepted} if accepted else {}),
            **({"reason": self.reason} if self.failures else {}),
            "workers": [
                {
                    "id": w.name,
                    "role": w.birth.role,
                    "pid": w.peer.pid,
                    "slot": w.slot,
                    "state": w.life.value,
                    "memory_bytes": pss_bytes(w.peer.pid),
                }
                for w in workers
                if w.peer is not None
            ],
            **self.needs.facts,
            "requests": int(self.counts.total(REQUESTS)),
            "rps": round(sum(recent) / RATE_SECONDS, 1),
            "p50_ms": stage_quantile(counts, 0.50),
            "p99_ms": stage_quantile(counts, 0.99),
            **({"latency": counts} if latency else {}),
            "cold_starts": {
                "count": self.cold_starts,
                "last_ms": self.last_cold_ms,
                "mean_ms": _with_total({k: v / self.cold_starts for k, v in self._cold_seconds.items()}),
            },
            "revisions": [
                {"revision": one.revision, "digest": one.digest, "model": one.model, "at": one.created}
                for one in revisions
            ],
        }


class Chores:
    """What is done now and then while something goes on: memory is weighed, a full log makes way for a new one, what
    was learned of functions' silences is written down; and at every tick `look`."""

    def __init__(self, workers: Workers, board: Board, silences: Silences, look: Callable[[], None]) -> None:
        self._look = look
        self._workers = workers
        self._board = board
        self._silences = silences
        self._due = 0.0
        self._rotate_at = 0.0
        self._weigh_at = 0.0
        self._weighed: dict[str, None] = {}  # who has memory on the board; the one weighed longest ago comes first

    def do(self, now: float, lives: Mapping[str, Live]) -> None:
        """Do it if it is time to. `now`: monotonic seconds."""
        self._look()  # also right after the last worker ended: nothing is looked at any more then
        if now < self._due:
            return
        self._due = now + CHORE_SECONDS
        if now >= self._rotate_at:
            self._rotate_at = now + ROTATE_SECONDS
            rotate(self._workers.logs, self._workers.rights)
        self._weigh(lives, now)
        self._silences.note(unsaved(lives, now))

    def _weigh(self, lives: Mapping[str, Live], now: float) -> None:
        """One function: one that lost its last worker, or was never weighed, or whose turn it is."""
        if now < self._weigh_at:
            return
        self._weigh_at = now + WEIGH_SECONDS
        running = {w.birth.function for w in self._workers.all.values() if w.birth.function is not None}
        urgent = [name for name in self._weighed if name not in running] or sorted(running - self._weighed.keys())
        name = next(iter(urgent or self._weighed), None)
        if name is None:
            return
        self._weighed.pop(name, None)
        held = [pss_bytes(w.peer.pid) for w in self._workers.of(name) if w.peer is not None]
        if held:
            self._weighed[name] = None
        if name in lives:
            lives[name].needs.weighed(held)
        self._board.put("sunup_worker_memory_bytes", float(sum(held)), function=name)


def unsaved(lives: Mapping[str, Live], now: float) -> dict[str, bytes]:
    """What was learned of functions' silences and should be written down, by function."""
    return {name: kept for name, live in lives.items() if (kept := live.needs.unsaved(now)) is not None}


def _with_total(stages: Mapping[str, float]) -> dict[str, float]:
    """Milliseconds by stage, and all of them together; {} without stages."""
    spent = {**stages, "total": sum(stages.values())} if stages else {}
    return {stage: round(1000 * seconds, 3) for stage, seconds in spent.items()}
