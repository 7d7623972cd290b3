"""The scaler: looks at every function that does something, asks the pure policy, and has workers born or drained."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from sunup.engine.local.live import Live
from sunup.engine.local.state import Revision
from sunup.engine.local.workers import Life, Role, Worker, Workers
from sunup.limits import BIRTHS_AT_ONCE, WARM_CHECK_SECONDS

TICK_SECONDS = 0.25


class Acts(Protocol):
    """What the scaler may do. The supervisor is one."""

    @property
    def able(self) -> bool: ...
    def bear(self, revision: Revision, role: Role = Role.CALLS) -> Worker: ...
    def drain(self, worker: Worker) -> None: ...
    def announce(self, live: Live) -> None: ...


class Scaler:
    """Ticks only while some function has workers or needs some, so an idle engine costs nothing; then it sleeps until
    one will. `before` is called at each tick, and says in how many seconds there is more to look at, None:
    when something has happened.

    An engine holds thousands of functions that are at zero: none of them is looked at before something happens to it,
    which `later` is told, or the time that it foresees itself."""

    def __init__(
        self, live: Mapping[str, Live], workers: Workers, acts: Acts, before: Callable[[], float | None]
    ) -> None:
        self._live = live
        self._workers = workers
        self._acts = acts
        self._before = before
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._due: dict[str, float] = {}  # monotonic seconds, by function; one that is not in it is at rest

    def later(self, function: str = "") -> None:
        """Have a look within a tick, at a function too that something happened to."""
        if function:
            self._due[function] = 0.0
        self._in(TICK_SECONDS)

    def tick(self) -> None:
        """Look at everything now, and again while anything is going on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._acts.able:
            return
        foreseen = self._before()
        busy, now = foreseen == 0.0, self._loop.time()
        for name in [name for name, due in self._due.items() if due <= now]:
            live = self._live.get(name)
            if live is None:
                del self._due[name]
            elif self._look(live):
                busy = True
        if busy:
            self.later()
            return
        times = [max(0.0, due - now) for due in self._due.values()]
        if foreseen is not None:
            times.append(min(WARM_CHECK_SECONDS, foreseen))
        if times:
            self._in(min(times))

    def _look(self, live: Live) -> bool:
        """Scale a function, unless it rests: an engine holds thousands that nobody calls. Whether it has workers."""
        name = live.revision.function
        count = len(self._workers.of(name))
        if not live.rests(self._loop.time(), count):
            return self.scale(live)
        if not count:
            self._due.pop(name, None)
        return count > 0

    def scale(self, live: Live) -> bool:
        """Bring a function to the number of workers it should have; whether it needs looking at again."""
        if not self._acts.able:
            return False
        now, name = self._loop.time(), live.revision.function
        workers = self._workers.serving(live.revision, Role.CALLS)
        sample = live.sample(workers, now)
        want = live.needs.workers(sample, now, time.time())
        live.look(now, len(self._workers.of(name)), calm=want == len(workers) and not any(sample))
        if len(workers) < want and now >= live.not_before:
            # The others are born as these become ready, or at the next tick: births of one function, which all load the
            # machine, must not hold up the first worker of another.
            starting = sum(worker.life is Life.STARTING for worker in workers)
            for _ in range(min(want - len(workers), BIRTHS_AT_ONCE - starting)):
                self._acts.bear(live.revision)
            self._acts.announce(live)
        elif len(workers) > want:
            # Those still starting go first, then the youngest: the oldest has the warmest memory.
            for worker in sorted(workers, key=lambda w: (w.life is Life.READY, -w.born))[: len(workers) - want]:
                self._acts.drain(worker)
            self._acts.announce(live)
        self._due[name] = now
        if want > 0 or workers:
            return True
        foreseen = live.needs.wakes_in(now, time.time())
        if foreseen is None:
            del self._due[name]
        else:
            self._due[name] = now + min(WARM_CHECK_SECONDS, foreseen)
        return False

    def _in(self, seconds: float) -> None:
        at = self._loop.time() + seconds
        if self._timer is not None and self._timer.when() > at:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(at, self.tick)
