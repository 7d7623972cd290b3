"""What a policy does with a function's calls: the memory it kept for nothing, the starts it needed. No time passes.

A call is an instant: what a worker holds while it computes is no policy's choice. Memory and the cost of a start are
the same for every policy.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sunup.engine.local.scaler import TICK_SECONDS
from sunup.scale.history import History
from sunup.scale.learned import GB_PER_CPU, LearnedWindow
from sunup.scale.policy import Bounds, Sample, decide

BOUNDS: Final = Bounds(0, 1, 32)
CALL, NOTHING = Sample(1, 0, 0), Sample(0, 0, 0)


@dataclass(frozen=True)
class Prices:
    """Measured: CPU seconds of a cold start in all processes together, bytes of an idle worker."""

    cold_seconds: float
    worker_bytes: float

    @property
    def cold(self) -> float:
        """GB-s that cost what a cold start costs."""
        return self.cold_seconds * GB_PER_CPU

    @property
    def break_even(self) -> float:
        """Seconds a worker may idle for the cost of a cold start."""
        return self.cold / (self.worker_bytes / 1e9)


@dataclass
class Spent:
    """Of one function or, added up, of many. `idle`: seconds a worker was there for nothing; `starts`: births, each
    with its cost; `cold`: calls that waited for one."""

    idle: float = 0.0
    starts: float = 0.0
    cold: float = 0.0
    calls: float = 0.0

    def add(self, other: "Spent", weight: float) -> None:
        """Count another in, `weight` times."""
        self.idle += weight * other.idle
        self.starts += weight * other.starts
        self.cold += weight * other.cold
        self.calls += weight * other.calls

    def waste(self, prices: Prices) -> float:
        """GB-s kept for nothing."""
        return self.idle * prices.worker_bytes / 1e9

    def cost(self, prices: Prices) -> float:
        """GB-s kept for nothing, and what the starts cost in GB-s."""
        return self.waste(prices) + self.starts * prices.cold


def fixed(gaps: NDArray[np.float64], keep: float) -> Spent:
    """A worker stays `keep` seconds after each call."""
    cold = float((gaps > keep).sum())
    return Spent(float(np.minimum(gaps, keep).sum()), cold, cold, float(len(gaps)))


def clairvoyant(gaps: NDArray[np.float64], prices: Prices) -> Spent:
    """Knows each gap, and keeps the worker through it or ends it at once, whichever costs less. Never starts early."""
    kept = gaps <= prices.break_even
    cold = float((~kept).sum())
    return Spent(float(gaps[kept].sum()), cold, cold, float(len(gaps)))


def learned(times: NDArray[np.float64], prices: Prices, window: LearnedWindow | None = None) -> Spent:
    """The product's own `decide` with its learning window, asked at the calls and whenever the scaler would look and
    might decide otherwise than before. It knows nothing of the function at the first call."""
    window = window or LearnedWindow(30.0, History())
    window.price(prices.cold_seconds, prices.worker_bytes)
    spent = Spent(calls=float(len(times) - 1))
    decide(BOUNDS, window, CALL, times[0])
    for now, later in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        ends = now + TICK_SECONDS * math.ceil(window.idle / TICK_SECONDS)
        while later > ends and decide(BOUNDS, window, NOTHING, ends):
            ends += TICK_SECONDS
        if later <= ends:
            spent.idle += later - now
        else:
            spent.idle += ends - now
            waited = _pre_warmed(window, ends, later)
            spent.starts += 1 + (waited is not None and not waited[1])
            spent.cold += waited is None or not waited[1]
            spent.idle += waited[0] if waited else 0.0
        decide(BOUNDS, window, CALL, later)
    return spent


def _pre_warmed(window: LearnedWindow, now: float, later: float) -> tuple[float, bool] | None:
    """Seconds a worker that was born early waited, and whether the call found it; None when none was born."""
    begins = window.wakes_at(now)
    if begins is None or begins >= later:
        return None
    looks = begins
    while looks < later and decide(BOUNDS, window, NOTHING, looks):
        looks += TICK_SECONDS
    return min(looks, later) - begins, looks >= later
