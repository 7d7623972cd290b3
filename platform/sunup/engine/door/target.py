"""Where the door sends connections: a function's queue and its workers."""

import asyncio
from collections import deque
from pathlib import Path

from sunup.engine.door.held import Held
from sunup.limits import CONNECTIONS_MAX, QUEUE_DEFAULT, TIMEOUT_SECONDS_DEFAULT
from sunup.link.channel import Channel
from sunup.link.states import State, map_states, unmap_states


class WorkerLink:
    """The door's end of one worker: which connections it holds, by slot. `draining`: no new ones go to it."""

    def __init__(self, worker: str, revision: int, states: Path) -> None:
        self.worker = worker
        self.revision = revision
        self.channel: Channel | None = None
        self.ready = False
        self.draining = False
        self.held: dict[int, Held] = {}
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
        return True

    def release(self, slot: int) -> Held | None:
        """Forget a slot; the connection that was in it."""
        held = self.held.pop(slot, None)
        if held is not None:
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
    """A function as the door knows it (or, with no name, the front)."""

    def __init__(self, name: str | None) -> None:
        self.name = name
        self.exists = name is None
        self.revision = 0
        self.queue_max = QUEUE_DEFAULT
        self.timeout = TIMEOUT_SECONDS_DEFAULT
        self.queue: deque[Held] = deque()
        self.timer: asyncio.TimerHandle | None = None
        self.workers: dict[str, WorkerLink] = {}

    def __repr__(self) -> str:
        return f"Target({self.name}, revision={self.revision}, queued={len(self.queue)}, workers={self.workers})"

    def choose(self) -> WorkerLink | None:
        """The ready worker of the routed revision with the fewest connections."""
        able = [w for w in self.workers.values() if w.ready and not w.draining and w.revision == self.revision]
        return min(able, key=lambda w: len(w.held)) if able else None
