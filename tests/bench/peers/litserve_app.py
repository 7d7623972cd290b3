"""LitServe with one worker and its fast queue; rows of floats, or an image of bytes. Arguments: MODEL PORT."""

import sys
from typing import Any

import litserve
import numpy as np
import onnxruntime as ort


class Score(litserve.LitAPI):  # type: ignore[misc]  # not installed here
    def setup(self, _device: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0]

    def decode_request(self, request: dict[str, Any]) -> Any:
        if self.input.type == "tensor(uint8)":
            return np.array([request["image"]], dtype=np.uint8)
        return np.array([[*request.values()]], dtype=np.float32)

    def predict(self, x: Any) -> float:
        return float(self.session.run(["probability"], {self.input.name: x})[0][0, 1])

    def encode_response(self, output: float) -> dict[str, float]:
        return {"score": output}


if __name__ == "__main__":
    server = litserve.LitServer(Score(), accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run("127.0.0.1", int(sys.argv[2]), num_api_servers=1, log_level="error", generate_client_file=False)
