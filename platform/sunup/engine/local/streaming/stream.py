"""One function's stream as the engine sees it: what the watcher and its workers said of it, and what that means."""

import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple

from sunup.bundle.manifest import StreamSpec
from sunup.engine.local.state import Revision
from sunup.engine.local.streaming.aggregating import Aggregating
from sunup.engine.local.streaming.readers import Readers, stuck
from sunup.engine.local.streaming.record import WHOLE, Pause
from sunup.engine.local.workers import Life, Worker
from sunup.limits import RESTART_BACKOFF_SECONDS_MAX, STREAM_LAG_PER_WORKER
from sunup.scale.policy import Bounds
from sunup.scale.topic import Topic
from sunup.scale.window import WindowMax
from sunup.settings import EMBEDDED, KAFKA_PYTHON, STREAM_BROKER, STREAM_CLIENT

AT_ONCE: Final = 3  # workers that end before they have done anything: killed from outside, or by what they read
STEADY_SECONDS: Final = 10.0  # a worker that lived this long is replaced at once when it dies


class Stall(NamedTuple):
    """A partition that stood still: where, and how often its workers were replaced for it."""

    position: int
    times: int


class Streaming:
    """One function's stream. `paused`: what somebody has paused of it; `views`: see Manifest.aggregates."""

    def __init__(
        self,
        revision: Revision,
        spec: StreamSpec,
        idle_s: float,
        paused: Mapping[int, Pause],
        views: Collection[str] = (),
    ) -> None:
        self.topic = Topic()
        self.readers = Readers()
        self.watched: tuple[str, str] | None = None  # (trouble, reason) of looking at the lag
        self.working: dict[str, tuple[str, str]] = {}  # the same of the workers, by name
        self.worked: set[str] = set()  # workers that have committed something
        self.ending: set[str] = set()  # workers that are being replaced because what they read stands still
        self.shares: dict[str, dict[str, Any]] = {}  # what each worker was told to read
        self.told: list[int] | None = None  # slots of living workers, as the watcher was told
        self.last_error: dict[str, Any] | None = None
        self.aggregating: Aggregating | None = None
        self.paused = paused
        self.switch(revision, spec, idle_s, views)

    def switch(self, revision: Revision, spec: StreamSpec, idle_s: float, views: Collection[str] = ()) -> None:
        """Another revision is routed."""
        self.revision = revision
        self.spec = spec
        self.window = WindowMax(idle_s)
        self.failures = 0  # workers that ended unasked soon after their birth, in a row
        self.reason = ""
        self.stalls: dict[int, Stall] = {}  # by partition, until it moves
        self.replaced = 0.0  # monotonic seconds when workers were replaced for one
        self.not_before = 0.0
        if not views:
            self.aggregating = None
        elif self.aggregating is None:
            self.aggregating = Aggregating(views)
        else:
            self.aggregating.begin(views)

    @property
    def broker(self) -> str:
        return self.revision.settings[STREAM_BROKER]

    @property
    def client(self) -> str | None:
        """What speaks to Kafka; None where nothing has to."""
        return None if self.broker == EMBEDDED else self.settings.get(STREAM_CLIENT, KAFKA_PYTHON)

    @property
    def source(self) -> tuple[Any, ...]:
        """What is read: with another one, nothing known of the lag is true any more."""
        spec = self.spec
        return self.settings, spec.group, spec.input, spec.output, spec.dead_letter

    @property
    def is_paused(self) -> bool:
        """Whether all of it is."""
        return WHOLE in self.paused

    @property
    def without(self) -> list[int]:
        """The partitions that are paused by themselves."""
        return [number for number in self.paused if number != WHOLE]

    @property
    def read(self) -> list[int]:
        """The partitions that are known and not paused by themselves."""
        return [number for number in self.topic.partitions if number not in self.paused]

    @property
    def waiting(self) -> int:
        """Records that workers should read. What was last known says nothing of a broker that is away."""
        return 0 if self.watched or self.is_paused else self.topic.waiting(self.without)

    def watch(self) -> dict[str, Any]:
        """What the watcher is told."""
        settings, *stream = self.source
        return {"op": "watch", "function": self.revision.function, "settings": settings, "stream": stream}

    def bounds(self) -> Bounds:
        """No more workers than partitions that are read: one reads a partition at a time."""
        most = len(self.read) if self.topic.partitions else 1
        return Bounds(0, min(self.spec.max_workers, most), STREAM_LAG_PER_WORKER)

    def note_error(self, message: str) -> None:
        """What went wrong last."""
        self.last_error = {"at": time.time(), "message": message}

    def ended(self, worker: Worker, now: float) -> None:
        """A worker of the routed revision is gone. One that had done something, or lived for a while, is replaced at
        once, whatever ended it; so are the first AT_ONCE in a row of those that had not, if they could be born."""
        if self.aggregating is not None:
            self.aggregating.ended(worker.name)
        useful = worker.name in self.worked or now - worker.born > STEADY_SECONDS
        if worker.drained or useful:
            self.failures = 0
            return
        self.failures += 1
        born = worker.ready.exception()
        self.reason = str(born) if born else "A worker ended unasked; the function's log says more."
        if self.failures > AT_ONCE or born:
            self.not_before = now + min(RESTART_BACKOFF_SECONDS_MAX, 0.05 * 2**self.failures)
        self.note_error(self.reason)

    def forget(self, name: str) -> None:
        """Nothing that is known of a worker matters any more."""
        self.readers.forget(name)
        self.working.pop(name, None)
        self.shares.pop(name, None)
        self.worked.discard(name)
        self.ending.discard(name)

    def stuck(self, serving: Iterable[Worker], now: float) -> list[str]:
        """Names of the workers to replace, for partitions where records wait and none is committed; notes them."""
        at = {number: position for number, (position, end) in self.topic.partitions.items() if position < end}
        self.stalls = {number: one for number, one in self.stalls.items() if at.get(number) == one.position}
        if self.watched or not at:
            return []
        ready = {worker.name: worker.born for worker in serving if worker.life is Life.READY}
        numbers, names = stuck(
            self.topic, self.readers, ready, now,
            without=self.without, troubled=self.working, replaced=self.replaced,
        )  # fmt: skip
        self.replaced = now if names else self.replaced
        for number in numbers if names else ():
            known = self.stalls.get(number)
            self.stalls[number] = Stall(at[number], 1 + (known.times if known else 0))
        return names

    def state(self, serving: Collection[Worker]) -> tuple[str, str]:
        """One word, and the reason when it is not a good one."""
        ready = [worker for worker in serving if worker.life is Life.READY]
        if self.is_paused:
            return "paused", said(self.paused[WHOLE])
        if self.failures and not ready:
            return "failed", self.reason
        if trouble := self._trouble():
            return trouble
        if ready:
            return "running", ""
        return ("starting", "") if self.waiting else ("idle", "")

    def _trouble(self) -> tuple[str, str] | None:
        for known in [*self.working.values(), *([self.watched] if self.watched else [])]:
            return known
        if not self.topic.partitions:
            return "unknown", "the broker has not been asked yet"
        if self.stalls:
            which, times = ", ".join(map(str, self.stalls)), max(one.times for one in self.stalls.values())
            return "stalled", f"partition {which}: records wait, none is committed; workers were replaced {times} times"
        return None

    @property
    def settings(self) -> dict[str, str]:
        """How to speak to its broker."""
        return {name: value for name, value in self.revision.settings.items() if name.startswith("stream_")}


def said(pause: Pause) -> str:
    """Who paused something, and when."""
    return f"paused by {pause.by} at {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(pause.at))}"
