"""A function that is being served: its routed revision, what its scaling needs, and what its workers count."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sunup.bundle.manifest import Manifest
from sunup.engine.local.state import Revision
from sunup.engine.local.workers import Life, Role, Worker
from sunup.link.board import Board
from sunup.link.counters import STAGE_BUCKETS, Segment, counters_path
from sunup.link.process import pss_bytes
from sunup.scale.policy import Bounds, Sample
from sunup.scale.window import WindowMax

RATE_SECONDS = 10.0  # requests/s is the mean of about this long


class Live:
    """One function. `waiting`: connections the door last said it holds for it; `failures`: births failed in a row."""

    def __init__(self, revision: Revision, manifest: Manifest) -> None:
        self.waiting = 0
        self.failures = 0
        self.reason = ""  # why the last birth failed
        self.not_before = 0.0  # monotonic seconds: no birth earlier, after failed ones
        self.cold_starts = 0
        self.last_cold_ms: dict[str, float] = {}
        self._segments: dict[int, Segment] = {}
        self._answered = 0.0
        self._rate: list[tuple[float, float]] = []
        self.switch(revision, manifest)

    def __repr__(self) -> str:
        return f"Live({self.revision.function}/{self.revision.revision}, waiting={self.waiting})"

    def switch(self, revision: Revision, manifest: Manifest) -> None:
        """Serve another revision from now on."""
        scale = manifest.scale
        self.revision = revision
        self.manifest = manifest
        self.bounds = Bounds(scale.min, scale.max, scale.target_concurrency)
        self.window = WindowMax(scale.idle_s)
        self.failures = 0
        self.not_before = 0.0

    def entry(self, workers: Iterable[Worker]) -> dict[str, Any]:
        """What door and front are told."""
        m, r = self.manifest, self.revision
        return {
            "op": "function",
            "function": r.function,
            "revision": r.revision,
            "digest": r.digest,
            "queue_max": m.scale.queue_max,
            "timeout_s": m.limits.timeout_s,
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
        old = self._segments.pop(worker.slot, None)
        if old is not None:
            old.close()
        self._segments[worker.slot] = Segment.open(counters_path(run, self.revision.function, worker.slot), write=True)
        self._answered = self._total("sunup_requests_total")

    def lost(self, worker: Worker) -> None:
        """A worker ended: what it gauged no longer is."""
        segment = self._segments.get(worker.slot)
        if segment is not None:
            for series in segment.series:
                if series.kind == "gauge":
                    segment.values[segment.slot(series.name, **series.labels)] = 0.0

    def woke(self, stages: dict[str, float], board: Board) -> None:
        """Note a cold start: seconds by stage."""
        name = self.revision.function
        board.add("sunup_cold_starts_total", function=name)
        for stage, seconds in stages.items():
            board.observe("sunup_cold_start_seconds", STAGE_BUCKETS, seconds, function=name, stage=stage)
        self.cold_starts += 1
        self.last_cold_ms = {k: round(1000 * v, 3) for k, v in {**stages, "total": sum(stages.values())}.items()}

    def sample(self, workers: Iterable[Worker], now: float) -> Sample:
        """What the function is doing now, for the scaling decision."""
        slots = {w.slot for w in workers if w.life in (Life.READY, Life.DRAINING)}
        inflight = sum(_sum(s, "sunup_inflight") for slot, s in self._segments.items() if slot in slots)
        answered = self._total("sunup_requests_total")
        since, self._answered = answered - self._answered, answered
        self._rate = [(t, n) for t, n in self._rate if t > now - RATE_SECONDS]
        self._rate.append((now, since))
        return Sample(int(inflight), self.waiting, int(since))

    def facts(self, workers: list[Worker], revisions: list[Revision], now: float) -> dict[str, Any]:
        """What `platform status` shows."""
        m, r = self.manifest, self.revision
        recent = [n for t, n in self._rate if t > now - RATE_SECONDS]
        counts = self._latency()
        return {
            "name": r.function,
            "revision": r.revision,
            "digest": r.digest,
            "model": f"{m.model.name}/{m.model.version}",
            "state": self._state(workers),
            **({"accept_difference": m.accept_difference} if m.accept_difference else {}),
            **({"reason": self.reason} if self.failures else {}),
            "workers": [
                {
                    "id": w.name,
                    "role": w.birth.role,
                    "pid": w.peer.pid,
                    "state": w.life.value,
                    "memory_bytes": pss_bytes(w.peer.pid),
                }
                for w in workers
                if w.peer is not None
            ],
            "requests": int(self._total("sunup_requests_total")),
            "rps": round(sum(recent) / RATE_SECONDS, 1),
            "p50_ms": _quantile(counts, 0.50),
            "p99_ms": _quantile(counts, 0.99),
            "cold_starts": {"count": self.cold_starts, "last_ms": self.last_cold_ms},
            "revisions": [
                {"revision": one.revision, "digest": one.digest, "model": one.model, "at": one.created}
                for one in revisions
            ],
        }

    def close(self) -> None:
        """Unmap the counters."""
        for segment in self._segments.values():
            segment.close()
        self._segments.clear()

    def _total(self, name: str) -> float:
        return sum(_sum(segment, name) for segment in self._segments.values())

    def _latency(self) -> list[float]:
        """Calls per STAGE_BUCKETS bucket, all workers together, from request read to answer written."""
        counts = [0.0] * (len(STAGE_BUCKETS) + 1)
        for segment in self._segments.values():
            for index, series in enumerate(segment.series):
                if series.name == "sunup_request_seconds" and series.labels.get("stage") == "total":
                    counts = [a + b for a, b in zip(counts, segment.read(index)[:-1], strict=True)]
        return counts


def _sum(segment: Segment, name: str) -> float:
    return sum(segment.read(i)[0] for i, s in enumerate(segment.series) if s.name == name)


def _quantile(counts: list[float], q: float) -> float | None:
    """A quantile in milliseconds from histogram counts, linear within its bucket; None without calls."""
    wanted = q * sum(counts)
    if not wanted:
        return None
    seen = 0.0
    for count, low, high in zip(counts, (0.0, *STAGE_BUCKETS), (*STAGE_BUCKETS, STAGE_BUCKETS[-1]), strict=True):
        if seen + count >= wanted:
            return round(1000 * (low + (high - low) * (wanted - seen) / count), 3)
        seen += count
    raise AssertionError("counts changed while they were read")
