"""Open Inference Protocol tensors to columns of request values, and values back to tensors.

A datatype is taken for a field when every value fits it without loss: integers for floats and whole floats for integers
(clients that build tensors from data frames send FP64 for everything), any float width for any other (rounded to the
field's, as a JSON number is in the native protocol). Null in a float tensor is NaN, a missing value.
"""

from collections.abc import Mapping
from functools import cache
from itertools import chain
from math import prod
from types import GenericAlias
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw
from msgspec.json import Decoder

from sunup.errors import BadRequest
from sunup.types import Field
from sunup.wire.fields import json_type, missing_as_nan
from sunup.wire.refusal import MALFORMED, malformed

_ELEMENTS: Final[Mapping[str, Any]] = {
    "BOOL": bool,
    "UINT8": Annotated[int, Meta(ge=0, le=2**8 - 1)],
    "UINT16": Annotated[int, Meta(ge=0, le=2**16 - 1)],
    "UINT32": Annotated[int, Meta(ge=0, le=2**32 - 1)],
    "UINT64": Annotated[int, Meta(ge=0)],
    "INT8": Annotated[int, Meta(ge=-(2**7), le=2**7 - 1)],
    "INT16": Annotated[int, Meta(ge=-(2**15), le=2**15 - 1)],
    "INT32": Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)],
    "INT64": Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)],
    "FP16": float | None,
    "FP32": float | None,
    "FP64": float | None,
    "BYTES": str,
}
_EXACT_FLOATS: Final = {"float32": 2**24, "float64": 2**53}  # every integer up to here is one


class InputTensor(msgspec.Struct):
    """One input of a call. `data` stays undecoded until its datatype and the field it fills are known."""

    name: str
    shape: list[int]
    datatype: str
    data: Raw = Raw()  # empty where there is none; a union with None cannot be raw
    parameters: dict[str, Any] | None = None


def elements(tensor: InputTensor) -> list[Any]:
    """The tensor's values, flat and row-major, checked against its datatype and shape. Raises BadRequest."""
    if not tensor.data:
        raise BadRequest(f"input {tensor.name!r} has no data; only JSON data is read here", field=tensor.name)
    if any(size < 0 for size in tensor.shape):
        raise BadRequest(f"input {tensor.name!r}: shape {tensor.shape} has a negative size", field=tensor.name)
    if tensor.datatype not in _ELEMENTS:
        known = ", ".join(_ELEMENTS)
        raise BadRequest(
            f"input {tensor.name!r}: unknown datatype {tensor.datatype!r}; known: {known}", field=tensor.name
        )
    try:
        values = _flat(tensor.data, _decoder(tensor.datatype))
    except msgspec.ValidationError as wrong:
        raise BadRequest(f"input {tensor.name!r} ({tensor.datatype}): {wrong}", field=tensor.name) from None
    except MALFORMED as error:
        raise malformed(error) from None
    if len(values) != prod(tensor.shape):
        message = (
            f"input {tensor.name!r}: shape {tensor.shape} holds {prod(tensor.shape)} values, data has {len(values)}"
        )
        raise BadRequest(message, field=tensor.name)
    return values


def as_column(values: list[Any], datatype: str, field: Field, content_type: str = "") -> list[Any]:
    """Flat tensor values as values of `field`'s scalar dtype. Raises BadRequest where one does not fit without loss.

    `content_type` is MLServer's hint: "base64" says that BYTES elements are base64, the others change nothing here.
    """
    scalar = field.dtype.removesuffix("[]")
    if datatype == "BYTES" and scalar == "bytes" and content_type != "base64":
        return [value.encode() for value in values]
    is_float = datatype in ("FP16", "FP32", "FP64")
    if datatype == field.datatype and scalar not in ("float32", "bytes"):
        return list(missing_as_nan(values)) if None in values else values  # checked already against the same type
    if is_float and scalar in ("int32", "int64"):
        values = [int(v) if v is not None and v.is_integer() else v for v in values]
    elif not is_float and scalar in _EXACT_FLOATS and datatype not in ("BOOL", "BYTES"):
        _need_exact(values, _EXACT_FLOATS[scalar], field)
    try:
        column: list[Any] = msgspec.convert(values, _column_type(scalar))
    except msgspec.ValidationError as wrong:
        message = f"input {field.name!r}: {datatype} does not fit {field.dtype}: {wrong}"
        raise BadRequest(message, code="wrong_type", field=field.name) from None
    return list(missing_as_nan(column)) if None in column else column


def _flat(data: Raw, decoder: Decoder[list[Any]]) -> list[Any]:
    try:
        return decoder.decode(data)
    except msgspec.ValidationError:
        nested: list[Any] = Decoder(list[Any]).decode(data)
        if not any(type(value) is list for value in nested):
            raise
    while any(type(value) is list for value in nested):
        nested = list(chain.from_iterable(value if type(value) is list else (value,) for value in nested))
    checked: list[Any] = msgspec.convert(nested, decoder.type)
    return checked


def _need_exact(values: list[int], exact: int, field: Field) -> None:
    for value in values:
        if not -exact <= value <= exact:
            message = f"input {field.name!r}: {value} cannot be held exactly by {field.dtype}"
            raise BadRequest(message, code="wrong_type", field=field.name)


@cache
def _decoder(datatype: str) -> Decoder[list[Any]]:
    return Decoder(GenericAlias(list, (_ELEMENTS[datatype],)))


@cache
def _column_type(scalar: str) -> Any:
    return GenericAlias(list, (json_type(Field("", scalar), nullable=True),))
