"""Floor: raw_asgi.py plus two Feast views read directly from Redis by hand: one connection, hiredis, two HMGETs a call.

Arguments: MODEL REDIS_URL PORT. The views are those of tests/bench/feature_data.py: per view one int64 key and ten
float64 features. A missing feature is NaN and one older than the ttl counts as missing; there is no deadline, no
reconnecting and no other value type.
"""

import asyncio
import struct
import sys
import time
from collections import deque
from typing import Any
from urllib.parse import urlsplit

import hiredis
import mmh3
import msgspec
import numpy as np
import onnxruntime as ort
import uvloop
from tests.bench.feature_data import PROJECT, TTL_S, VIEWS
from tests.bench.floor.serving import serve
from tests.bench.floor.session import open_session
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope

Record = msgspec.defstruct(
    "Record", [("card_id", int), ("merchant_id", int), *((f"f{i}", float) for i in range(10))], gc=False
)
decode = msgspec.json.Decoder(Record).decode
encode = msgspec.json.Encoder().encode

NAN = float("nan")
INT64 = struct.Struct("<q").pack
DOUBLE = struct.Struct("<xd").unpack


def command(key: str, view: str, features: list[str]) -> tuple[bytes, bytes]:
    """What comes before and after the eight bytes of the key's value in a view's HMGET."""
    fields = [struct.pack("<I", mmh3.hash(f"{view}:{name}", signed=False)) for name in features]
    fields.append(f"_ts:{view}".encode())
    entity = struct.pack("<III", 1, 2, len(key)) + key.encode() + struct.pack("<II", 4, 8)
    size = len(entity) + 8 + len(PROJECT)
    tail = PROJECT.encode() + b"\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(field), field) for field in fields)
    return b"*%d\r\n$5\r\nHMGET\r\n$%d\r\n%b" % (len(fields) + 2, size, entity), tail


(HEAD_1, TAIL_1), (HEAD_2, TAIL_2) = (command(key, view, names) for key, view, names in VIEWS)


class Redis(asyncio.Protocol):
    def __init__(self) -> None:
        self.reader = hiredis.Reader()
        self.waiting: deque[asyncio.Future[list[Any]]] = deque()
        self.replies: list[Any] = []
        self.loop = asyncio.get_running_loop()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.reader.feed(data)
        while (reply := self.reader.gets()) is not False:
            self.replies.append(reply)
            if len(self.replies) == 2:
                self.waiting.popleft().set_result(self.replies)
                self.replies = []

    def read(self, first: int, second: int) -> "asyncio.Future[list[Any]]":
        future = self.loop.create_future()
        self.waiting.append(future)
        self.transport.write(b"".join((HEAD_1, INT64(first), TAIL_1, HEAD_2, INT64(second), TAIL_2)))
        return future


def seconds(raw: bytes | None) -> int:
    """The whole seconds of a serialised Timestamp."""
    value = 0
    for byte in raw[5:0:-1] if raw else b"":
        value = value << 7 | (byte & 127)
    return value


def features(reply: list[bytes | None], now: float) -> list[float]:
    if now - seconds(reply[10]) > TTL_S:
        return [NAN] * 10
    return [DOUBLE(raw)[0] if raw else NAN for raw in reply[:10]]


def score(session: ort.InferenceSession, record: Any, replies: list[Any]) -> bytes:
    now = time.time()
    row = (*msgspec.structs.astuple(record)[2:], *features(replies[0], now), *features(replies[1], now))
    p = float(session.run(["probability"], {"input": np.array([row], dtype=np.float32)})[0][0, 1])
    return encode({"predictions": [{"score": p, "decision": "block" if p > 0.9 else "allow"}]})


class App:
    def __init__(self, model: str) -> None:
        self.session = open_session(model)
        self.redis: Redis

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] != "http":
            return
        if scope["method"] != "POST" or scope["path"] != "/functions/score":
            await send({"type": "http.response.start", "status": 404, "headers": [], "trailers": False})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        message = await receive()
        body = message["body"]  # type: ignore[typeddict-item]
        while message["more_body"]:  # type: ignore[typeddict-item]
            message = await receive()
            body += message["body"]  # type: ignore[typeddict-item]
        record: Any = decode(body)
        answer = score(self.session, record, await self.redis.read(record.card_id, record.merchant_id))
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": False})
        await send({"type": "http.response.body", "body": answer, "more_body": False})


async def run(model: str, url: str, port: int) -> None:
    app, address = App(model), urlsplit(url)
    _, app.redis = await asyncio.get_running_loop().create_connection(
        Redis, address.hostname or "localhost", address.port or 6379
    )
    await serve(app, port)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(sys.argv[1], sys.argv[2], int(sys.argv[3])))
