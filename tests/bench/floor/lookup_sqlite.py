"""Floor: the features of the bench of lookups read from Feast's SQLite file by hand.

`one`: one prepared SELECT and the decoding. `many`: one prepared SELECT for 501 keys, its rows fetched and nothing
decoded. A missing value is None, one older than the ttl counts as missing; there is no deadline. Arguments: URL.
"""

import sqlite3
import struct
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from tests.bench.lookup.data import CANDIDATES, PROJECT, SERVICES, TTL_S, columns
from tests.bench.lookup.subject import Ask, loop, obey

INT32, INT64, DOUBLE = struct.Struct("<i").pack, struct.Struct("<q").pack, struct.Struct("<xd").unpack
VALUE = {"user_id": (4, 8), "item_no": (3, 4)}  # Feast's number of the type, and its bytes
OFFSET = time.localtime().tm_gmtoff  # Feast reads a naive UTC time as local when it writes


def varint(raw: bytes) -> int:
    value = 0
    for at, byte in enumerate(raw[1:]):
        value |= (byte & 127) << 7 * at
    return value


DECODE: dict[str, Callable[[bytes], Any]] = {
    "Int64": varint,
    "Float64": lambda raw: DOUBLE(raw)[0],
    "String": lambda raw: raw[2:].decode(),  # all shorter than 128 bytes
    "Bool": lambda raw: raw[1] == 1,
}


def prefix(key: str) -> bytes:
    """The entity key without its value."""
    return struct.pack("<III", 1, 2, len(key)) + key.encode() + struct.pack("<II", *VALUE[key])


def by_name(fetched: list[Any], oldest: float) -> list[Any]:
    """The values of `one` in order, of rows (_, feature name, Value, event time)."""
    values: list[Any] = [None] * len(PLACES["one"])
    for _, name, raw, at in fetched:
        place, decode = PLACES["one"][name]
        values[place] = decode(raw) if at >= oldest else None
    return values


def by_key(question: Any, fetched: list[Any]) -> list[list[Any]]:
    """The rows of `many`, of rows (entity key, feature name, Value, _)."""
    user, *items = keys(question)
    found: dict[bytes, list[Any]] = {item: [None] * len(PLACES["many"]) for item in items}
    for key, name, raw, _ in fetched:
        place, decode = PLACES["many"][name]
        for row in found.values() if key == user else [found[key]]:
            row[place] = decode(raw)
    return [found[item] for item in items]


def keys(question: Any) -> list[bytes]:
    """The entity keys of `many`: the user's, and the items'."""
    return [USER + INT64(question[0]), *(ITEM + INT32(item) for item in question[1])]


def select(view: str, keys: str) -> str:
    return f'SELECT entity_key, feature_name, value, event_ts FROM "{PROJECT}_{view}" WHERE entity_key {keys}'


PLACES = {s: {name: (at, DECODE[k]) for at, (name, k) in enumerate(columns(s).items())} for s in SERVICES}
USER, ITEM = prefix("user_id"), prefix("item_no")
ONE = " UNION ALL ".join(select(view, "= ?1") for view, _ in SERVICES["one"])
MANY = select("taste", "= ?") + " UNION ALL " + select("item_stats", f"IN ({', '.join('?' * CANDIDATES)})")


def asks(connection: sqlite3.Connection) -> dict[str, Ask]:
    def one(user: int) -> list[Any]:
        fetched = connection.execute(ONE, (USER + INT64(user),)).fetchall()
        return by_name(fetched, time.time() - TTL_S - OFFSET)

    def many(keys: list[bytes]) -> list[Any]:
        return connection.execute(MANY, keys).fetchall()

    return {"one": Ask(lambda user: user, one, lambda _, values: [values]), "many": Ask(keys, many, by_key)}


def main() -> None:
    connection = sqlite3.connect(f"file:{urlsplit(sys.argv[1]).path}?mode=rw", uri=True, isolation_level=None)
    for pragma in ("query_only=1", f"mmap_size={1 << 28}"):
        connection.execute(f"PRAGMA {pragma}")
    with loop() as runner:
        obey(runner, asks(connection))


if __name__ == "__main__":
    main()
