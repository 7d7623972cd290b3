"""What was served, counted as it streams by: of each column as much as a comparison needs, however many rows."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from sunup.limits import SERVED_SAMPLE_ROWS
from sunup.served.skew.bins import PROBABILITIES, Floats, count_in, quantiles_of
from sunup.served.skew.profile import Column, as_model, tally


class Batch(NamedTuple):
    """Some rows of the log. `values`: column -> values as the profile has them: float64 with NaN, or text with None;
    `defaulted`, `stale`: column -> rows in which it was; `times`: of the first and last row, Unix seconds."""

    rows: int
    values: Mapping[str, NDArray[Any]]
    defaulted: Mapping[str, int]
    stale: Mapping[str, int]
    times: tuple[float, float]


class Served(msgspec.Struct, frozen=True):
    """What was counted of one column; `counts` as Column has them. `quantiles` at PROBABILITIES, of a number."""

    count: int
    missing: int
    counts: tuple[int, ...]
    quantiles: tuple[float, ...]


class Sample:
    """At most `most` of the numbers it was given, each as likely as any other; which is a matter of a seed.

    Every number draws a random key, and those with the smallest keys stay (reservoir sampling by random sort).
    """

    def __init__(self, most: int = SERVED_SAMPLE_ROWS) -> None:
        self._most = most
        self._random = np.random.default_rng(0)
        self._keys = np.empty(0)
        self.values: Floats = np.empty(0)

    def add(self, values: Floats) -> None:
        """Numbers [n] that are not NaN."""
        keys = np.concatenate([self._keys, self._random.random(len(values))])
        values = np.concatenate([self.values, values])
        if len(keys) > self._most:
            stay = np.argpartition(keys, self._most)[: self._most]
            keys, values = keys[stay], values[stay]
        self._keys, self.values = keys, values


class Total:
    """One column of the profile, over all rows served so far: counts in its bins, exact; quantiles of a sample."""

    def __init__(self, column: Column) -> None:
        self._column = column
        self._edges = np.array(column.edges)
        self._counts = np.zeros(len(column.counts), dtype=np.int64)
        self._places = {category: place for place, category in enumerate(column.categories)}
        self._sample = Sample()
        self._low, self._high = np.inf, -np.inf
        self._count = self._missing = 0

    def add(self, values: NDArray[Any]) -> None:
        """Values [n] of a batch."""
        self._count += len(values)
        if self._column.kind == "category":
            found, missing = tally(values, self._column.dtype)
            for text, count in found.items():
                self._counts[self._places.get(text, -1)] += count
        else:
            numbers = as_model(values, self._column.dtype)
            known = numbers[~np.isnan(numbers)]
            missing = len(numbers) - len(known)
            self._counts += count_in(self._edges, known)
            self._sample.add(known)
            self._low = min(self._low, known.min(initial=np.inf))
            self._high = max(self._high, known.max(initial=-np.inf))
        self._missing += missing

    @property
    def served(self) -> Served:
        """What was counted so far. The smallest and the largest number are exact, those between of a sample."""
        quantiles = quantiles_of(self._sample.values)
        if len(quantiles):
            quantiles[0], quantiles[-1] = self._low, self._high
            assert len(quantiles) == len(PROBABILITIES)
        return Served(self._count, self._missing, tuple(self._counts.tolist()), tuple(quantiles.tolist()))
