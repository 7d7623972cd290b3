"""Rows that try a model where it could go wrong: at its splits, with values missing, and between the real ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sunup.bundle.convert.trees.forest import Bools, Floats, Forest, Ints, Tree, split_of_float32

SEED: Final = 20_240_229  # any constant: the same model must give the same rows
LARGEST: Final = 1e37  # thresholds beyond it are "infinity" to one library or another, and infinite input is an error
WHOLE: Final = ("bool", "int32", "int64")


@dataclass(frozen=True, slots=True)
class Grid:
    """The values a column can hold that matter: the two neighbours of a threshold t that the library tells apart.

    `whole`, `single` [columns]: columns of whole numbers; columns rounded to float32 before they are compared (there
    the neighbours are the float64 ones of the point where rounding turns over). The others are plain float64.
    """

    whole: Bools
    single: Bools

    def below(self, column: Ints, t: Floats) -> Floats:
        """The largest value that counts as <= t."""
        plain = np.where(self.single[column], split_of_float32(t), t)
        return np.where(self.whole[column], np.floor(t), plain)

    def above(self, column: Ints, t: Floats) -> Floats:
        """The smallest value that counts as > t."""
        plain = np.where(self.single[column], split_of_float32(t), t)
        return np.where(self.whole[column], np.floor(t) + 1, np.nextafter(plain, np.inf))

    def beside(self, column: Ints, t: Floats) -> Floats:
        """One more value near t: the threshold itself where the library rounds before it compares, else 1 ulp below."""
        plain = np.where(self.single[column], t, np.nextafter(t, -np.inf))
        return np.where(self.whole[column], np.floor(t) - 1, plain)


def grid_of(dtypes: Sequence[str], forest: Forest) -> Grid:
    """The grid of columns of these dtypes under a forest's comparison."""
    names = np.array(dtypes)
    return Grid(np.isin(names, WHOLE), (names == "float32") | (forest.compare == "float32"))


def rows_at_splits(forest: Forest, base: Floats, grid: Grid, *, budget: int, missing: bool) -> Floats:
    """For every split (evenly chosen ones when they are too many) rows that reach it and stand on either side of its
    threshold; as the budget allows, also with the value missing and with one more value near the threshold.

    `base` [n, features]: plausible rows, changed only as far as the way to the split demands. Returns at most `budget`
    rows [m, features].
    """
    tree = forest.trees
    usable = np.flatnonzero(np.abs(tree.threshold) < LARGEST)
    nodes = _evenly(usable, budget * 9 // 20)
    if not len(nodes):
        return np.empty((0, base.shape[1]))
    rows = _reach(tree, nodes, base, grid)
    feature, threshold = tree.feature[nodes], tree.threshold[nodes]
    made = [_with(rows, feature, grid.below(feature, threshold)), _with(rows, feature, grid.above(feature, threshold))]
    left = budget - 2 * len(nodes)
    if missing:
        gaps = _evenly(np.flatnonzero(~grid.whole[feature]), left * 2 // 3)
        made.append(_with(rows[gaps], feature[gaps], np.full(len(gaps), np.nan)))
        left -= len(gaps)
    few = _evenly(np.arange(len(nodes)), left)
    made.append(_with(rows[few], feature[few], grid.beside(feature[few], threshold[few])))
    return np.concatenate(made)


def rows_at_codes(forest: Forest, base: Floats, grid: Grid, *, budget: int, missing: bool) -> Floats:
    """For every split on categories (evenly chosen ones when they are too many) rows that reach it with a code of its
    set and with one outside; with codes no training row had, negative, broken and missing ones. At most `budget` rows.
    """
    tree = forest.trees
    nodes = _evenly(np.array(sorted(tree.sets), dtype=np.int64), budget // 3)
    if not len(nodes):
        return np.empty((0, base.shape[1]))
    rows, feature = _reach(tree, nodes, base, grid), tree.feature[nodes]
    within = np.array([_code(tree.sets[node], True) for node in nodes.tolist()], dtype=np.float64)
    outside = np.array([_code(tree.sets[node], False) for node in nodes.tolist()], dtype=np.float64)
    most = max(int(codes.max(initial=0)) for codes in tree.sets.values())
    odd = np.array([most + 1, most + 40, 1e6, -1, within[0] + 0.5, -0.5, *([np.nan] if missing else [])])
    few = _evenly(np.arange(len(nodes)), budget // 3)
    made = [_with(rows, feature, within), _with(rows, feature, outside)]
    values = odd[np.arange(len(few)) % len(odd)]
    values = np.where(grid.whole[feature[few]], np.floor(np.nan_to_num(values)), values)
    made.append(_with(rows[few], feature[few], values))
    return np.concatenate(made)


def rows_with_gaps(base: Floats, dtypes: Sequence[str], *, missing: bool) -> Floats:
    """Rows with each column zero, within an ulp of what LightGBM calls zero and, if `missing`, missing; one column at a
    time, and all at once."""
    tiny = float(np.float32(1e-35))
    gap = [i for i, dtype in enumerate(dtypes) if dtype not in WHOLE]
    edges = [0.0, -0.0, tiny, -tiny, float(np.nextafter(tiny, 1)), float(np.nextafter(-tiny, -1))]
    changes = [(i, v) for i in gap for v in (*edges, *([np.nan] if missing else []))]
    rows = base[np.arange(len(changes) + 1) % len(base)].copy()
    for row, (column, value) in zip(rows, changes, strict=False):
        row[column] = value
    rows[-1, gap] = np.nan if missing else 0.0
    return rows


def rows_far_out(base: Floats, dtypes: Sequence[str]) -> Iterator[tuple[str, Floats]]:
    """Rows with one column far from anything, by what that is called: of fractions tiny (denormal in float64 or
    float32), large, beyond float32 and infinite; of whole numbers negative and large.

    Nothing finite has a square beyond float64: what an answer is there hangs on the order of operations.
    """
    names = np.array(dtypes)
    fractions, whole = np.flatnonzero(~np.isin(names, WHOLE)), np.flatnonzero(np.isin(names, ("int32", "int64")))
    kinds: list[tuple[str, Ints, Sequence[float]]] = [
        ("tiny values", fractions, (5e-324, -2.2e-310, 1e-40, -1e-45)),
        ("large values", fractions, (1e6, -1e6, 1e15, -1e15)),
        ("values beyond float32", np.flatnonzero(names == "float64"), (3.5e38, -3.5e38, 1e150, -1e150)),
        ("infinite values", fractions, (np.inf, -np.inf)),
        ("large whole numbers", whole, (-1.0, 2.0**24 + 1, 2.0**31 - 1, -(2.0**31))),
    ]
    for name, columns, values in kinds:
        if len(columns):
            pairs = [(column, value) for column in columns.tolist() for value in values]
            rows = np.nan_to_num(base[np.arange(len(pairs)) % len(base)])
            yield name, _with(rows, np.array([c for c, _ in pairs]), np.array([v for _, v in pairs]))


def rows_between(base: Floats, dtypes: Sequence[str], count: int) -> Floats:
    """Mixtures: every column's value from some row of `base`, moved a little where it is a fraction."""
    random = np.random.default_rng(SEED)
    picked = random.integers(len(base), size=(count, base.shape[1]))
    rows = np.take_along_axis(base, picked, axis=0)
    moved = rows + random.normal(size=rows.shape) * 0.1 * (np.nan_to_num(np.nanstd(base, axis=0)) + 1e-3)
    mixed: Floats = np.where(np.isin(np.array(dtypes), WHOLE), rows, moved)
    return mixed


def rows_from_nothing(dtypes: Sequence[str], forest: Forest | None, count: int) -> Floats:
    """Rows for a model that came without any: near its thresholds where it has some, else around zero."""
    random = np.random.default_rng(SEED)
    rows: Floats = random.normal(size=(count, len(dtypes))) * np.array([1.0, 10.0, 100.0])[np.arange(count) % 3, None]
    if forest is not None:
        usable = np.abs(forest.trees.threshold) < LARGEST
        for column in range(len(dtypes)):
            near = forest.trees.threshold[usable & (forest.trees.feature == column)]
            if len(near):
                rows[:, column] = random.choice(near, size=count) + random.normal(size=count) * near.std()
    whole = np.isin(np.array(dtypes), WHOLE)
    rows[:, whole] = np.abs(np.round(rows[:, whole]))
    flags = np.array(dtypes) == "bool"
    rows[:, flags] = rows[:, flags] % 2
    return rows


def _reach(tree: Tree, nodes: Ints, base: Floats, grid: Grid) -> Floats:
    """One row per node that goes the way to it: `base` rows moved into the interval each column must lie in."""
    parent = np.full(len(tree.feature), -1)
    from_left = np.zeros(len(tree.feature), dtype=np.bool_)
    for side, is_left in ((tree.left, True), (tree.right, False)):
        inner = np.flatnonzero(side >= 0)
        parent[side[inner]], from_left[side[inner]] = inner, is_left
    above = np.full((len(nodes), base.shape[1]), -np.inf)
    upto = np.full((len(nodes), base.shape[1]), np.inf)
    here, at = nodes, np.arange(len(nodes))
    codes: list[tuple[int, int, int]] = []
    while len(here):
        keep = parent[here] >= 0
        at, child = at[keep], here[keep]
        here = parent[child]
        if tree.sets:
            for row, node, among in zip(at.tolist(), here.tolist(), from_left[child].tolist(), strict=True):
                if node in tree.sets:
                    codes.append((row, int(tree.feature[node]), _code(tree.sets[node], among)))
        feature, threshold, left = tree.feature[here], tree.threshold[here], from_left[child]
        np.minimum.at(upto, (at[left], feature[left]), threshold[left])
        np.maximum.at(above, (at[~left], feature[~left]), threshold[~left])
    rows = base[np.arange(len(nodes)) % len(base)].copy()
    low, high = np.nonzero(~(rows > above) & np.isfinite(above)), np.nonzero(~(rows <= upto) & np.isfinite(upto))
    rows[low] = grid.above(low[1], above[low])
    rows[high] = grid.below(high[1], upto[high])
    for row, column, code in reversed(codes):  # from the root down: the nearest split on a column decides
        rows[row, column] = code
    return rows


def _code(chosen: Ints, among: bool) -> int:
    """A code of a set, or the least one outside it."""
    if among:
        return int(chosen[len(chosen) // 2])
    return int(np.setdiff1d(np.arange(len(chosen) + 1), chosen)[0])


def _with(rows: Floats, feature: Ints, value: Floats) -> Floats:
    changed = rows.copy()
    changed[np.arange(len(rows)), feature] = value
    return changed


def _evenly(values: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    if len(values) <= count:
        return values
    chosen: Ints = values[np.linspace(0, len(values) - 1, max(count, 0)).astype(np.int64)]
    return chosen
