"""The rows a conversion is proven with: real ones, mixtures of them, and those that try where it could go wrong."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sunup.bundle.convert.original import Original
from sunup.bundle.convert.trees.model import Converted
from sunup.bundle.parity import Arrays
from sunup.bundle.rows import (
    grid_of,
    rows_at_codes,
    rows_at_splits,
    rows_between,
    rows_far_out,
    rows_from_nothing,
    rows_with_gaps,
)
from sunup.errors import ConversionRefused
from sunup.limits import PARITY_ROWS_MAX
from sunup.types import Field

NUMBERS: Final = ("bool", "int32", "int64", "float32", "float64")
MIXED_ROWS: Final = 512  # rows mixed from real ones; enough to visit what a few examples do not
INVENTED_ROWS: Final = 256  # rows for a model that came without an example
TEXTS: Final = (
    # what a text column may hold that no training row did, and what it is called
    ("new categories", "no such category"),
    ("empty text", ""),
    ("long text", "many words, " * 1000),
    ("text of other alphabets", " Ünïcödé ßtraße 東京\t\U0001f600 "),
)

CHANGES: Final[Sequence[Callable[[str], str]]] = (
    # to the text of a real row: what a conversion may take for the same word, or for another one
    str.upper,
    lambda text: f" {text} ",
    lambda text: text.replace(" ", "é"),
    lambda text: f"é{text}é",
    lambda text: " ".join(f"é{word} {word}ñ x" for word in text.split()),
    lambda text: text.replace(" ", "'"),
    lambda text: text.replace(" ", " a "),
    lambda text: text.replace(" ", "_1\n-"),
)


def proof_rows(
    original: Original, converted: Converted, columns: Sequence[Field], real: Arrays
) -> tuple[Arrays, dict[str, Any]]:
    """The rows to prove with, and what `prove` is told of them: real_rows, threshold_rows, how, refused."""
    trial = _Trial(original, columns)
    found = count(real)
    base = real if found else invent(columns, converted.forest if converted.to_trees is None else None)
    numbers = [column for column in columns if column.dtype in NUMBERS]
    matrix = np.column_stack([base[c.name] for c in numbers]) if numbers else np.empty((count(base), 0))
    dtypes = [column.dtype for column in numbers]
    if not trial.offer("the example", base):
        raise ConversionRefused(
            "The model does not answer its own example rows."
            if found
            else "The model came without an example, and does not answer invented rows. Log it with input_example."
        )
    picked = np.random.default_rng(0).integers(count(base), size=(len(columns), MIXED_ROWS))
    mixtures = {c.name: base[c.name][p] for c, p in zip(columns, picked, strict=True)}
    mixtures |= _columns(rows_between(matrix, dtypes, MIXED_ROWS), numbers)
    trial.offer(f"{MIXED_ROWS} mixtures of them", mixtures)
    missing = False
    if numbers:
        trial.offer("zeros", _beside(base, rows_with_gaps(matrix, dtypes, missing=False), numbers))
        gaps = _beside(base, rows_with_gaps(matrix, dtypes, missing=True), numbers)
        missing = trial.offer("missing values", gaps)
    for name, far in rows_far_out(matrix, dtypes):
        trial.offer(name, _beside(base, far, numbers))
    for column in columns:
        for name, rows in _texts(base, column):
            trial.offer(f"{name} in `{column.name}`", rows)
    at_splits = 0
    if len(numbers) == len(columns):
        rows = _columns(_split_rows(converted, dtypes, matrix, PARITY_ROWS_MAX - trial.count, missing=missing), numbers)
        if trial.offer(f"{count(rows)} rows on both sides of splits", rows):
            at_splits = count(rows)
    given = f"{found} real rows" if found else f"no example, {count(base)} invented rows"
    how = f"{', '.join([given, *trial.taken[1:]])}; {converted.note}"
    return trial.rows(), {
        "real_rows": found,
        "threshold_rows": at_splits,
        "how": how,
        "refused": tuple(trial.refused),
    }


class _Trial:
    """Rows as they gather. `taken`, `refused`: which kinds the original answers, and which it refuses."""

    def __init__(self, original: Original, columns: Sequence[Field]) -> None:
        self._original, self._columns = original, columns
        self._parts: list[Arrays] = []
        self.taken: list[str] = []
        self.refused: list[str] = []
        self.count = 0

    def offer(self, name: str, rows: Arrays) -> bool:
        """Rows that the original may refuse; whether it took them."""
        takes = count(rows) > 0 and self._original.takes(rows)
        if takes:
            self._parts.append(rows)
            self.count += count(rows)
            self.taken.append(name)
        elif count(rows):
            self.refused.append(name)
        return takes

    def rows(self) -> Arrays:
        return {c.name: np.concatenate([part[c.name] for part in self._parts]) for c in self._columns}


def invent(columns: Sequence[Field], forest: Any) -> Arrays:
    """Rows for a model that came without any."""
    numbers = rows_from_nothing([column.dtype for column in columns], forest, INVENTED_ROWS)
    text = {c.name: np.array(["a"] * INVENTED_ROWS, dtype=object) for c in columns if c.dtype not in NUMBERS}
    return {**_columns(numbers, columns), **text}


def count(rows: Arrays) -> int:
    """How many rows these are."""
    return len(next(iter(rows.values())))


def _beside(base: Arrays, numbers: NDArray[np.float64], columns: Sequence[Field]) -> Arrays:
    """Rows of numbers, completed with the text of `base`'s rows."""
    texts = {name: values[np.arange(len(numbers)) % len(values)] for name, values in base.items()}
    return texts | _columns(numbers, columns)


def _texts(base: Arrays, column: Field) -> Iterator[tuple[str, Arrays]]:
    if column.dtype != "string":
        return
    few = {name: values[:4] for name, values in base.items()}
    for name, text in TEXTS:
        yield name, few | {column.name: np.array([text] * count(few), dtype=object)}
    some = {name: values[np.arange(len(CHANGES) * 4) % len(values)] for name, values in base.items()}
    changed = [CHANGES[i % len(CHANGES)](str(text)) for i, text in enumerate(some[column.name])]
    yield "changed text", some | {column.name: np.array(changed, dtype=object)}


def _split_rows(
    converted: Converted, dtypes: Sequence[str], base: NDArray[np.float64], budget: int, *, missing: bool
) -> NDArray[np.float64]:
    forest = converted.forest
    if forest is None:
        return np.empty((0, base.shape[1]))
    if converted.to_trees is None or converted.to_input is None:
        grid = grid_of(dtypes, forest)
        codes = rows_at_codes(forest, base, grid, budget=budget // 3, missing=missing)
        rows = rows_at_splits(forest, base, grid, budget=budget - len(codes), missing=missing)
        return np.concatenate([codes, rows])
    # Behind other steps the trees see fractions, whatever the columns are.
    seen = converted.to_trees(base)
    grid = grid_of(["float64"] * seen.shape[1], forest)
    rows = rows_at_splits(forest, seen, grid, budget=budget, missing=missing)
    back = converted.to_input(rows) if len(rows) else rows
    return np.where(np.isin(np.array(dtypes), ("bool", "int32", "int64")), np.round(np.nan_to_num(back)), back)


def _columns(matrix: NDArray[np.float64], columns: Sequence[Field]) -> dict[str, NDArray[Any]]:
    values = {column.name: matrix[:, i] for i, column in enumerate(columns)}
    return {c.name: values[c.name].clip(0, 1) if c.dtype == "bool" else values[c.name] for c in columns}
