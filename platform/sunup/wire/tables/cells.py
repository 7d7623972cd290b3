"""Values of a table, as JSON or CSV gives them, to values of a request field."""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from math import isnan, nan
from types import GenericAlias
from typing import Any, Final

import msgspec

from sunup.errors import BadRequest
from sunup.types import Field
from sunup.wire.fields import json_type, missing_as_nan

# What pandas.read_csv takes for a missing value.
_MISSING: Final = frozenset(
    ("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
     "NULL", "NaN", "None", "n/a", "nan", "null")
)  # fmt: skip
_WHOLE: Final = re.compile(r"[+-]?\d{1,19}(\.0*)?")
_TRUTH: Final = {"true": True, "1": True, "false": False, "0": False}


def cells(values: Sequence[Any], field: Field) -> list[Any]:
    """Decoded JSON values as values of `field`, one per record. Raises BadRequest where one does not fit without loss.

    Whole floats stand for integers (a data frame with a missing value turns its integers into floats), null for a
    missing float, base64 or TensorFlow Serving's {"b64": ...} for bytes.
    """
    scalar = field.dtype.removesuffix("[]")
    if scalar in ("int32", "int64"):
        values = [_whole(value) for value in values]
    elif scalar == "bytes":
        values = [_unwrapped(value) for value in values]
    try:
        column: list[Any] = msgspec.convert(values, _column_type(field.dtype, field.shape, field.optional))
    except msgspec.ValidationError as wrong:
        raise _unfit(field, str(wrong)) from None
    return list(missing_as_nan(column)) if scalar in ("float32", "float64") else column


def texts(values: Sequence[str], field: Field) -> list[Any]:
    """Cells of a CSV column as values of `field`. Raises BadRequest where one is none.

    What pandas takes for missing is NaN in a column of floats; in a column of strings the text stays as it is.
    """
    if field.dtype.endswith("[]"):
        raise BadRequest(f"field {field.name!r} is a list, which CSV cannot hold; send JSON", field=field.name)
    read = _READERS[field.dtype]
    column = []
    for at, value in enumerate(values):
        try:
            column.append(read(value))
        except (ValueError, KeyError, Base64Error):
            raise _unfit(field, f"Expected `{field.dtype}` - at row {at}") from None
    if field.dtype not in ("int32", "float32"):
        return column
    return cells(
        [None if type(value) is float and isnan(value) else value for value in column], field
    )  # for their bounds; NaN is not in any


def _whole(value: Any) -> Any:
    if type(value) is float and value.is_integer():
        return int(value)
    return [_whole(one) for one in value] if type(value) is list else value


def _unwrapped(value: Any) -> Any:
    if type(value) is dict and list(value) == ["b64"]:
        return value["b64"]
    return [_unwrapped(one) for one in value] if type(value) is list else value


def _unfit(field: Field, why: str) -> BadRequest:
    return BadRequest(f"field {field.name!r}: {why}", code="wrong_type", field=field.name)


def _float(text: str) -> float:
    if text in _MISSING:
        return nan
    if "_" in text:
        raise ValueError
    return float(text)


def _int(text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise ValueError
    value = int(text.partition(".")[0])
    if not -(2**63) <= value < 2**63:
        raise ValueError
    return value


_READERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "bool": lambda text: _TRUTH[text.lower()],
    "int32": _int,
    "int64": _int,
    "float32": _float,
    "float64": _float,
    "string": str,
    "bytes": lambda text: b64decode(text, validate=True),
}


@cache
def _column_type(dtype: str, shape: tuple[int, ...], optional: bool) -> Any:
    return GenericAlias(list, (json_type(Field("", dtype, shape, optional), nullable=True),))
