"""BentoML with one worker, in one process. The environment's MODEL names the file."""

import os

import bentoml
import numpy as np
import onnxruntime as ort


@bentoml.service(workers=1)
class Score:
    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    @bentoml.api  # type: ignore[untyped-decorator]  # not installed here
    def predict(self, row: list[float]) -> dict[str, float]:
        x = np.array([row], dtype=np.float32)
        return {"score": float(self.session.run(["probability"], {"input": x})[0][0, 1])}
