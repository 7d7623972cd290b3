"""Decoding `feast.types.Value` and `google.protobuf.Timestamp` without protobuf objects.

A Value is one set member of a oneof, so a stored 0 or "" has bytes and only NULL has none: absent, empty and
`null_val` all mean "no value". The wire format is the protocol buffers encoding; field numbers are in `plan`.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

from sunup.lookup.plan import VALUE_TYPES

Decoder: TypeAlias = Callable[[bytes | None], Any]

NULL_TIMESTAMP: Final = -(2**63)  # how Feast writes "no time" (numpy's NaT) into a UNIX_TIMESTAMP
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_DOUBLE: Final = struct.Struct("<d")
_FLOAT: Final = struct.Struct("<f")
_TAG_DOUBLE: Final = struct.Struct("<Bd")
_TAG_FLOAT: Final = struct.Struct("<Bf")


def decoder(value_type: str) -> Decoder:
    """A function from stored bytes to a Python value of `value_type`, or None where there is none.

    Bytes that hold another type are converted where nothing is lost in meaning (a whole number for a float); any
    other type, or damaged bytes, count as no value: the reply then names the column among those defaulted.
    """
    number, dtype = VALUE_TYPES[value_type]
    if dtype in ("int32", "int64"):
        return _whole_number(number)
    if dtype == "float64":
        return _real(number << 3 | FIXED64, _TAG_DOUBLE.unpack, 9)
    if dtype == "float32":
        return _real(number << 3 | FIXED32, _TAG_FLOAT.unpack, 5)
    if dtype.endswith("[]"):
        return lambda raw: _list(raw, number) if raw else None
    return lambda raw: _scalar(raw, number) if raw else None


def timestamp(raw: bytes | None) -> float | None:
    """Seconds since the epoch of a serialised Timestamp; None when absent or damaged."""
    if raw is None:
        return None
    size = len(raw)
    # Seconds between 1978 and 3058 take five bytes; alone, or with the five of most nanoseconds, as Feast writes them.
    if (size in (6, 12)) and raw[0] == 8 and raw[5] < 128 <= raw[1] & raw[2] & raw[3] & raw[4]:
        whole = raw[1] & 127 | (raw[2] & 127) << 7 | (raw[3] & 127) << 14 | (raw[4] & 127) << 21 | raw[5] << 28
        if size == 6:
            return float(whole)
        if raw[6] == 16 and raw[11] < 128 <= raw[7] & raw[8] & raw[9] & raw[10]:
            part = raw[7] & 127 | (raw[8] & 127) << 7 | (raw[9] & 127) << 14 | (raw[10] & 127) << 21 | raw[11] << 28
            return whole + part / 1e9
    seconds, nanos = 0, 0
    try:
        for number, wire, value in _fields(raw):
            if number == 1 and wire == VARINT:
                seconds = _signed(value)
            elif number == 2 and wire == VARINT:
                nanos = _signed(value)
    except (IndexError, ValueError):
        return None
    return seconds + nanos / 1e9


def _whole_number(number: int) -> Decoder:
    tag = number << 3

    def decode(raw: bytes | None) -> Any:
        if not raw:
            return None
        if raw[0] == tag:
            size = len(raw)
            if size == 2 and raw[1] < 128:  # 0 to 127, what most counts are
                return raw[1]
            if size == 3 and raw[1] > 127 > raw[2]:
                return raw[1] & 127 | raw[2] << 7
        return _scalar(raw, number)

    return decode


def _real(tag: int, unpack: Callable[[bytes], tuple[Any, ...]], size: int) -> Decoder:
    number = tag >> 3

    def decode(raw: bytes | None) -> Any:
        if not raw:
            return None
        if raw[0] == tag and len(raw) == size:
            return unpack(raw)[1]
        return _scalar(raw, number)

    return decode


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """An unsigned varint at `at` and where it ends. Raises IndexError at the end of `raw`, ValueError over 10 bytes."""
    value = 0
    for index in range(10):
        byte = raw[at + index]
        value |= (byte & 127) << (7 * index)
        if byte < 128:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at + index + 1
    raise ValueError("a varint is at most ten bytes")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _fields(raw: bytes) -> Iterator[tuple[int, int, Any]]:
    """(field number, wire type, value) of a message; value is an int for varints, else bytes."""
    at, end = 0, len(raw)
    while at < end:
        tag, at = _varint(raw, at)
        wire = tag & 7
        if wire == VARINT:
            value, at = _varint(raw, at)
            yield tag >> 3, wire, value
            continue
        if wire == LENGTH:
            size, at = _varint(raw, at)
        elif wire in (FIXED64, FIXED32):
            size = 8 if wire == FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire} is not one a Value uses")
        if at + size > end:
            raise IndexError("the message ends inside a field")
        yield tag >> 3, wire, raw[at : at + size]
        at += size


def _member(raw: bytes) -> tuple[int, Any]:
    """Which member of the oneof is set (the last one wins) and its wire value; (0, None) when none is."""
    found: tuple[int, Any] = (0, None)
    for number, _wire, value in _fields(raw):
        found = (number, value)
    return found


def _scalar(raw: bytes, wanted: int) -> Any:
    try:
        number, value = _member(raw)
        if number == 5:
            plain: Any = _DOUBLE.unpack(value)[0]
        elif number == 6:
            plain = _FLOAT.unpack(value)[0]
        elif number in (3, 4, 8):
            plain = _signed(value)
        elif number == 7:
            plain = bool(_signed(value))
        elif number in (1, 2):
            plain = bytes(memoryview(value)) if number == 1 else value.decode()
        else:
            return None
    except (IndexError, ValueError, TypeError, AttributeError, struct.error):
        return None
    return _fit(plain, number, wanted)


def _fit(plain: Any, number: int, wanted: int) -> Any:
    """`plain`, read as value type `number`, as type `wanted`; None where that would change its meaning."""
    if number == 8 and plain == NULL_TIMESTAMP:
        return None
    if number == wanted:
        return plain
    if wanted in (5, 6) and number in (3, 4, 5, 6):
        return float(plain)
    return plain if wanted in (3, 4) and number in (3, 4) and (wanted == 4 or -(2**31) <= plain < 2**31) else None


def _list(raw: bytes, wanted: int) -> list[Any] | None:
    try:
        number, body = _member(raw)
        if number != wanted:
            return None
        return list(_elements(body, number))
    except (IndexError, ValueError, TypeError, AttributeError, struct.error):
        return None


def _elements(body: bytes, number: int) -> Iterator[Any]:
    """The elements of a `repeated ... val = 1`: numbers may be packed into one field or stand alone."""
    for _number, wire, value in _fields(body):
        if number in (11, 12):
            yield bytes(memoryview(value)) if number == 11 else value.decode()
        elif number in (15, 16):
            yield from struct.unpack(
                f"<{len(value) // (8 if number == 15 else 4)}{'d' if number == 15 else 'f'}", value
            )
        else:
            for element in (value,) if wire == VARINT else _packed(value):
                yield bool(element) if number == 17 else _signed(element)


def _packed(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value
