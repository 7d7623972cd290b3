"""KServe's Python server, protocol v1, one worker; rows of floats, or images of bytes. Arguments: MODEL PORT."""

import sys
from typing import Any

import kserve
import numpy as np
import onnxruntime as ort


class Score(kserve.Model):  # type: ignore[misc]  # not installed here
    def __init__(self, path: str) -> None:
        super().__init__("score")
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0]
        self.ready = True

    def predict(self, payload: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        x = np.array(payload["instances"], dtype=np.uint8 if self.input.type == "tensor(uint8)" else np.float32)
        return {"predictions": self.session.run(["probability"], {self.input.name: x})[0][:, 1].tolist()}


if __name__ == "__main__":
    server = kserve.ModelServer(http_port=int(sys.argv[2]), enable_grpc=False, workers=1, access_log_format=None)
    server.start([Score(sys.argv[1])])
