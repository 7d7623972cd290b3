"""Entity keys as Feast serialises them (version 3, feast/infra/key_encoding_utils.py), compiled once per entity.

Layout, little endian: uint32 number of join keys; per name, sorted: uint32 2 (STRING), uint32 length, UTF-8; then per
value in that order: uint32 value type, uint32 length, bytes.
"""

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from sunup.errors import BadRequest
from sunup.lookup.plan import VALUE_TYPES, JoinKey
from sunup.types import Row

KeyMaker: TypeAlias = Callable[[Row], bytes]

# What a key maker raises for a value that is no key: out of range, of another type, or absent.
KEY_ERRORS: Final = (struct.error, TypeError, AttributeError, UnicodeEncodeError)
NO_KEY: Final = "cannot be used as a feature key: wrong type or out of range"

_PAIR: Final = struct.Struct("<II")
_FIXED: Final = {"INT32": struct.Struct("<i"), "INT64": struct.Struct("<q"), "UNIX_TIMESTAMP": struct.Struct("<q")}


def key_maker(join_keys: Sequence[JoinKey], positions: Mapping[str, int]) -> KeyMaker:
    """A function from a request row to the entity key. `positions` maps a request field to its place in the row."""
    keys = sorted(join_keys, key=lambda key: key.name)
    head = key_head(keys)
    if not any(key.field for key in keys):
        constant = head + b"".join(_value("", key.value_type) for key in keys)
        return lambda _row: constant
    if len(keys) == 1 and keys[0].value_type in _FIXED:
        return _one_number(head, keys[0].value_type, positions[keys[0].field])
    parts = tuple((positions[key.field], key.value_type) for key in keys)
    return lambda row: head + b"".join([_value(row[at], kind) for at, kind in parts])


def bad_key(row: Row, makers: Iterable[tuple[KeyMaker, Sequence[JoinKey]]]) -> BadRequest | None:
    """Why the first key of a row that cannot be made cannot; None where all can."""
    for maker, keys in makers:
        try:
            maker(row)
        except KEY_ERRORS:
            names = " and ".join(key.field for key in keys)
            return BadRequest(f"{names} {NO_KEY}", field=keys[0].field)
    return None


def key_head(join_keys: Sequence[JoinKey]) -> bytes:
    """What every key of these join keys begins with: how many they are, and their names."""
    names = sorted(key.name for key in join_keys)
    texts = [name.encode() for name in names]
    return struct.pack("<I", len(texts)) + b"".join(_PAIR.pack(2, len(text)) + text for text in texts)


def _one_number(head: bytes, kind: str, at: int) -> KeyMaker:
    """The common case, one whole-number key: everything but the last bytes is constant."""
    layout = _FIXED[kind]
    fixed, pack = head + _PAIR.pack(VALUE_TYPES[kind][0], layout.size), layout.pack
    return lambda row: fixed + pack(row[at])


def _value(value: Any, kind: str) -> bytes:
    """One serialised key value."""
    layout = _FIXED.get(kind)
    if layout is not None:
        data = layout.pack(value)
    else:
        data = value.encode() if kind == "STRING" else bytes(memoryview(value))
    return _PAIR.pack(VALUE_TYPES[kind][0], len(data)) + data
