"""A lookup with on-demand feature views: columns worked out from those that were read and from the request.

Their functions run in a thread of their own, as a handler.py does: nobody knows what that code costs.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from sunup.errors import CallError, DeadlineExceeded
from sunup.limits import LOOKUP_ROWS_PER_DEADLINE
from sunup.lookup.derive.view import NONE, Makers, OnDemandView, load_makers
from sunup.lookup.join import Lookup
from sunup.lookup.kinds.ages import AgedLookup
from sunup.lookup.plan import ReadPlan, View, entity_columns
from sunup.lookup.store import Reading, Store, tell
from sunup.types import Features, Field, Row


def open_derived(
    plan: ReadPlan, store: Store, request: Sequence[Field], code: Path, *, aged: bool = False
) -> "DerivedLookup":
    """The lookup of a bundle with the file `code`, features.py. Raises BundleDamaged when that cannot be run. `aged`:
    it says the age of each row's views."""
    return (AgedDerivedLookup if aged else DerivedLookup)(plan, store, request, load_makers(code))


class DerivedLookup(Lookup):
    """A Lookup of a plan with on-demand views. `makers`: what features.py defines.

    Never inline. A column is among those defaulted where its function gave none, or worked it out from a default; and
    among the stale ones where it was worked out without a value that was too old.
    """

    def __init__(self, plan: ReadPlan, store: Store, request: Sequence[Field], makers: Makers) -> None:
        super().__init__(_readable(plan), store, request)
        self.columns = plan.columns
        self.inline = False
        stored = entity_columns(plan.entities)
        self._seen = [at for at, field in enumerate(stored) if field.name not in plan.unseen]
        self._unseen = frozenset(plan.unseen)
        self._on_demand = [OnDemandView(view, plan, request, makers) for view in plan.on_demand]
        self._store_inline = store.inline
        self._thread: ThreadPoolExecutor | None = None

    async def close(self) -> None:
        """As Lookup.close; a function that never returns keeps its thread."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._thread = None
        await super().close()

    async def read(self, rows: Sequence[Row], *, now: float, wall: float, until: float = math.inf) -> Features:
        """As Lookup.read. Raises DeadlineExceeded when the functions are not done by then."""
        if self._store_inline and len(rows) <= LOOKUP_ROWS_PER_DEADLINE:
            found = super().read_now(rows, now=now, wall=wall, until=until)
        else:
            found = await super().read(rows, now=now, wall=wall, until=until)
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "on-demand views")
        try:
            async with asyncio.timeout(None if until == math.inf else max(0.0, until - now)):
                return await asyncio.get_running_loop().run_in_executor(self._thread, self.derived, rows, found)
        except TimeoutError as error:
            raise DeadlineExceeded("the on-demand feature views took longer than the call may") from error

    def ask(
        self,
        rows: Sequence[Row],
        *,
        now: float,
        wall: float,
        until: float = math.inf,
        told: Callable[[Features | Exception], None],
    ) -> Reading:
        """As Lookup.ask, always in a later turn of the loop."""
        task = asyncio.get_running_loop().create_task(self.read(rows, now=now, wall=wall, until=until))
        task.add_done_callback(partial(tell, told))
        return task

    def recall(self, rows: Sequence[Row], *, wall: float) -> Features | None:  # noqa: ARG002
        """None: what is held saves the read, and not the functions, which never run on the event loop."""
        return None

    def derived(self, rows: Sequence[Row], found: Features) -> Features:
        """`found`, the stored columns of `rows`, as the plan's columns."""
        picks = [row for row in range(len(rows)) if row not in found.failed]
        failed: dict[int, CallError] = dict(found.failed)
        given: dict[int, list[Any]] = {row: [found.values[row][at] for at in self._seen] for row in picks}
        missing = _names(found.defaulted, len(rows))
        stale = _names(found.stale, len(rows))
        for view in self._on_demand:
            answers = view.answers([rows[row] for row in picks], [_absent(found, row) for row in picks])
            for row, answer in zip(picks, answers, strict=True):
                if isinstance(answer, CallError):
                    failed.setdefault(row, answer)
                    continue
                values, gone = answer
                given[row] += values
                late = view.uses.intersection(stale[row])
                from_default = view.defaulted.intersection(missing[row])
                (stale if late else missing)[row] += view.columns if late or from_default else gone
        nobody = (None,) * len(self.columns)
        return Features(
            [tuple(given[row]) if row in given and row not in failed else nobody for row in range(len(rows))],
            defaulted=self._shown(missing),
            stale=self._shown(stale),
            ages=found.ages,
            failed=failed,
            row_ages=found.row_ages,
        )

    def _shown(self, names: list[list[str]]) -> list[tuple[str, ...]] | None:
        """Names of the plan's columns only; None when there are none."""
        shown = [tuple([name for name in row if name not in self._unseen]) for row in names]
        return shown if any(shown) else None


class AgedDerivedLookup(DerivedLookup, AgedLookup):
    """The same, with the ages of what was read."""


def _names(listed: Sequence[tuple[str, ...]] | None, count: int) -> list[list[str]]:
    return [[] for _ in range(count)] if listed is None else [list(names) for names in listed]


def _absent(found: Features, row: int) -> tuple[Row, frozenset[str]]:
    gone = frozenset(found.defaulted[row]) if found.defaulted else NONE
    return found.values[row], gone | frozenset(found.stale[row]) if found.stale else gone


def _readable(plan: ReadPlan) -> ReadPlan:
    """The plan of what is read. A missing value that only functions see fails nobody: they are given None."""
    unseen = frozenset(plan.unseen)
    entities = tuple(
        msgspec.structs.replace(entity, views=tuple(_tolerant(view, unseen) for view in entity.views))
        for entity in plan.entities
    )
    return msgspec.structs.replace(plan, entities=entities, columns=entity_columns(entities))


def _tolerant(view: View, unseen: frozenset[str]) -> View:
    some = {"bool": False, "string": "", "bytes": "", "int32": 0, "int64": 0}
    features = tuple(
        msgspec.structs.replace(each, default=[] if each.dtype.endswith("[]") else some.get(each.dtype))
        if each.column in unseen
        else each
        for each in view.features
    )
    return msgspec.structs.replace(view, features=features)
