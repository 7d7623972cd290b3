"""The scaler's hands: how many births of one function it orders at a time."""

import asyncio
from types import SimpleNamespace
from typing import Any

from sunup.engine.local.scaler import Scaler
from sunup.engine.local.workers import Life
from sunup.limits import BIRTHS_AT_ONCE
from sunup.scale.policy import Sample


class Crowd:
    """A function that wants `want` workers, its workers, and what may be done with them."""

    def __init__(self, want: int) -> None:
        self.want = want
        self.able = True
        self.lives: list[Life] = []
        self.revision = SimpleNamespace(function="hot")
        self.needs = SimpleNamespace(workers=lambda *_: self.want)
        self.not_before = 0.0

    def of(self, *_: Any) -> list[Any]:
        return [SimpleNamespace(life=life, born=0.0) for life in self.lives]

    serving = of

    def sample(self, *_: Any) -> Sample:
        return Sample(100, 0, 0)

    def look(self, *_: Any, **__: Any) -> None:
        pass

    def announce(self, _: Any) -> None:
        pass

    def bear(self, _: Any) -> None:
        self.lives.append(Life.STARTING)


def test_a_hot_functions_births_come_a_few_at_a_time() -> None:
    async def run() -> None:
        crowd: Any = Crowd(want=3 * BIRTHS_AT_ONCE - 1)
        scaler = Scaler({"hot": crowd}, crowd, crowd, lambda: None)
        scaler.scale(crowd)
        assert len(crowd.lives) == BIRTHS_AT_ONCE
        scaler.scale(crowd)
        assert len(crowd.lives) == BIRTHS_AT_ONCE  # none of them is ready yet
        crowd.lives[:3] = [Life.READY] * 3
        scaler.scale(crowd)
        assert len(crowd.lives) == BIRTHS_AT_ONCE + 3
        for _ in range(4):
            crowd.lives[:] = [Life.READY] * len(crowd.lives)
            scaler.scale(crowd)
        assert len(crowd.lives) == crowd.want

    asyncio.run(run())
