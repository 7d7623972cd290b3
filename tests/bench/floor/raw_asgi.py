"""Floor: one-row JSON scoring by hand. Raw ASGI, uvicorn (httptools, uvloop), msgspec, ONNX Runtime, nothing else.

Arguments: MODEL PORT.
"""

import asyncio
import sys

import msgspec
import numpy as np
import onnxruntime as ort
import uvloop
from tests.bench.floor.serving import serve
from tests.bench.floor.session import open_session
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope

FEATURES = 30

Record = msgspec.defstruct("Record", [(f"f{i}", float) for i in range(FEATURES)], gc=False)
decode = msgspec.json.Decoder(Record).decode
encode = msgspec.json.Encoder().encode


def score(session: ort.InferenceSession, body: bytes) -> bytes:
    row = np.array([msgspec.structs.astuple(decode(body))], dtype=np.float32)
    p = float(session.run(["probability"], {"input": row})[0][0, 1])
    return encode({"predictions": [{"score": p, "decision": "block" if p > 0.9 else "allow"}]})


class App:
    def __init__(self, model: str) -> None:
        self.session = open_session(model)

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
        answer = score(self.session, body)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": False})
        await send({"type": "http.response.body", "body": answer, "more_body": False})


def main() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(App(sys.argv[1]), int(sys.argv[2])))


if __name__ == "__main__":
    main()
