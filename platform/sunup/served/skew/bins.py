"""Bins of a column of numbers, made of the training sample's deciles, and its quantiles.

The inner edges are the sample's deciles, so that each bin holds a tenth of it. Where several deciles are the same
number (a column that is mostly 0, a flag, a constant), that number gets a bin of its own, from just below it to just
above; so a constant column has three bins: below it, it, above it. The first and last bins have no end.

An edge belongs to the bin below it, and lies a millionth above its value (of whole numbers, half of one): a store's
float32 and a training table's float64 of the same number must not fall into different bins.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TENTHS: Final = np.arange(1, 10)
PROBABILITIES: Final = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
ROUNDING: Final = 1e-6  # of a number; float32 keeps 6e-8


def edges_of(values: Floats, *, whole: bool) -> Floats:
    """Upper edges of all bins but the last, ascending, from values [n] that are sorted and not NaN; empty for none."""
    if not len(values):
        return np.empty(0)
    at = -(-TENTHS * len(values) // 10) - 1
    found, times = np.unique(values[at], return_counts=True)
    around = np.full(len(found), 0.5) if whole else np.abs(found) * ROUNDING
    with np.errstate(over="ignore"):  # the largest float: everything is below infinity
        upper = found + around
        lower = np.nextafter(found - around, -np.inf)
    edges: Floats = np.nan_to_num(np.unique(np.concatenate([upper, lower[times > 1]])))
    return edges


def is_one(lower: float, upper: float, *, whole: bool) -> bool:
    """Whether the bin between these edges is that of one number."""
    return upper - lower <= (1.1 if whole else 3 * ROUNDING * abs(upper) + 1e-300)


def count_in(edges: Floats, values: Floats) -> NDArray[np.int64]:
    """How many of `values` (not NaN) each bin holds, [len(edges) + 1]."""
    places = np.searchsorted(edges, values, side="left")
    counts: NDArray[np.int64] = np.bincount(places, minlength=len(edges) + 1).astype(np.int64)
    return counts


def quantiles_of(values: NDArray[Any]) -> Floats:
    """The quantiles at PROBABILITIES of values [n] without NaN, between two values in proportion; empty for none."""
    if not len(values):
        return np.empty(0)
    with np.errstate(over="ignore", invalid="ignore"):  # between numbers of the largest kind
        found: Floats = np.nan_to_num(np.quantile(values, PROBABILITIES))
    return found
