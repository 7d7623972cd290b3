"""Functions and when they are called, drawn with the published shape of the Azure Functions trace of July 2019.

Published ("Serverless in the Wild", Shahrad et al., USENIX ATC 2020, sections 3.1 to 3.3): rates span 8 orders of
magnitude; 45 % of applications are called once an hour or less, 81 % once a minute or less, the rest make 99.6 % of all
calls; 15.6 % of functions have a timer, 95 % of those fire at most once a minute; the gaps of 40 % of applications have
a coefficient of variation (CV) above 1; about half of the load follows the day. Ours: rates are log-normal through the
two quantiles; what is neither timer nor above CV 1 is mostly regular (CV below 1), a tenth is Poisson; gaps are gamma
below CV 1 and log-normal above; half of the functions follow the day, by day three times as busy as by night.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

DAY: Final = 86_400.0
DAYS: Final = 14
CALLS_MAX: Final = 2_000  # simulated per function; what follows them is taken to go on like them
_HOURLY, _MINUTELY = (0.45, math.log10(24)), (0.81, math.log10(1440))
_SPREAD: Final = (_MINUTELY[1] - _HOURLY[1]) / (NormalDist().inv_cdf(0.81) - NormalDist().inv_cdf(0.45))
_CENTRE: Final = _HOURLY[1] - _SPREAD * NormalDist().inv_cdf(0.45)
_DECADES: Final = (-math.log10(DAYS), 8.0)  # from once in all the days to 100 million calls a day
SHARES: Final = {"timer": 0.16, "regular": 0.34, "poisson": 0.10, "bursty": 0.40}
_DAYLIGHT: Final = 0.5  # amplitude of the load that follows the day


@dataclass(frozen=True)
class Called:
    """One function. `times`: seconds of its calls, rising; `weight`: how often this stretch fits into all the days."""

    kind: str
    per_day: float
    times: NDArray[np.float64]
    weight: float

    @property
    def gaps(self) -> NDArray[np.float64]:
        return np.diff(self.times)

    @property
    def pace(self) -> str:
        """Which of the published classes of rates it is in."""
        return "hourly" if self.per_day <= 24 else "minutely" if self.per_day <= 1440 else "often"


def functions(seed: int, count: int) -> Iterator[Called]:
    """`count` functions, the same for the same seed. Kinds come in their shares, rates at random."""
    random = np.random.default_rng(seed)
    kinds = [kind for kind, share in SHARES.items() for _ in range(round(share * count))]
    for kind in kinds:
        per_day = _rate(random, timer=kind == "timer")
        mean = DAY / per_day
        wanted = min(CALLS_MAX, max(2, math.ceil(2 * DAYS * per_day)))
        times = random.uniform(0, mean) + np.cumsum(_gaps(random, kind, mean, wanted))
        if kind != "timer" and random.uniform() < 0.5:
            times = _by_day(times, random.uniform(0, DAY))
        times = times[times < DAYS * DAY]
        if len(times) >= 2:
            weight = max(1.0, DAYS * DAY / float(times[-1])) if len(times) == wanted else 1.0
            yield Called(kind, per_day, times, weight)


def _rate(random: np.random.Generator, *, timer: bool) -> float:
    """Calls a day."""
    slow = timer and random.uniform() < 0.95
    while True:
        decades = random.normal(_CENTRE, _SPREAD)
        if _DECADES[0] <= decades <= _DECADES[1] and (not slow or decades <= _MINUTELY[1]):
            return float(10**decades)


def _gaps(random: np.random.Generator, kind: str, mean: float, count: int) -> NDArray[np.float64]:
    if kind == "timer":
        return np.full(count, mean)
    if kind == "poisson":
        return random.exponential(mean, count)
    if kind == "regular":
        shape = random.uniform(0.1, 0.9) ** -2
        return random.gamma(shape, mean / shape, count)
    sigma = math.sqrt(math.log(1 + math.exp(random.uniform(math.log(1.2), math.log(10))) ** 2))
    return random.lognormal(math.log(mean) - sigma**2 / 2, sigma, count)


def _by_day(times: NDArray[np.float64], phase: float) -> NDArray[np.float64]:
    """The same calls, dense by day and sparse by night: time runs by the integral of 1 + a sin."""
    clock = np.linspace(0, times[-1] * 2 + DAY, max(1000, int(times[-1] / 600)))
    turn = 2 * np.pi / DAY
    passed = clock + _DAYLIGHT / turn * (np.cos(phase * turn) - np.cos((clock + phase) * turn))
    return np.interp(times, passed, clock)
