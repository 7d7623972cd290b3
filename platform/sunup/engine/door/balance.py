"""Which workers of a function hand connections back, so that its others get their part.

A new connection goes to the worker that has the least to do, but a kept-alive one stays where it is: those that were
opened before a worker was born, or that fell silent or grew busy later, have to be moved. They are moved by handing
them back at a message boundary; the next request of each is then passed on like the first of a new one.
"""

import asyncio
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Final

from sunup.engine.door.target import Target
from sunup.limits import IDLE_SECONDS_MAX

LOOK_SECONDS: Final = 0.25
PAUSE_LOOKS: Final = 8  # looks after a move before the next one: the averages have to settle
RECENT_SECONDS: Final = 5.0  # a connection silent for longer carries no load worth moving
SILENT_SECONDS: Final = 1.0  # one silent for so long may be closed when descriptors are short

APART: Final = 0.75  # connections in work, on average, by which the busiest may exceed the idlest worker
_NEWEST: Final = 0.3  # weight of the newest look in the average of how many connections a worker works on


def shares(counts: Sequence[int]) -> list[int]:
    """How many connections each worker hands back, so that nobody has more than a fair share, rounded up. `counts`:
    connections held, by worker."""
    share = ceil(sum(counts) / max(1, len(counts)))
    return [max(0, count - share) for count in counts]


def smoothed(before: float, busy: int) -> float:
    """The average number of connections a worker works on, after a look that found `busy`."""
    return before + _NEWEST * (busy - before)


def moves(loads: Sequence[float], counts: Sequence[int]) -> tuple[int, int] | None:
    """Which worker hands back how many connections, or None where all have about the same to do.

    `loads`: connections in work on average, by worker; `counts`: connections held. Half of the difference is moved, one
    at least; a worker keeps its last connection.
    """
    if len(loads) < 2:
        return None
    busiest = max(range(len(loads)), key=lambda at: loads[at])
    apart = loads[busiest] - min(loads)
    count = min(max(1, int(apart / 2)), counts[busiest] - 1)
    return (busiest, count) if apart >= APART and count > 0 else None


class Balance:
    """Looks at the functions of `targets` that have several workers, four times a second while there is one."""

    def __init__(self, loop: asyncio.AbstractEventLoop, targets: Mapping[str | None, Target]) -> None:
        self._loop = loop
        self._targets = targets
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"Balance(looking={self._timer is not None})"

    def joined(self, target: Target) -> None:
        """A worker is ready: the others share with it what they hold and what has said something lately."""
        able = target.able
        if len(able) < 2:
            return
        for worker, count in zip(able, shares([len(worker.held) for worker in able]), strict=True):
            if count:
                worker.ask_back(count, (0.0, RECENT_SECONDS))
        target.pause = PAUSE_LOOKS
        if self._timer is None:
            self._timer = self._loop.call_later(LOOK_SECONDS, self._look)

    def shed(self, count: int) -> None:
        """Descriptors are short: the worker that holds the most connections hands back silent ones. One function's
        idle clients must not keep another's out."""
        workers = [worker for target in self._targets.values() for worker in target.workers.values()]
        most = max(workers, key=lambda worker: len(worker.held), default=None)
        if most is not None:
            most.ask_back(count, (SILENT_SECONDS, IDLE_SECONDS_MAX))

    def _look(self) -> None:
        several = [target for target in self._targets.values() if len(target.workers) > 1]
        for target in several:
            self._even_out(target)
        self._timer = self._loop.call_later(LOOK_SECONDS, self._look) if several else None

    def _even_out(self, target: Target) -> None:
        able = target.able
        for worker in able:
            worker.load = smoothed(worker.load, worker.busy)
        target.pause -= 1
        if target.pause > 0:
            return
        move = moves([worker.load for worker in able], [len(worker.held) for worker in able])
        if move is not None:
            able[move[0]].ask_back(move[1], (0.0, RECENT_SECONDS))
            target.pause = PAUSE_LOOKS
