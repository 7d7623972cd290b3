"""Into a MemoryStore: for tests, and the least that a writer must do."""

import os
from collections.abc import Sequence

from sunup.lookup.plan import ReadPlan
from sunup.lookup.stores.memory import MemoryStore
from sunup.lookup.writing.target import targets
from sunup.lookup.writing.writer import FeatureWriter, Write


class MemoryWriter(FeatureWriter):
    """Writes into `store`, which whoever reads has too."""

    def __init__(self, plan: ReadPlan, store: MemoryStore | None = None) -> None:
        self._plan = plan
        self.store = store or MemoryStore(plan)
        self.mark = b""
        self._targets = targets(plan)
        self._versions: dict[tuple[str, bytes], bytes] = {}
        self._there = b""

    def __repr__(self) -> str:
        return f"<MemoryWriter {self.store!r}>"

    def write(self, view: str, rows: Sequence[Write]) -> None:
        target = self._targets[view]
        for row in rows:
            if self._versions.get((target.stored, row.key), b"") <= row.version:
                self._versions[target.stored, row.key] = row.version
                made = [encode(value) for encode, value in zip(target.encoders, row.values, strict=True)]
                self.store.put(target.stored, row.key, dict(zip(target.features, made, strict=True)), row.at)

    def is_lost(self) -> bool:
        self.mark = self.mark or self._there
        return not self._there or self._there != self.mark

    def begin(self) -> None:
        self.mark = self._there = self._there or os.urandom(8)

    def forget(self) -> None:
        """Lose everything, as a store may."""
        self.store, self._versions, self._there = MemoryStore(self._plan), {}, b""

    def close(self) -> None:
        """Keeps what it holds."""
