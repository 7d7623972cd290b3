"""`feast.types.Value` and `google.protobuf.Timestamp` to bytes, without protobuf: what `lookup/values.py` reads.

The bytes are those of Feast's own SerializeToString. A Value is one set member of a oneof, so 0 and "" have bytes and
only null has none.
"""

import math
import struct
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from sunup.errors import UsageError
from sunup.lookup.plan import VALUE_TYPES
from sunup.lookup.values import FIXED32, FIXED64, LENGTH, VARINT

Encoder: TypeAlias = Callable[[Any], bytes]
Teller: TypeAlias = Callable[[Any], str | None]

NULL: Final = b""
_BOUNDS: Final = {"INT32": 2**31, "INT64": 2**63, "UNIX_TIMESTAMP": 2**63}
_REALS: Final = {"DOUBLE": FIXED64, "FLOAT": FIXED32}
_TEXTS: Final = {"STRING", "BYTES"}
_FLOAT: Final = struct.Struct("<f")
_SMALL: Final = [bytes([value]) for value in range(128)]


def encoder(value_type: str) -> Encoder:
    """A function from a Python value (None: null) to the Value bytes of scalar type `value_type`.

    A number that is none of a whole type is brought to the nearest; one that is out of its range is null. One too
    large for a FLOAT is infinite. Raises UsageError for a list type, which no aggregation gives.
    """
    number = VALUE_TYPES[value_type][0]
    if value_type in _BOUNDS:
        return _whole_number(number, _BOUNDS[value_type])
    if value_type in _REALS:
        return _real(number, value_type)
    if value_type == "BOOL":
        true, false = bytes([number << 3 | VARINT, 1]), bytes([number << 3 | VARINT, 0])
        return lambda value: NULL if value is None else true if value else false
    if value_type in _TEXTS:
        return _text(number)
    raise UsageError(f"A stream feature view has no feature of type {value_type}: declare it as a number.")


def teller(value_type: str) -> Teller:
    """A function from a value to what Feast's SQL stores keep of it in `value_text`; of the same values as `encoder`.

    Numbers as Python shows them (a FLOAT as the double it is), text as it is, nothing of bytes and times.
    """
    if value_type == "STRING":
        return lambda value: value
    if value_type == "BOOL":
        return lambda value: None if value is None else str(bool(value))
    if value_type == "DOUBLE":
        return lambda value: None if value is None else str(float(value))
    if value_type == "FLOAT":
        return lambda value: None if value is None else str(_FLOAT.unpack(_float_bytes(value))[0])
    if value_type in ("INT32", "INT64"):
        return _whole_text(_BOUNDS[value_type])
    return lambda _value: None


def timestamp(at: float) -> bytes:
    """A Timestamp, to the microsecond as Feast's own; `at` in seconds since the epoch."""
    seconds, micros = parts(at)
    return (b"\x08" + varint(seconds) if seconds else b"") + (b"\x10" + varint(micros * 1000) if micros else b"")


def parts(at: float) -> tuple[int, int]:
    """Whole seconds and microseconds of a time, rounded as `datetime.fromtimestamp` rounds."""
    seconds = math.floor(at)
    micros = round((at - seconds) * 1e6)
    return (seconds + 1, 0) if micros == 1_000_000 else (seconds, micros)


def varint(value: int) -> bytes:
    """A base-128 varint; a negative number as the 64 bits of its two's complement, as protobuf has it."""
    if 0 <= value < 128:
        return _SMALL[value]
    if value < 0:
        value += 1 << 64
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _nearest(value: Any, bound: int) -> int | None:
    """`value` as a whole number from -bound to bound - 1, if it can be one."""
    if type(value) is not int:
        if value is None or not math.isfinite(value):
            return None
        value = round(value)
    return value if -bound <= value < bound else None


def _whole_number(number: int, bound: int) -> Encoder:
    tag = bytes([number << 3 | VARINT])
    small = [tag + each for each in _SMALL]

    def encode(value: Any) -> bytes:
        if type(value) is int and 0 <= value < 128:  # what most counts are
            return small[value]
        whole = _nearest(value, bound)
        return NULL if whole is None else tag + varint(whole)

    return encode


def _whole_text(bound: int) -> Teller:
    def tell(value: Any) -> str | None:
        whole = _nearest(value, bound)
        return None if whole is None else str(whole)

    return tell


def _real(number: int, value_type: str) -> Encoder:
    tag = number << 3 | _REALS[value_type]
    if value_type == "FLOAT":
        head = bytes([tag])
        return lambda value: NULL if value is None else head + _float_bytes(value)
    pack = struct.Struct("<Bd").pack
    return lambda value: NULL if value is None else pack(tag, value)


def _float_bytes(value: float) -> bytes:
    try:
        return _FLOAT.pack(value)
    except OverflowError:
        return _FLOAT.pack(math.copysign(math.inf, value))


def _text(number: int) -> Encoder:
    tag = bytes([number << 3 | LENGTH])

    def encode(value: str | bytes | None) -> bytes:
        if value is None:
            return NULL
        data = value.encode() if isinstance(value, str) else value
        return tag + varint(len(data)) + data

    return encode
