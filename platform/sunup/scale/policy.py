"""The scaling decision: `decide(bounds, window, sample, now)`. Pure: time and observations in, a number out."""

import math
from typing import NamedTuple, Protocol


class Window(Protocol):
    """What is remembered of needs: for a declared span (window.py), or as long as it is worth (learned.py)."""

    def add(self, now: float, value: float) -> None: ...
    def value(self, now: float) -> float: ...


class Bounds(NamedTuple):
    """What the function's [scale] table says. `target`: calls in progress one worker should have."""

    min: int
    max: int
    target: int


class Sample(NamedTuple):
    """One observation of a function. `inflight`: calls its workers are answering; `waiting`: connections the door holds
    for it; `answered`: calls answered since the last sample (one shorter than the sampling period still counts)."""

    inflight: int
    waiting: int
    answered: int


def decide(bounds: Bounds, window: Window, sample: Sample, now: float) -> int:
    """The number of workers the function should have at `now` (monotonic seconds).

    Up at once, to hold `target` calls each; down only when no higher need was seen for the whole window, whose span is
    the function's `idle` time, or learned where that is "auto". So a function that has been silent that long goes to
    `min`, which may be zero.
    """
    busy = sample.inflight + sample.waiting
    need = math.ceil(busy / bounds.target)
    if need == 0 and sample.answered > 0:
        need = 1
    if need > 0:
        window.add(now, float(need))
    return max(bounds.min, min(bounds.max, int(window.value(now))))
