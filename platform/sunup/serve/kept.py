"""Models the nursery keeps open, so that the workers forked from it need not load them.

A session with one intra-op thread has no pool, so it survives a fork, and its pages are shared. Kept are models that
went to zero and came back: what a worker of the same bundle measured before says that it was proven and served here and
that opening it takes no long time. They are opened when nothing else is to do, within a budget, and the one asked for
longest ago goes first; what it took goes back to the system. A function's own code is never part of it.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sunup.errors import SunupError
from sunup.execute.executor import Executor
from sunup.function import MODEL, Cost, open_kept
from sunup.limits import KEPT_BYTES_MAX, KEPT_LOAD_SECONDS_MAX, KEPT_MODEL_BYTES_MAX
from sunup.link.process import resident_bytes, trim_heap


class KeptModels:
    """Models by bundle folder. `bytes_max`: resident memory they may take together."""

    def __init__(self, bytes_max: int = KEPT_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._open: dict[str, tuple[Executor, int]] = {}  # with its bytes; the one asked for longest ago comes first
        self._wanted: dict[str, None] = {}

    def __repr__(self) -> str:
        return f"KeptModels({len(self._open)} of {sum(size for _, size in self._open.values())} bytes)"

    def of(self, spec: Mapping[str, Any]) -> Executor | None:
        """The model of a worker that is about to be born, if it is kept. If it is not, it may be from `settle` on."""
        bundle = spec["bundle"]
        if not bundle or spec["prove"]:  # a proof is of what the files say now
            return None
        if bundle in self._open:
            self._open[bundle] = self._open.pop(bundle)
            return self._open[bundle][0]
        if spec["cost"] is not None and Cost(*spec["cost"]).load <= KEPT_LOAD_SECONDS_MAX:
            self._wanted[bundle] = None
        return None

    def settle(self) -> bool:
        """Open one that is wanted, and let go of what is too much, or gone from the disk. Whether more is wanted."""
        for gone in [one for one in self._open if not Path(one, MODEL).exists()]:
            self._drop(gone)
        bundle = next(iter(self._wanted), None)
        if bundle is None:
            return False
        del self._wanted[bundle]
        self._keep(Path(bundle))
        return bool(self._wanted)

    def _keep(self, bundle: Path) -> None:
        try:
            if (bundle / MODEL).stat().st_size > KEPT_MODEL_BYTES_MAX:
                return
            trim_heap()
            before = resident_bytes()
            executor = open_kept(bundle)
        except (OSError, SunupError) as error:  # its next worker will say so, too, to whom it concerns
            print(f"the model of {bundle.name} is not kept: {error}", file=sys.stderr, flush=True)
            return
        trim_heap()
        self._open[str(bundle)] = executor, max(resident_bytes() - before, 0)
        while sum(size for _, size in self._open.values()) > self._bytes_max:
            self._drop(next(iter(self._open)))

    def _drop(self, bundle: str) -> None:
        self._open.pop(bundle)[0].close()
        trim_heap()  # without it the allocator would keep the pages
