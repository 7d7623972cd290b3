"""Peer: a JPEG scored by LitServe, as its documentation writes an image API: base64 in JSON, Pillow at full scale.

Runs in an environment of its own (tests/bench/peers/litserve.txt). Arguments: MODEL PORT [scaled]. With "scaled" it
decodes as ours does, which its documentation does not say; that is measured beside it, without a goal.
"""

import base64
import sys
from io import BytesIO
from typing import Any

import litserve  # type: ignore[import-not-found, unused-ignore]
import numpy as np
import onnxruntime as ort
from PIL import Image

SIZE = 224


class Moderate(litserve.LitAPI):  # type: ignore[misc, unused-ignore]
    def __init__(self, model: str, *, scaled: bool) -> None:
        super().__init__()
        self.model, self.scaled = model, scaled

    def setup(self, device: str) -> None:  # noqa: ARG002
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(self.model, options, providers=["CPUExecutionProvider"])

    def decode_request(self, request: dict[str, Any]) -> Any:
        image: Any = Image.open(BytesIO(base64.b64decode(request["image"])))
        if self.scaled:
            scale = SIZE / min(image.size)
            image.draft("RGB", (round(image.width * scale), round(image.height * scale)))
        image = image.convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        small = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
        return np.asarray(small)[None]

    def predict(self, x: Any) -> Any:
        return self.session.run(["probability"], {"image": x})[0][0]

    def encode_response(self, output: Any) -> dict[str, Any]:
        fine, text, blank = output.tolist()
        decision = "allow" if fine > 0.5 else "review"
        return {"predictions": [{"fine": fine, "text": text, "blank": blank, "decision": decision}]}


def main() -> None:
    api = Moderate(sys.argv[1], scaled="scaled" in sys.argv[3:])
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=30)
    server.run(
        host="127.0.0.1", port=int(sys.argv[2]), num_api_servers=1, generate_client_file=False, log_level="error"
    )


if __name__ == "__main__":
    main()
