"""How Confluent's wire format is known: a zero byte, the schema's number in 4 bytes, big-endian, the record."""

from typing import Final

HEAD_BYTES: Final = 5


def is_framed(value: bytes) -> bool:
    """Whether a value is in that format; no JSON begins with a zero byte."""
    return value[:1] == b"\0" and len(value) >= HEAD_BYTES


def number_of(value: bytes) -> int:
    """The number of a framed value's schema."""
    return int.from_bytes(value[1:HEAD_BYTES])
