"""Feast's hashes of the two views of the bench of features, read by hand: the commands, and what the replies mean.

The views are those of tests/bench/feature_data.py: per view one int64 key and ten float64 features. A missing feature
is NaN and one older than the ttl counts as missing; there is no other value type.
"""

import struct

import mmh3
import msgspec
from tests.bench.feature_data import PROJECT, TTL_S, VIEWS

Record = msgspec.defstruct(
    "Record", [("card_id", int), ("merchant_id", int), *((f"f{i}", float) for i in range(10))], gc=False
)
decode = msgspec.json.Decoder(Record).decode
encode = msgspec.json.Encoder().encode

NAN = float("nan")
INT64 = struct.Struct("<q").pack
DOUBLE = struct.Struct("<xd").unpack


def _command(key: str, view: str, features: list[str]) -> tuple[bytes, bytes]:
    """What comes before and after the eight bytes of the key's value in a view's HMGET."""
    fields = [struct.pack("<I", mmh3.hash(f"{view}:{name}", signed=False)) for name in features]
    fields.append(f"_ts:{view}".encode())
    entity = struct.pack("<III", 1, 2, len(key)) + key.encode() + struct.pack("<II", 4, 8)
    size = len(entity) + 8 + len(PROJECT)
    tail = PROJECT.encode() + b"\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(field), field) for field in fields)
    return b"*%d\r\n$5\r\nHMGET\r\n$%d\r\n%b" % (len(fields) + 2, size, entity), tail


(HEAD_1, TAIL_1), (HEAD_2, TAIL_2) = (_command(key, view, names) for key, view, names in VIEWS)
BETWEEN = TAIL_1 + HEAD_2


def reads(first: int, second: int) -> bytes:
    """Both HMGETs of one record."""
    return b"".join((HEAD_1, INT64(first), BETWEEN, INT64(second), TAIL_2))


def seconds(raw: bytes | None) -> int:
    """The whole seconds of a serialised Timestamp."""
    value = 0
    for byte in raw[5:0:-1] if raw else b"":
        value = value << 7 | (byte & 127)
    return value


def features(reply: list[bytes | None], now: float) -> list[float]:
    """The ten features of a view's reply, at `now` in seconds since the epoch."""
    if now - seconds(reply[10]) > TTL_S:
        return [NAN] * 10
    return [DOUBLE(raw)[0] if raw else NAN for raw in reply[:10]]
