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
from typing import Annotated, Any, Final, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta, Raw
from msgspec.json import Decoder
from numpy.typing import NDArray

from sunup.errors import BadRequest
from sunup.types import Field, Reply, numpy_dtype
from sunup.wire.fields import ImageField, json_type, missing_as_nan
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


Values: TypeAlias = list[Any] | NDArray[Any]  # of JSON data, of raw bytes


class InputTensor(msgspec.Struct):
    """One input of a call. `data` stays undecoded until its datatype and the field it fills are known."""

    name: str
    shape: list[int]
    datatype: str
    data: Raw = Raw()  # empty where there is none; a union with None cannot be raw
    parameters: dict[str, Any] | None = None

    def values(self) -> Values:
        """The tensor's values, flat and row-major, checked against its datatype and shape. Raises BadRequest."""
        if not self.data:
            raise BadRequest(f"input {self.name!r} has no data", field=self.name)
        if any(size < 0 for size in self.shape) or self.datatype not in _ELEMENTS:
            raise _unknown(self)
        try:
            values = _flat(self.data, _decoder(self.datatype))
        except msgspec.ValidationError as wrong:
            raise BadRequest(f"input {self.name!r} ({self.datatype}): {wrong}", field=self.name) from None
        except MALFORMED as error:
            raise malformed(error) from None
        count = prod(self.shape)
        if len(values) != count:
            message = f"input {self.name!r}: shape {self.shape} holds {count} values, data has {len(values)}"
            raise BadRequest(message, field=self.name)
        return values


def checked(tensor: InputTensor) -> int:
    """How many values the tensor's shape holds. Raises BadRequest where there is no such shape or datatype."""
    if any(size < 0 for size in tensor.shape) or tensor.datatype not in _ELEMENTS:
        raise _unknown(tensor)
    return prod(tensor.shape)


def as_column(values: Values, datatype: str, field: Field, content_type: str = "") -> list[Any]:
    """Flat tensor values as values of `field`'s scalar dtype. Raises BadRequest where one does not fit without loss.

    `content_type` is MLServer's hint: "base64" says that BYTES elements are base64, the others change nothing here. An
    image in JSON is always base64.
    """
    if not isinstance(values, list):
        return _array_as_column(values, datatype, field, content_type)
    scalar = field.dtype.removesuffix("[]")
    if datatype == "BYTES" and scalar == "bytes" and content_type != "base64" and type(field) is not ImageField:
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


def rectangular(reply: Reply, response: Mapping[str, Field]) -> Reply:
    """The reply with its list columns as arrays [records, k], as a tensor needs them. Raises BadRequest where records
    have lists of different lengths."""
    columns = dict(reply.columns)
    for name, column in reply.columns.items():
        field = response[name]
        if field.dtype.endswith("[]") and isinstance(column, list):
            lengths = sorted({len(values) for values in column})
            if len(lengths) > 1:
                told = f"{name!r} has {lengths[0]} to {lengths[-1]} values in the records of this call"
                raise BadRequest(
                    f"{told}, which no tensor can hold; send one record in a call, or use another protocol",
                    code="different_lengths",
                    field=name,
                )
            shape = (len(column), lengths[0] if lengths else 0)
            columns[name] = np.array(column, numpy_dtype(field.dtype)).reshape(shape)
    return msgspec.structs.replace(reply, columns=columns)


def _array_as_column(values: NDArray[Any], datatype: str, field: Field, content_type: str) -> list[Any]:
    """The same for values that came as raw bytes. Floats may be infinite there, as JSON's cannot."""
    scalar = field.dtype.removesuffix("[]")
    if scalar in ("string", "bytes") or datatype in ("BYTES", "BOOL"):
        given: list[Any] = values.tolist()
        if scalar == "bytes" and datatype == "BYTES" and content_type != "base64":
            return given
        return as_column([_text(value, field) for value in given], datatype, field, content_type)
    if scalar == "bool" or (scalar in _EXACT_FLOATS and values.dtype.kind != "f"):
        return as_column(values.tolist(), datatype, field)
    if scalar in _EXACT_FLOATS:
        with np.errstate(over="ignore"):  # looked for below
            column = values.astype(scalar)
        lost = np.isinf(column) & np.isfinite(values)
    else:
        lost = ~_whole_within(values, np.iinfo(scalar))
        column = np.where(lost, 0, values).astype(scalar)
    if lost.any():
        message = f"input {field.name!r}: {datatype} does not fit {field.dtype}: {values[lost.argmax()]}"
        raise BadRequest(message, code="wrong_type", field=field.name)
    fitting: list[Any] = column.tolist()
    return fitting


def _whole_within(values: NDArray[Any], bounds: np.iinfo[Any]) -> NDArray[np.bool_]:
    low, high = bounds.min, bounds.max
    if values.dtype.kind == "f":
        wide = values.astype(np.float64)
        # Above: the first float64 that is too large, for 2**63 - 1 is none. NaN compares as neither.
        whole: NDArray[np.bool_] = (wide == np.floor(wide)) & (wide >= low) & (wide < float(high + 1))
        return whole
    kinds = np.iinfo(values.dtype)
    within = np.ones(values.shape, np.bool_)
    if kinds.min < low:
        within &= values >= low
    if kinds.max > high:
        within &= values <= high
    return within


def _unknown(tensor: InputTensor) -> BadRequest:
    if tensor.datatype in _ELEMENTS:
        why = f"shape {tensor.shape} has a negative size"
    else:
        why = f"unknown datatype {tensor.datatype!r}; known: {', '.join(_ELEMENTS)}"
    return BadRequest(f"input {tensor.name!r}: {why}", field=tensor.name)


def _text(value: Any, field: Field) -> Any:
    if type(value) is not bytes:
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise BadRequest(f"input {field.name!r} is not UTF-8", code="wrong_type", field=field.name) from None


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
