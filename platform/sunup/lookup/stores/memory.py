"""A store in this process's memory: for tests, and for trying a function without an online store."""

import time
from collections.abc import Mapping

from sunup.lookup.plan import ReadPlan
from sunup.lookup.store import Answer, Found, Keys, Store, StoreUnavailable, nothing, slots


class MemoryStore(Store):
    """Values put by hand. Bounded by whoever puts them."""

    inline = True

    def __init__(self, plan: ReadPlan) -> None:
        self._plan = plan
        self._nothing = nothing(plan)
        self._found: list[dict[bytes, Found]] = [{} for _ in plan.entities]

    def __repr__(self) -> str:
        return f"<MemoryStore {sum(map(len, self._found))} keys>"

    def put(self, view: str, key: bytes, values: Mapping[str, bytes], at: float) -> None:
        """Store Value bytes by feature name under `view` (its stored name) with event time `at` (epoch seconds)."""
        for number, entity in enumerate(self._plan.entities):
            layout = slots(entity)
            for index, candidate in enumerate(entity.views):
                if candidate.stored != view:
                    continue
                found = self._found[number].setdefault(key, list(self._nothing[number]))
                for slot, feature in enumerate(candidate.features, layout.starts[index]):
                    found[slot] = values.get(feature.name, found[slot])
                found[layout.times[index]] = at

    async def open(self) -> None:
        """Nothing to connect to."""

    def read_now(self, keys: Keys, deadline: float) -> Answer:
        if time.monotonic() > deadline:
            raise StoreUnavailable("the deadline passed before the read")
        return [
            [list(found.get(key, empty)) for key in wanted]
            for wanted, found, empty in zip(keys, self._found, self._nothing, strict=True)
        ]

    async def read(self, keys: Keys, deadline: float) -> Answer:
        return self.read_now(keys, deadline)

    async def close(self) -> None:
        """Keeps what it holds: a closed store may be opened again."""
