"""Values as functions of on-demand views are given them, and what those give as the values of a feature.

Both as Feast converts them (feast/type_map.py), but for conversions that would change a value's meaning, such as a
fraction for a whole number or a number for text: Feast cuts or prints it, here it is an error.
"""

import math
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from sunup.lookup.plan import VALUE_TYPES

_BITS: Final = {"INT32": 31, "INT64": 63}
_FLOAT: Final = struct.Struct("<f")


def giver(value_type: str) -> Callable[[Any], Any]:
    """From a value as it is read or sent to what a function sees: times as datetimes in UTC, NaN as None."""
    if value_type == "UNIX_TIMESTAMP":
        return lambda value: None if value is None else datetime.fromtimestamp(value, tz=UTC)
    if value_type == "UNIX_TIMESTAMP_LIST":
        return lambda value: None if value is None else [datetime.fromtimestamp(each, tz=UTC) for each in value]
    if value_type.endswith("_LIST"):
        return lambda value: None if value is None else list(value)
    if value_type in ("DOUBLE", "FLOAT"):
        return lambda value: None if value is None or value != value else float(value)  # noqa: PLR0124
    return same


def same(value: Any) -> Any:
    """A value that is given as it is."""
    return value


def taker(value_type: str) -> Callable[[Any], Any]:
    """From what a function gave to a value of the type, or None for none. It raises TypeError, ValueError or
    OverflowError for what is none of that type."""
    scalar = value_type.removesuffix("_LIST")
    take = {
        "BYTES": _bytes, "STRING": _text, "BOOL": _flag, "DOUBLE": _number, "FLOAT": _single, "UNIX_TIMESTAMP": _time,
    }.get(scalar) or _whole(_BITS[scalar])  # fmt: skip
    if scalar != value_type:
        return lambda made: None if _is_none(made) else _elements(made, take)
    assert value_type in VALUE_TYPES
    return lambda made: None if _is_none(made) else take(made)


def _is_none(made: Any) -> bool:
    """None, and what pandas calls null: NaN and NaT."""
    if made is None or (isinstance(made, float) and math.isnan(made)):
        return True
    if isinstance(made, np.floating | np.datetime64):
        return bool(np.isnan(made) if isinstance(made, np.floating) else np.isnat(made))
    return False


def _elements(made: Any, take: Callable[[Any], Any]) -> list[Any]:
    if not isinstance(made, list | tuple | np.ndarray):
        raise TypeError(f"{made!r} is no list")
    return [take(each) for each in made]


def _whole(bits: int) -> Callable[[Any], int]:
    def take(made: Any) -> int:
        if not isinstance(made, int | float | np.integer | np.floating | np.bool_) or made != int(made):
            raise TypeError(f"{made!r} is no whole number")
        if not -(1 << bits) <= int(made) < 1 << bits:
            raise OverflowError(f"{made!r} needs more than {bits + 1} bits")
        return int(made)

    return take


def _number(made: Any) -> float:
    if not isinstance(made, int | float | np.integer | np.floating):
        raise TypeError(f"{made!r} is no number")
    return float(made)


def _single(made: Any) -> float:
    """Rounded to float32, which is what is stored of such a feature."""
    number = _number(made)
    rounded: float = _FLOAT.unpack(_FLOAT.pack(number))[0]
    return rounded


def _flag(made: Any) -> bool:
    if not isinstance(made, bool | np.bool_) and not (isinstance(made, int | np.integer) and made in (0, 1)):
        raise TypeError(f"{made!r} is neither true nor false")
    return bool(made)


def _text(made: Any) -> str:
    if not isinstance(made, str):
        raise TypeError(f"{made!r} is no text")
    return str(made)


def _bytes(made: Any) -> bytes:
    if not isinstance(made, bytes):
        raise TypeError(f"{made!r} is no bytes")
    return bytes(made)


def _time(made: Any) -> int:
    """Whole seconds since the epoch; a datetime without a zone is UTC, as everywhere in Feast."""
    if isinstance(made, np.datetime64):
        return int(made.astype("datetime64[s]").astype(np.int64))
    if isinstance(made, datetime):
        return int((made if made.tzinfo else made.replace(tzinfo=UTC)).timestamp())
    return _whole(63)(made)
