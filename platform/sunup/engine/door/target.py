"""Where the door sends connections: a function's queue and its workers."""

import asyncio
import socket
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from sunup.engine.door.held import Held
from sunup.engine.door.room import Room
from sunup.errors import Overloaded
from sunup.limits import CONNECTIONS_MAX, QUEUE_DEFAULT, TIMEOUT_SECONDS_DEFAULT
from sunup.link.channel import Channel
from sunup.link.states import State, map_states, unmap_states

BIRTHS_KEPT = 3
WAKE_AGAIN_SECONDS = 0.25


class WorkerLink:
    """The door's end of one worker: which connections it holds, by slot. `draining`: no new ones go to it. `load`: how
    many of them it works on, on average (balance.py)."""

    def __init__(self, worker: str, revision: int, states: Path) -> None:
        self.worker = worker
        self.revision = revision
        self.channel: Channel | None = None
        self.ready = False
        self.draining = False
        self.held: dict[int, Held] = {}
        self.load = 0.0
        self._high = 0  # slots below it have been used
        self._states = map_states(states)
        self._unused = iter(range(CONNECTIONS_MAX))
        self._free: list[int] = []

    def __repr__(self) -> str:
        state = "draining" if self.draining else "ready" if self.ready else "starting"
        return f"WorkerLink({self.worker}, revision={self.revision}, {state}, connections={len(self.held)})"

    def take(self, held: Held) -> bool:
        """Pass a connection on; False when the worker cannot take it (full, or gone)."""
        slot = self._free.pop() if self._free else next((s for s in self._unused if s not in self.held), None)
        if slot is None or self.channel is None:
            return False
        self._states[slot] = State.FREE
        head = {"op": "take", "slot": slot, "since": held.since}
        if not self.channel.send(head, held.data, [held.sock.fileno()]):
            return False
        self.held[slot] = held
        self._high = max(self._high, slot + 1)
        return True

    def adopt(self, slots: Sequence[int], fds: Sequence[int], now: float) -> None:
        """It outlived the last door, and hands over duplicates of the connections it holds."""
        held = [Held(socket.socket(fileno=fd), now) for fd in fds]
        self.held.update(zip(slots, held, strict=True))
        self._high = max(self._high, max(slots) + 1)

    def part(self) -> None:
        """It has met the next door, which has a duplicate of each connection."""
        for held in self.held.values():
            held.sock.close()
        self.held.clear()
        assert self.channel is not None
        self.channel.close()

    def begin(self) -> None:
        """All it holds is known: pass it more from now on."""
        for slot in range(self._high):
            if slot not in self.held:
                self._states[slot] = State.IDLE
        self.ready = True

    @property
    def busy(self) -> int:
        """How many connections it works on, or was passed and has not begun to. A microsecond per thousand used."""
        return self._high - bytes(self._states[: self._high]).count(State.IDLE)

    def ask_back(self, count: int, silent: tuple[float, float]) -> None:
        """Have it hand back up to so many connections, of those that have been silent for so many seconds."""
        if self.channel is not None:
            self.channel.send({"op": "yield", "count": count, "silent": silent})

    def release(self, slot: int) -> Held | None:
        """Forget a slot; the connection that was in it."""
        held = self.held.pop(slot, None)
        if held is not None:
            self._states[slot] = State.IDLE  # or it would count as busy
            self._free.append(slot)
        return held

    def state(self, slot: int) -> State:
        """What the worker was last doing with a connection."""
        return State(self._states[slot])

    def close(self) -> None:
        """The worker is gone, and nothing is asked of its states any more. They hold a descriptor, which would stay
        until the collector finds the circle of this, the channel and what the channel calls."""
        unmap_states(self._states)
        self.channel = None


class Target:
    """A function as the door knows it (or, with no name, the front). `room`: for the bytes of those that wait."""

    def __init__(self, name: str | None, room: Room) -> None:
        self.name = name
        self.exists = name is None
        self.revision = 0
        self.queue_max = QUEUE_DEFAULT
        self.timeout = TIMEOUT_SECONDS_DEFAULT
        self.queue: deque[Held] = deque()
        self._room = room
        self.timer: asyncio.TimerHandle | None = None
        self.workers: dict[str, WorkerLink] = {}
        self.births: deque[float] = deque(maxlen=BIRTHS_KEPT)  # s the last ones took, from wake to ready
        self.pause = 0  # looks until connections may be moved between its workers again (balance.py)
        self.asked = 0.0  # monotonic seconds of the last wake
        self.woken: float | None = None  # monotonic seconds since when one is awaited

    def __repr__(self) -> str:
        return f"Target({self.name}, revision={self.revision}, queued={len(self.queue)}, workers={self.workers})"

    def hold(self, held: Held) -> None:
        """Put a connection at the end of the queue."""
        self.queue.append(held)
        self._room.used += len(held.data)

    def full(self, held: Held) -> Overloaded | None:
        """Why one more cannot be held."""
        if len(self.queue) >= self.queue_max:
            return Overloaded(f"{self.queue_max} calls wait for {self.name} already. Try again shortly.")
        if self._room.used + len(held.data) > self._room.most:
            return Overloaded("The server holds as many waiting requests as it may. Try again shortly.")
        return None

    def flush(self) -> bool:
        """Pass on what waits, oldest first, as far as workers take it; False when nothing waited."""
        waited = bool(self.queue)
        while self.queue and (worker := self.choose()) is not None and worker.take(self.queue[0]):
            self.next()
        return waited

    def asks_again(self, now: float) -> bool:
        """Whether a worker is to be asked for though nobody waits for it: not for each of many calls."""
        if self.queue or now - self.asked < WAKE_AGAIN_SECONDS:
            return False
        self.asked = now
        return True

    def next(self) -> Held:
        """Take the connection that waited longest from the queue."""
        held = self.queue.popleft()
        self._room.used -= len(held.data)
        return held

    @property
    def able(self) -> list[WorkerLink]:
        """The ready workers of the routed revision."""
        return [w for w in self.workers.values() if w.ready and not w.draining and w.revision == self.revision]

    def choose(self) -> WorkerLink | None:
        """The ready worker that works on the fewest connections and, of those, holds the fewest."""
        able = self.able
        if len(able) < 2:
            return able[0] if able else None
        return min(able, key=lambda w: (w.busy, len(w.held)))

    def late(self, since: float, now: float) -> bool:
        """Whether a call that came at `since` will be too old for an answer when the worker it wakes is ready: too old
        by the quickest of the last births."""
        if not self.births:
            return False
        left = min(self.births) - (now - self.woken if self.woken is not None else 0.0)
        return now + max(0.0, left) > since + self.timeout

    def was_born(self, now: float) -> None:
        """A worker is ready. What it took from the first call for it on is what the next birth is expected to take."""
        if self.woken is not None:
            self.births.append(now - self.woken)
        self.woken = None
