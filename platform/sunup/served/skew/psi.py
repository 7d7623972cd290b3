"""The population stability index (PSI) of two sets of counts over the same bins, and what of it is chance.

PSI = sum over bins of (served - trained) * ln(served / trained), of shares: 0 when both are alike; by the field's usual
rule below 0.1 nothing moved, from 0.25 on much did (N. Siddiqi, Credit Risk Scorecards, Wiley 2006).

An empty bin of one side counts as half a row, the correction for empty cells of J. B. S. Haldane (Annals of Human
Genetics 20, 1956) and F. J. Anscombe (Biometrika 43, 1956): a logarithm needs a share above 0, and half a row is as
little as so many rows can say. Bins that are empty on both sides say nothing. Where no bin is empty, the PSI is the
textbook's.

Of n and m rows drawn alike over B bins, the PSI is about (1/n + 1/m) times a chi-squared number with B - 1 degrees of
freedom (B. Yurdakul, Statistical Properties of Population Stability Index, Western Michigan University 2018): on
average (B - 1)(1/n + 1/m). Rows of the same customers are not independent, and vary more.
"""

from collections.abc import Sequence
from math import sqrt
from typing import Final, NamedTuple

import numpy as np

MODERATE: Final = 0.1
MAJOR: Final = 0.25
_EMPTY_COUNTS_AS: Final = 0.5  # rows
_Z: Final = 3.0902  # of the normal distribution at 99.9 %: with 30 features, one false alarm in 30 looks


class Psi(NamedTuple):
    """`value`: the PSI; `noise`: what rows drawn alike would give on average; `noise_max`: in 999 of 1,000 cases at
    most. All NaN when one side has no row."""

    value: float
    noise: float
    noise_max: float


def psi(trained: Sequence[int], served: Sequence[int]) -> Psi:
    """The PSI of two counts over the same bins, each [bins]."""
    expected, actual = np.asarray(trained, dtype=np.float64), np.asarray(served, dtype=np.float64)
    n, m = expected.sum(), actual.sum()
    if not n or not m:
        return Psi(float("nan"), float("nan"), float("nan"))
    used = (expected > 0) | (actual > 0)
    p = np.maximum(expected[used], _EMPTY_COUNTS_AS) / n
    q = np.maximum(actual[used], _EMPTY_COUNTS_AS) / m
    value = float(np.sum((q - p) * np.log(q / p)))
    freedom, per_row = int(used.sum()) - 1, float(1 / n + 1 / m)
    return Psi(value, freedom * per_row, _chi_squared(freedom) * per_row)


def _chi_squared(freedom: int) -> float:
    """The 99.9 % quantile of a chi-squared number, within 4 % (E. B. Wilson, M. M. Hilferty, PNAS 1931)."""
    if freedom == 0:
        return 0.0
    spread = 2 / (9 * freedom)
    return float(freedom * (1 - spread + _Z * sqrt(spread)) ** 3)
