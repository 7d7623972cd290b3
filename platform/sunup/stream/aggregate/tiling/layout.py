"""What a tile of one view holds: its lanes, and how each aggregation is read from them."""

from collections.abc import Callable, Sequence
from math import inf, isfinite
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sunup.types import Aggregated, Aggregation

Value: TypeAlias = float | int | None
Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
STATS: Final = ("count", "sum", "min", "max")
_STATS_OF: Final = {"count": ("count",), "sum": ("sum",), "min": ("min",), "max": ("max",), "mean": ("count", "sum")}
_EMPTY: Final = {"count": 0.0, "sum": 0.0, "min": inf, "max": -inf}  # of a tile that no value fell into
_MERGES: Final = {"count": np.add, "sum": np.add, "min": np.minimum, "max": np.maximum}


class Lane(NamedTuple):
    """One number of a tile: the `stat` of the values that fell into it of the column with that place in `columns`."""

    column: int
    stat: str


class Part(NamedTuple):
    """What an aggregation is read from: a lane, merged over `tiles` tiles. Mean has two: count and sum."""

    lane: int
    tiles: int


class Layout:
    """The lanes of a tile and the parts of a view's values. A tile has a lane only for what some aggregation needs."""

    def __init__(self, spec: Aggregated) -> None:
        needed = {
            Lane(spec.columns.index(each.column), stat)
            for each in spec.aggregations
            for stat in _STATS_OF[each.function]
        }
        self.lanes = tuple(sorted(needed, key=lambda lane: (lane.column, STATS.index(lane.stat))))
        self.functions = tuple(each.function for each in spec.aggregations)
        self.parts = tuple(part for each in spec.aggregations for part in self._parts(spec, each))
        self.windows = tuple(sorted({part.tiles for part in self.parts}))  # in tiles, each once
        self.empty = np.array([_EMPTY[lane.stat] for lane in self.lanes])
        self.merges: tuple[Any, ...] = tuple(_MERGES[lane.stat] for lane in self.lanes)

    def _parts(self, spec: Aggregated, each: Aggregation) -> list[Part]:
        tiles, rest = divmod(each.window_s, spec.hop_s)
        if rest or not tiles:
            raise ValueError(f"{each.feature}: a window of {each.window_s} s is not of whole tiles of {spec.hop_s} s")
        column = spec.columns.index(each.column)
        return [Part(self.lanes.index(Lane(column, stat)), tiles) for stat in _STATS_OF[each.function]]

    def shares(self, columns: Sequence[Sequence[float | None]]) -> Floats:
        """What each event adds to each lane, [lanes, events]: of null, NaN and infinities what changes nothing."""
        shares = np.empty((len(self.lanes), len(columns[0])))
        numbers = [np.array(column, np.float64) for column in columns]  # None: NaN
        finite = [np.isfinite(column) for column in numbers]
        for at, (column, stat) in enumerate(self.lanes):
            shares[at] = finite[column] if stat == "count" else np.where(finite[column], numbers[column], _EMPTY[stat])
        return shares

    def values(self, parts: Floats) -> list[tuple[Value, ...]]:
        """Rows of values, one per aggregation, from [parts, rows]."""
        columns: list[Sequence[Value]] = []
        at = 0
        for function in self.functions:
            columns.append(_COLUMNS.get(function, _finite)(parts[at : at + 2]))
            at += len(_STATS_OF[function])
        return list(zip(*columns, strict=True))


def _finite(parts: Floats) -> list[Value]:
    """Sums, min and max: null where there was nothing, or too much."""
    numbers: list[Value] = parts[0].tolist()
    if np.isfinite(parts[0]).all():
        return numbers
    return [number if number is not None and isfinite(number) else None for number in numbers]


def _counts(parts: Floats) -> list[Value]:
    counts: list[Value] = parts[0].astype(np.int64).tolist()
    return counts


def _means(parts: Floats) -> list[Value]:
    return [total / count if count and isfinite(total) else None for count, total in zip(*parts.tolist(), strict=True)]


_COLUMNS: Final[dict[str, Callable[[Floats], list[Value]]]] = {"count": _counts, "mean": _means}
