"""Defaults declared in function.toml, checked against the dtype of their feature at deploy time."""

import math
from typing import Any

from sunup.errors import FeaturesRefused
from sunup.lookup.plan import Default

_BITS = {"int32": 31, "int64": 63}


def checked_default(column: str, dtype: str, value: Any) -> Default:
    """`value` as the plan holds it. NaN becomes None: a float column's stand-in is NaN without being told.

    Raises FeaturesRefused when a column of `dtype` cannot hold it.
    """
    if dtype.endswith("[]"):
        element = dtype.removesuffix("[]")
        # No NaN in a list: JSON has none, and a feature store's lists have none either.
        if isinstance(value, list) and all(_fits(element, each) and each == each for each in value):  # noqa: PLR0124
            return [_plain(element, each) for each in value]
    elif _fits(dtype, value):
        return None if isinstance(value, float) and math.isnan(value) else _plain(dtype, value)
    raise FeaturesRefused(
        f"The default of feature {column} is {value!r}, and the feature is {dtype}. Correct [features] defaults in "
        "function.toml."
    )


def _fits(dtype: str, value: Any) -> bool:
    if dtype in _BITS:
        limit = 1 << _BITS[dtype]
        return isinstance(value, int) and not isinstance(value, bool) and -limit <= value < limit
    if dtype in ("float32", "float64"):
        return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isinf(value)
    return isinstance(value, bool if dtype == "bool" else str)


def _plain(dtype: str, value: Any) -> Any:
    return float(value) if dtype in ("float32", "float64") else value
