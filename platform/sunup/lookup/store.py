"""What a store is to the lookup: entity keys in, stored bytes and times out. One file per backend, one contract."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar

from sunup.errors import SunupError
from sunup.lookup.plan import Entity, ReadPlan

# Distinct keys to read, per entity of the plan (in its order).
Keys: TypeAlias = Sequence[Sequence[bytes]]
# What one key has: per view its features' Value bytes (None: absent) in plan order, then the view's event time in
# seconds since the epoch (None: absent). `slots` says where each view starts.
Found: TypeAlias = list[Any]
# One Found per key, aligned with Keys.
Answer: TypeAlias = list[list[Found]]

Result = TypeVar("Result")


class StoreUnavailable(SunupError):
    """A read that got no answer: store down, refused, or the deadline passed. `message` is for the log.

    `counts`: it speaks against the store as a whole, so that further ones open the circuit around it.
    """

    status = 503
    code = "store_unavailable"
    retry = True
    counts: ClassVar[bool] = True


class PartUnavailable(StoreUnavailable):
    """A part of the store did not answer; reads of other keys may."""

    counts = False


# Who asked, and hears the answer or why there is none.
Told: TypeAlias = Callable[[Answer | Exception], None]


class Reading(Protocol):
    """A read under way."""

    def cancel(self) -> object:
        """Nobody waits for it any more, so nobody is told."""


class Store(Protocol):
    """An online store of one plan; a backend derives from it for what is the same in all.

    `inline` stores answer at once and are read with `read_now`, on the event loop; `read` is for the others and for
    reads too big for that, and so is `ask`. `deadline` is monotonic seconds. They raise StoreUnavailable, and nothing
    else.
    """

    inline: bool

    async def open(self) -> None:
        """Connect, and keep trying in the background if that fails: a worker serves defaults meanwhile."""

    def read_now(self, keys: Keys, deadline: float) -> Answer: ...

    async def read(self, keys: Keys, deadline: float) -> Answer: ...

    def ask(self, keys: Keys, deadline: float, told: Told) -> Reading:
        """As `read`; `told` is called in a later turn of the loop, unless this raises. It must not raise.

        A store that can do so without a task does: a task and its wake-ups cost a one-row call more than the read.
        """
        task = asyncio.get_running_loop().create_task(self.read(keys, deadline))
        task.add_done_callback(partial(tell, told))
        return task

    async def close(self) -> None:
        """Let go of files, connections and tasks. A closed store may be opened again."""


def tell(told: Callable[[Result | Exception], None], task: "asyncio.Task[Result]") -> None:
    """What became of `task`, to who asked; nothing when it was cancelled."""
    if not task.cancelled():
        error = task.exception()
        told(task.result() if error is None else error)  # type: ignore[arg-type]  # a task that raised more is no more


@dataclass(frozen=True, slots=True)
class Slots:
    """Where one entity's views lie in a Found: `starts[v]` to `times[v]` are view v's features, then comes its time."""

    starts: tuple[int, ...]
    times: tuple[int, ...]
    width: int


def slots(entity: Entity) -> Slots:
    """The layout of a Found of `entity`."""
    starts, at = [], 0
    for view in entity.views:
        starts.append(at)
        at += len(view.features) + 1
    times = [start + len(view.features) for start, view in zip(starts, entity.views, strict=True)]
    return Slots(tuple(starts), tuple(times), at)


def nothing(plan: ReadPlan) -> tuple[Found, ...]:
    """Per entity, the Found of a key that is not stored."""
    return tuple([None] * slots(entity).width for entity in plan.entities)
