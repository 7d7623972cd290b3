"""Floor: the features of the bench of lookups read from Redis by hand, on the loop a worker runs on.

`one`: one HMGET with hiredis and the decoding. `many`: the 501 HMGETs, put together before the clock starts, written at
once, their replies parsed and nothing decoded. A missing value is None, one older than the ttl counts as missing; there
is no deadline and no reconnecting. Arguments: URL.
"""

import asyncio
import struct
import sys
import time
from typing import Any
from urllib.parse import urlsplit

import hiredis
import mmh3
from tests.bench.lookup.data import CANDIDATES, PROJECT, SERVICES, TTL_S, features
from tests.bench.lookup.subject import Ask, loop, obey

INT32, INT64, DOUBLE = struct.Struct("<i").pack, struct.Struct("<q").pack, struct.Struct("<xd").unpack
VALUE = {"user_id": (4, INT64), "item_no": (3, INT32)}  # Feast's number of the type


def command(key: str, views: list[str]) -> tuple[bytes, bytes]:
    """What comes before and after the bytes of the key's value in the HMGET of views that share a key."""
    fields = []
    for view in views:
        fields += [struct.pack("<I", mmh3.hash(f"{view}:{name}", signed=False)) for name in features(view)]
        fields.append(f"_ts:{view}".encode())
    number, pack = VALUE[key]
    entity = struct.pack("<III", 1, 2, len(key)) + key.encode() + struct.pack("<II", number, len(pack(0)))
    size = len(entity) + len(pack(0)) + len(PROJECT)
    tail = PROJECT.encode() + b"\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(field), field) for field in fields)
    return b"*%d\r\n$5\r\nHMGET\r\n$%d\r\n%b" % (len(fields) + 2, size, entity), tail


class Redis(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport, self.reader = transport, hiredis.Reader()
        self.loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self.reader.feed(data)
        while (reply := self.reader.gets()) is not False:
            self.replies.append(reply)
            if len(self.replies) == self.count:
                self.future.set_result(self.replies)

    def read(self, data: bytes, count: int) -> "asyncio.Future[list[Any]]":
        self.future, self.count = self.loop.create_future(), count
        self.replies: list[Any] = []
        self.transport.write(data)
        return self.future


def varint(raw: bytes) -> int:
    """The whole number after the tag of a Value or a Timestamp: its first field."""
    value = raw[1] & 127
    for at in range(1, len(raw) - 1):
        if raw[at] < 128:
            break
        value |= (raw[at + 1] & 127) << 7 * at
    return value


def decoded(reply: list[bytes | None], views: list[str], now: float) -> list[Any]:
    values: list[Any] = []
    at = 0
    for view in views:
        ints, floats, strings, end = LAYOUT[view]
        seconds = reply[at + end]
        if seconds is None or now - varint(seconds) > TTL_S:
            values += [None] * end
        else:
            values += [varint(raw) if raw else None for raw in reply[at : at + ints]]
            values += [DOUBLE(raw)[0] if raw else None for raw in reply[at + ints : at + floats]]
            values += [raw[2:].decode() if raw else None for raw in reply[at + floats : at + strings]]
            values += [raw[1] == 1 if raw else None for raw in reply[at + strings : at + end]]
        at += end + 1
    return values


def layout(view: str) -> tuple[int, int, int, int]:
    """Where the whole numbers, the reals, the strings (all shorter than 128 bytes) and the booleans of a view end."""
    kinds = list(features(view).values())
    ends = [sum(kind in ("Int64", "Float64", "String")[: n + 1] for kind in kinds) for n in range(3)]
    return ends[0], ends[1], ends[2], len(kinds)


LAYOUT = {view: layout(view) for views in SERVICES.values() for view, _ in views}
ONE = [view for view, _ in SERVICES["one"]]
HEAD, TAIL = command("user_id", ONE)
(USER_HEAD, USER_TAIL), (ITEM_HEAD, ITEM_TAIL) = command("user_id", ["taste"]), command("item_no", ["item_stats"])


def asks(redis: Redis) -> dict[str, Ask]:
    async def one(user: int) -> list[Any]:
        (reply,) = await redis.read(b"".join((HEAD, INT64(user), TAIL)), 1)
        return decoded(reply, ONE, time.time())

    async def many(commands: bytes) -> list[Any]:
        return await redis.read(commands, 1 + CANDIDATES)

    def commands(question: Any) -> bytes:
        user, items = question
        words = [part for item in items for part in (ITEM_HEAD, INT32(item), ITEM_TAIL)]
        return b"".join((USER_HEAD, INT64(user), USER_TAIL, *words))

    def rows(_: Any, replies: list[Any]) -> list[list[Any]]:
        user = decoded(replies[0], ["taste"], time.time())
        return [user + decoded(reply, ["item_stats"], time.time()) for reply in replies[1:]]

    return {"one": Ask(lambda user: user, one, lambda _, values: [values]), "many": Ask(commands, many, rows)}


async def connected(url: str) -> Redis:
    address = urlsplit(url)
    loop = asyncio.get_running_loop()
    _, redis = await loop.create_connection(Redis, address.hostname or "localhost", address.port or 6379)
    return redis


if __name__ == "__main__":
    with loop() as runner:
        obey(runner, asks(runner.run(connected(sys.argv[1]))))
