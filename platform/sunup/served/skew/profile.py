"""training.json: what a bundle remembers of the sample its model was trained on. Counts and quantiles, no rows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from sunup.errors import BundleDamaged
from sunup.limits import TRAINING_CATEGORIES_MAX, TRAINING_CATEGORY_CHARS_MAX, TRAINING_ROWS_MIN
from sunup.served.skew.bins import Floats, count_in, edges_of, quantiles_of
from sunup.types import Field

VERSION: Final = 1


class Column(msgspec.Struct, frozen=True):
    """One model column of the sample: `count` values, `missing` of them NULL or NaN.

    Of a number: `quantiles` at PROBABILITIES, and `counts[i]` values in bin i of `edges` (see bins.py). Of text or a
    bool: `counts[i]` rows with `categories[i]`, and last the rest, whose values are not kept. `kind`: "number" or
    "category"; `dtype`: as the model takes it.
    """

    name: str
    dtype: str
    kind: str
    count: int
    missing: int
    counts: tuple[int, ...]
    quantiles: tuple[float, ...] = ()
    edges: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()


class Profile(msgspec.Struct, frozen=True):
    """The contents of training.json. `rows`: of the sample; `source`: the file of the model it was, or "input example";
    `problem`: why there are no columns, or "". `sampled`: every how many-th row of a larger file was taken."""

    version: int
    rows: int
    source: str
    columns: tuple[Column, ...] = ()
    problem: str = ""
    sampled: int = 1


def measure(columns: Sequence[Field], rows: Mapping[str, NDArray[Any]], *, source: str, sampled: int = 1) -> Profile:
    """The profile of `rows`: column name -> values [n], float64 with NaN for a missing one; text and None of text.

    A sample of fewer than TRAINING_ROWS_MIN rows has no columns: its quantiles would be its rows.
    """
    count = len(next(iter(rows.values()), ()))
    if count < TRAINING_ROWS_MIN:
        few = f"{count} rows are too few for a profile; {TRAINING_ROWS_MIN} are needed"
        return Profile(VERSION, count, source, problem=few, sampled=sampled)
    made = tuple((_category if _is_category(c.dtype) else _number)(c, rows[c.name]) for c in columns)
    return Profile(VERSION, count, source, made, sampled=sampled)


def dump(profile: Profile) -> bytes:
    """The bytes of training.json: equal profiles give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(profile), indent=1) + b"\n"


def load(data: bytes) -> Profile:
    """Read training.json. Raises BundleDamaged when it is none of this version."""
    try:
        profile = msgspec.json.decode(data, type=Profile)
    except msgspec.DecodeError as error:
        raise BundleDamaged(f"training.json is damaged: {error}. Deploy the function again.") from error
    if profile.version != VERSION:
        raise BundleDamaged(
            f"training.json has format {profile.version} and this Sunup reads {VERSION}. Deploy the function again."
        )
    return profile


def _is_category(dtype: str) -> bool:
    return dtype in ("string", "bool")


def _number(column: Field, values: NDArray[Any]) -> Column:
    numbers = as_model(values, column.dtype)
    known = np.sort(numbers[~np.isnan(numbers)])
    edges = edges_of(known, whole=column.dtype.startswith("int"))
    return Column(
        name=column.name,
        dtype=column.dtype,
        kind="number",
        count=len(numbers),
        missing=len(numbers) - len(known),
        counts=tuple(count_in(edges, known).tolist()),
        quantiles=tuple(quantiles_of(known).tolist()),
        edges=tuple(edges.tolist()),
    )


def _category(column: Field, values: NDArray[Any]) -> Column:
    """A value that fewer than TRAINING_ROWS_MIN rows have, or a long one, may be somebody's: it is not kept."""
    found, missing = tally(values, column.dtype)
    often = [
        (count, text)
        for text, count in found.items()
        if count >= TRAINING_ROWS_MIN and len(text) <= TRAINING_CATEGORY_CHARS_MAX
    ]
    kept = sorted(often, key=lambda each: (-each[0], each[1]))[:TRAINING_CATEGORIES_MAX]
    counts = [count for count, _ in kept]
    return Column(
        name=column.name,
        dtype=column.dtype,
        kind="category",
        count=len(values),
        missing=missing,
        counts=(*counts, len(values) - missing - sum(counts)),
        categories=tuple(text for _, text in kept),
    )


def as_model(values: NDArray[Any], dtype: str) -> Floats:
    """Numbers as float64 [n], rounded first as a model that takes `dtype` sees them; infinite ones become the largest
    finite, which JSON can say."""
    numbers: Floats = values.astype(np.float64)
    if dtype == "float32":
        with np.errstate(over="ignore"):
            numbers = numbers.astype(np.float32).astype(np.float64)
    return np.nan_to_num(numbers, nan=np.nan)


def tally(values: NDArray[Any], dtype: str) -> tuple[dict[str, int], int]:
    """How often each category is among `values` [n], as text, and how many are missing (None, NaN). Of a bool, any
    number but 0 is true."""
    if dtype == "bool":
        numbers = values.astype(np.float64)
        missing = int(np.isnan(numbers).sum())
        true = int(np.count_nonzero(numbers)) - missing
        return {name: n for name, n in (("true", true), ("false", len(numbers) - missing - true)) if n}, missing
    found: dict[str, int] = {}
    missing = 0
    for value, count in Counter(values.tolist()).items():
        if value is None or value != value:  # noqa: PLR0124 - NaN
            missing += count
        else:
            found[str(value)] = found.get(str(value), 0) + count
    return found, missing
