"""Floor: a JPEG scored by hand. Raw ASGI, uvicorn (httptools, uvloop), Pillow with scaled decode, ONNX Runtime.

It does what ours does to a picture and nothing else: no type is compared, no size is checked, nothing is turned.
Arguments: MODEL PORT.
"""

import asyncio
import sys
from io import BytesIO

import msgspec
import numpy as np
import onnxruntime as ort
import uvloop
from PIL import Image
from tests.bench.floor.serving import serve
from tests.bench.floor.session import open_session
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope

SIZE = 224
encode = msgspec.json.Encoder().encode


def score(session: ort.InferenceSession, body: bytes) -> bytes:
    image = Image.open(BytesIO(body))
    scale = SIZE / min(image.size)
    image.draft("RGB", (round(image.width * scale), round(image.height * scale)))
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    small = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
    given = session.run(["probability"], {"image": np.asarray(small)[None]})[0][0]
    fine, text, blank = given.tolist()
    decision = "allow" if fine > 0.5 else "review"
    return encode({"predictions": [{"fine": fine, "text": text, "blank": blank, "decision": decision}]})


class App:
    def __init__(self, model: str) -> None:
        self.session = open_session(model)

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] != "http":
            return
        parts = []
        while True:
            message = await receive()
            parts.append(message["body"])  # type: ignore[typeddict-item]
            if not message["more_body"]:  # type: ignore[typeddict-item]
                break
        answer = score(self.session, b"".join(parts))
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": False})
        await send({"type": "http.response.body", "body": answer, "more_body": False})


def main() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(App(sys.argv[1]), int(sys.argv[2])))


if __name__ == "__main__":
    main()
