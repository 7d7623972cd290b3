"""Every stream of the engine: how far behind they are, as the watcher says, and the workers that takes.

A stream worker is born when records wait and ends when none did for the function's idle time.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from sunup.bundle.manifest import Manifest
from sunup.engine.local.state import Revision
from sunup.engine.local.streaming.facts import facts
from sunup.engine.local.streaming.record import Pauses
from sunup.engine.local.streaming.stream import STEADY_SECONDS, Streaming
from sunup.engine.local.streaming.waking import needs, wakes_in
from sunup.engine.local.workers import Life, Role, Worker, Workers
from sunup.limits import STREAM_STALL_SECONDS, STREAM_STUCK_SECONDS
from sunup.link.board import Board
from sunup.link.counters import Segment
from sunup.scale.policy import Sample, decide
from sunup.settings import EMBEDDED, STREAM_BROKER


class Acts(Protocol):
    """What the supervisor does for streams."""

    @property
    def able(self) -> bool: ...
    def bear(self, revision: Revision, role: Role) -> Worker: ...
    def bear_alone(self, role: Role, settings: Mapping[str, str]) -> Worker: ...
    def drain(self, worker: Worker) -> None: ...


class Streams:
    """Every stream of the engine. `pauses`: which of them somebody has paused."""

    def __init__(self, workers: Workers, acts: Acts, board: Board, pauses: Pauses) -> None:
        self._workers = workers
        self._acts = acts
        self._board = board
        self._pauses = pauses
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
        known = self._streams.get(revision.function)
        new = Streaming(revision, spec, idle_s, self._pauses.of(revision.function), manifest.aggregates)
        if known is None or known.source != new.source:
            self.forget(revision.function)
            self._streams[revision.function] = new
            self._tell_watcher(new.watch())
            return
        before = len(self._serving(known))
        known.switch(revision, spec, idle_s, manifest.aggregates)
        if before and self._acts.able:
            # Born while those of the revision before finish: the topic is without readers for as short as can be.
            known.window.add(self._loop.time(), float(before))
            self._scale(known)

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

    def scale(self) -> float | None:
        """Bring every stream to the workers it should have; in how many seconds to look again, None: when something
        has happened."""
        watchers = self._workers.of(None, Role.WATCHER)
        if self._streams and not watchers:
            streams = self._streams.values()
            other = next((s.settings for s in streams if s.broker != EMBEDDED), {STREAM_BROKER: EMBEDDED})
            self._acts.bear_alone(Role.WATCHER, other)  # with what its kind of broker needs imported
        elif watchers and not self._streams:
            self._acts.drain(watchers[0])
        busy = [self._scale(stream) for stream in self._streams.values()]
        if any(busy):
            return 0.0
        now = self._loop.time()
        return min((s for one in self._streams.values() if (s := wakes_in(one, now)) is not None), default=None)

    def changed(self, worker: Worker) -> None:
        """A stream worker or the watcher became ready or ended."""
        if worker.birth.role is Role.WATCHER:
            if worker.life is Life.READY:
                for each in self._streams.values():
                    self._tell_watcher(each.watch())
                    each.told = None
                    if self._acts.able:  # else not all that outlived the last supervisor may be known yet
                        self._tell_slots(each)
            return
        stream = self._streams.get(worker.birth.function or "")
        if stream is None or worker.life is not Life.DEAD:
            return
        if worker.birth.revision == stream.revision.revision:
            stream.ended(worker, self._loop.time())
        stream.forget(worker.name)
        if self._acts.able:
            self._scale(stream)  # at once: whoever replaces it gets its slot, and ends what it left half done

    def said(self, worker: Worker, head: dict[str, Any]) -> bool:
        """`lag` from the watcher; `state`, `reads`, `worked`, `due`, `features`, `settled` from a worker. Whether one
        is to be born at once."""
        function = head["function"] if head["op"] == "lag" else worker.birth.function
        stream = self._streams.get(function or "")
        if stream is None:
            return False
        match head["op"]:
            case "reads":
                stream.readers.heard(worker.name, head["partitions"], self._loop.time())
                return False
            case "worked":
                stream.worked.add(worker.name)
                stream.failures = 0
                return False
            case "due" | "features" | "settled":
                if stream.aggregating is not None and worker.birth.revision == stream.revision.revision:
                    stream.aggregating.told(worker.name, head, self._loop.time())
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
        is_wanted = bool(stream.waiting) or wakes_in(stream, self._loop.time()) == 0.0
        return is_wanted and not self._serving(stream)

    def repause(self, function: str) -> Streaming | None:
        """What is paused of a function's stream has changed. None: it has none."""
        stream = self._streams.get(function)
        if stream is not None:
            stream.paused = self._pauses.of(function)
            stream.not_before = 0.0
            if stream.aggregating is not None and not self._serving(stream):
                stream.aggregating.begin(stream.aggregating.views)  # its tiles may have been made anew meanwhile
            if self._acts.able:
                self._scale(stream)
        return stream

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
        return {"stream": facts(stream, self._workers.of(function, Role.STREAM), counts, self._loop.time())}

    def _scale(self, stream: Streaming) -> bool:
        now = self._loop.time()
        workers = self._serving(stream)
        if any(now - w.born > STEADY_SECONDS for w in workers):
            stream.failures = 0
        self._end_stuck(stream, stream.stuck(workers, now))
        workers = self._serving(stream)
        sample = Sample(stream.waiting, 0, int(stream.topic.take_moved()))
        want = 0 if stream.is_paused else decide(stream.bounds(), stream.window, sample, now)
        want = max(want, needs(stream, workers, now))
        if len(workers) < want and now >= stream.not_before:
            # Not in place of one that is being ended: whoever follows it shall have its slot.
            missing = want - len(workers) - len(stream.ending)
            workers += [self._acts.bear(stream.revision, Role.STREAM) for _ in range(missing)]
        elif len(workers) > want:
            workers.sort(key=lambda w: (w.life is not Life.READY, w.born))
            for worker in workers[want:]:
                self._acts.drain(worker)
            workers = workers[:want]
        self._share(stream, workers)
        self._tell_slots(stream)
        return want > 0 or bool(workers)

    def _end_stuck(self, stream: Streaming, names: list[str]) -> None:
        for worker in [self._workers.all[name] for name in names]:
            stream.note_error(
                f"Records waited {STREAM_STALL_SECONDS:.0f} s and none was committed: {worker.name} ends."
            )
            stream.ending.add(worker.name)
            self._acts.drain(worker)
            if worker.peer is not None:  # it does not have to be heard that long: what it holds is read again
                self._loop.call_later(STREAM_STUCK_SECONDS, worker.peer.kill)

    @staticmethod
    def _share(stream: Streaming, workers: list[Worker]) -> None:
        """Tell each worker which of how many it is, for brokers that do not share partitions out themselves, and which
        partitions nobody reads."""
        for index, worker in enumerate(sorted(workers, key=lambda w: w.born)):
            share = {"op": "share", "index": index, "count": len(workers), "without": stream.without}
            if stream.shares.get(worker.name) != share and worker.peer is not None:
                stream.shares[worker.name] = share
                worker.peer.channel.send(share)

    def _serving(self, stream: Streaming) -> list[Worker]:
        return self._workers.serving(stream.revision, Role.STREAM)

    def _tell_slots(self, stream: Streaming) -> None:
        """Whose slot is gone was not replaced: its group need not wait for it. Those that are ending live, too."""
        function = stream.revision.function
        slots = sorted(worker.slot for worker in self._workers.of(function, Role.STREAM))
        if slots != stream.told and stream.broker != EMBEDDED:
            told = self._tell_watcher({"op": "readers", "function": function, "slots": slots})
            stream.told = slots if told else None

    def _tell_watcher(self, head: dict[str, Any]) -> bool:
        """Whether there is one to hear it."""
        ready = [w for w in self._workers.of(None, Role.WATCHER) if w.peer is not None and w.life is Life.READY]
        for watcher in ready:
            assert watcher.peer is not None
            watcher.peer.channel.send(head)
        return bool(ready)
