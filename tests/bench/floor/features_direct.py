"""Floor: raw_asgi.py plus two Feast views read directly from Redis by hand: one connection, hiredis, two HMGETs a call.

Arguments: MODEL REDIS_URL PORT. What is read is in feast_hashes.py; there is no deadline and no reconnecting.
"""

import asyncio
import sys
import time
from collections import deque
from typing import Any
from urllib.parse import urlsplit

import hiredis
import numpy as np
import onnxruntime as ort
import uvloop
from msgspec.structs import astuple
from tests.bench.floor.feast_hashes import decode, encode, features, reads
from tests.bench.floor.serving import serve
from tests.bench.floor.session import open_session
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope


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
        self.transport.write(reads(first, second))
        return future


def score(session: ort.InferenceSession, record: Any, replies: list[Any]) -> bytes:
    now = time.time()
    row = (*astuple(record)[2:], *features(replies[0], now), *features(replies[1], now))
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
