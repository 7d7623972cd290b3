"""Functions that score a topic: how far behind they are, as the watcher says, and the workers that takes.

A stream worker is born when records wait and ends when none did for the function's idle time.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final, Protocol

from sunup.bundle.manifest import Manifest, StreamSpec
from sunup.engine.local.state import Revision
from sunup.engine.local.workers import Life, Role, Worker, Workers
from sunup.limits import RESTART_BACKOFF_SECONDS_MAX, STREAM_LAG_PER_WORKER, STREAM_STALL_SECONDS
from sunup.link.board import Board
from sunup.link.counters import Segment
from sunup.scale.policy import Bounds, Sample, decide
from sunup.scale.topic import Topic
from sunup.scale.window import WindowMax
from sunup.settings import EMBEDDED, STREAM_BROKER

STEADY_SECONDS: Final = 10.0  # a worker that lived this long is replaced at once when it dies


class Acts(Protocol):
    """What the supervisor does for streams."""

    def bear(self, revision: Revision, role: Role) -> Worker: ...
    def bear_alone(self, role: Role, settings: Mapping[str, str]) -> Worker: ...
    def drain(self, worker: Worker) -> None: ...


class Streaming:
    """One function's stream."""

    def __init__(self, revision: Revision, spec: StreamSpec, idle_s: float) -> None:
        self.topic = Topic()
        self.watched: tuple[str, str] | None = None  # (trouble, reason) of looking at the lag
        self.working: dict[str, tuple[str, str]] = {}  # the same of the workers, by name
        self.shares: dict[str, tuple[int, int]] = {}
        self.last_error: dict[str, Any] | None = None
        self.switch(revision, spec, idle_s)

    def switch(self, revision: Revision, spec: StreamSpec, idle_s: float) -> None:
        """Another revision is routed."""
        self.revision = revision
        self.spec = spec
        self.window = WindowMax(idle_s)
        self.failures = 0  # workers that ended unasked soon after their birth, in a row
        self.reason = ""
        self.stalls = 0  # times its workers were replaced since the last progress
        self.not_before = 0.0

    @property
    def broker(self) -> str:
        return self.revision.settings[STREAM_BROKER]

    @property
    def source(self) -> tuple[str, ...]:
        """What is read: with another one, nothing known of the lag is true any more."""
        spec = self.spec
        return self.broker, spec.group, spec.input, spec.output, spec.dead_letter

    def watch(self) -> dict[str, Any]:
        """What the watcher is told."""
        _, *stream = self.source
        return {
            "op": "watch",
            "function": self.revision.function,
            "settings": {name: value for name, value in self.revision.settings.items() if name.startswith("stream_")},
            "stream": stream,
        }

    def bounds(self) -> Bounds:
        """No more workers than partitions: one reads a partition at a time."""
        return Bounds(0, min(self.spec.max_workers, len(self.topic.partitions) or 1), STREAM_LAG_PER_WORKER)

    def note_error(self, message: str) -> None:
        self.last_error = {"at": time.time(), "message": message}

    def is_stuck(self, serving: list[Worker], now: float) -> bool:
        """Whether workers that are ready, and in no trouble they know of, commit nothing of what waits."""
        if not self.topic.lag or not serving or self.working or self.watched:
            return False
        since = max([self.topic.moved_at, *(w.born for w in serving)])
        return all(w.life is Life.READY for w in serving) and now - since > STREAM_STALL_SECONDS

    def state(self, serving: list[Worker]) -> tuple[str, str]:
        """One word, and the reason when it is not a good one."""
        troubles = [*self.working.values(), *([self.watched] if self.watched else [])]
        ready = [worker for worker in serving if worker.life is Life.READY]
        if self.failures and not ready:
            return "failed", self.reason
        if troubles:
            return troubles[0]
        if not self.topic.partitions:
            return "unknown", "the broker has not been asked yet"
        if self.stalls and self.topic.lag:
            return "stalled", f"records wait, and none is committed; its workers were replaced {self.stalls} times"
        if ready:
            return "running", ""
        return ("starting", "") if self.topic.lag else ("idle", "")

    def facts(self, serving: list[Worker], counts: Mapping[str, int], now: float) -> dict[str, Any]:
        """What `platform status` and `platform stream status` show."""
        state, reason = self.state(serving)
        spec, topic = self.spec, self.topic
        count = len(topic.partitions)
        few = f"{spec.input} has {count} partitions: no more than {count} of max_workers = {spec.max_workers} can work"
        oldest = topic.oldest_seconds(now)
        return {
            "broker": self.broker,
            "group": spec.group,
            "input": spec.input,
            "output": spec.output,
            "dead_letter": spec.dead_letter,
            "guarantee": "exactly-once" if self.broker == EMBEDDED else spec.guarantee,
            "state": state,
            **({"reason": reason} if reason else {}),
            **({"note": few} if 0 < count < spec.max_workers else {}),
            "lag": topic.lag,
            "oldest_seconds": None if oldest is None else round(oldest, 1),
            "records_per_second": round(topic.rate(now), 1),
            **counts,
            "workers": len(serving),
            "partitions": [
                {"partition": number, "position": position, "end": end, "lag": max(0, end - position)}
                for number, (position, end) in sorted(topic.partitions.items())
            ],
            "last_error": self.last_error,
        }


class Streams:
    """Every stream of the engine."""

    def __init__(self, workers: Workers, acts: Acts, board: Board) -> None:
        self._workers = workers
        self._acts = acts
        self._board = board
        self._loop = asyncio.get_running_loop()
        self._streams: dict[str, Streaming] = {}

    def __repr__(self) -> str:
        return f"Streams({', '.join(self._streams)})"

    def switch(self, revision: Revision, manifest: Manifest) -> None:
        """A revision is routed: read its topic from now on, or none."""
        spec, idle_s = manifest.stream, manifest.scale.idle_s
        if spec is None:
            self.forget(revision.function)
            return
        known, new = self._streams.get(revision.function), Streaming(revision, spec, idle_s)
        if known is not None and known.source == new.source:
            known.switch(revision, spec, idle_s)
            return
        self.forget(revision.function)
        self._streams[revision.function] = new
        self._tell_watcher(new.watch())

    def forget(self, function: str) -> None:
        """Read its topic no more; what its group has read stays known to the broker."""
        gone = self._streams.pop(function, None)
        if gone is not None:
            self._tell_watcher({"op": "forget", "function": function})
            for number in gone.topic.partitions:
                self._board.put("sunup_stream_lag", 0.0, function=function, partition=str(number))

    def adopt(self) -> None:
        """Workers that outlived the last supervisor have their idle time."""
        for stream in self._streams.values():
            stream.window.add(self._loop.time(), float(len(self._serving(stream))))

    def scale(self) -> bool:
        """Bring every stream to the workers it should have; whether there is more to look at."""
        watchers = self._workers.of(None, Role.WATCHER)
        if self._streams and not watchers:
            other = next((s.broker for s in self._streams.values() if s.broker != EMBEDDED), EMBEDDED)
            self._acts.bear_alone(Role.WATCHER, {STREAM_BROKER: other})  # with what its kind of broker needs imported
        elif watchers and not self._streams:
            self._acts.drain(watchers[0])
        busy = [self._scale(stream) for stream in self._streams.values()]
        return any(busy)

    def changed(self, worker: Worker) -> None:
        """A stream worker or the watcher became ready or ended."""
        if worker.birth.role is Role.WATCHER:
            if worker.life is Life.READY:
                for each in self._streams.values():
                    self._tell_watcher(each.watch())
            return
        stream = self._streams.get(worker.birth.function or "")
        if stream is None or worker.birth.revision != stream.revision.revision or worker.life is not Life.DEAD:
            return
        stream.working.pop(worker.name, None)
        stream.shares.pop(worker.name, None)
        now = self._loop.time()
        if worker.drained or now - worker.born > STEADY_SECONDS:
            stream.failures = 0
        else:
            stream.failures += 1
            born = worker.ready.exception()
            stream.reason = str(born) if born else "A worker ended unasked; the function's log says more."
            stream.not_before = now + min(RESTART_BACKOFF_SECONDS_MAX, 0.05 * 2**stream.failures)
            stream.note_error(stream.reason)

    def said(self, worker: Worker, head: dict[str, Any]) -> bool:
        """`lag` from the watcher, `state` from a worker. Whether records wait that nobody reads."""
        function = head["function"] if head["op"] == "lag" else worker.birth.function
        stream = self._streams.get(function or "")
        if stream is None:
            return False
        trouble = (head["trouble"], head["reason"]) if head["trouble"] else None
        if trouble is not None:
            stream.note_error(head["reason"])
        if head["op"] == "state":
            stream.working.pop(worker.name, None)
            if trouble is not None:
                stream.working[worker.name] = trouble
            return False
        stream.watched = trouble
        if trouble is None:
            partitions = {int(number): (position, end) for number, (position, end) in head["partitions"].items()}
            stream.topic.see(partitions, self._loop.time())
            for number, (position, end) in partitions.items():
                lag = float(max(0, end - position))
                self._board.put("sunup_stream_lag", lag, function=stream.revision.function, partition=str(number))
        return bool(stream.topic.lag) and not self._serving(stream)

    def facts(self, function: str) -> dict[str, Any]:
        """Of one function, under "stream"; nothing for one without."""
        stream = self._streams.get(function)
        if stream is None:
            return {}
        counts = dict.fromkeys(("scored", "dead", "ignored"), 0)
        for path in self._workers.run.glob(f"counters/{function}.stream.*.seg"):
            segment = Segment.open(path)
            for index, series in enumerate(segment.series):
                if series.name == "sunup_stream_records_total":
                    counts[series.labels["result"]] += int(segment.read(index)[0])
            segment.close()
        return {"stream": stream.facts(self._serving(stream), counts, self._loop.time())}

    def _scale(self, stream: Streaming) -> bool:
        now = self._loop.time()
        workers = self._serving(stream)
        if any(now - w.born > STEADY_SECONDS for w in workers):
            stream.failures = 0
        moved = stream.topic.take_moved()
        if moved:
            stream.stalls = 0
        elif stream.is_stuck(workers, now):
            stream.stalls += 1
            stream.note_error(
                f"Records waited {STREAM_STALL_SECONDS:.0f} s and none was committed: workers are replaced."
            )
            for worker in workers:
                self._acts.drain(worker)
            workers = []
        waiting = 0 if stream.watched else stream.topic.lag  # what was last known says nothing of a broker that is away
        want = decide(stream.bounds(), stream.window, Sample(waiting, 0, int(moved)), now)
        if len(workers) < want and now >= stream.not_before:
            workers += [self._acts.bear(stream.revision, Role.STREAM) for _ in range(want - len(workers))]
        elif len(workers) > want:
            workers.sort(key=lambda w: (w.life is not Life.READY, w.born))
            for worker in workers[want:]:
                self._acts.drain(worker)
            workers = workers[:want]
        self._share(stream, workers)
        return want > 0 or bool(workers)

    @staticmethod
    def _share(stream: Streaming, workers: list[Worker]) -> None:
        """Tell each worker which of how many it is, for brokers that do not share partitions out themselves."""
        for index, worker in enumerate(sorted(workers, key=lambda w: w.born)):
            share = (index, len(workers))
            if stream.shares.get(worker.name) != share and worker.peer is not None:
                stream.shares[worker.name] = share
                worker.peer.channel.send({"op": "share", "index": index, "count": len(workers)})

    def _serving(self, stream: Streaming) -> list[Worker]:
        return self._workers.serving(stream.revision, Role.STREAM)

    def _tell_watcher(self, head: dict[str, Any]) -> None:
        for watcher in self._workers.of(None, Role.WATCHER):
            if watcher.peer is not None and watcher.life is Life.READY:
                watcher.peer.channel.send(head)
