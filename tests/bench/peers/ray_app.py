"""Ray Serve with one replica. Arguments: MODEL PORT."""

import sys

import numpy as np
import onnxruntime as ort
import ray
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=1, max_ongoing_requests=64)
class Score:
    def __init__(self, path: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    async def __call__(self, request: Request) -> dict[str, float]:
        x = np.array([[*(await request.json()).values()]], dtype=np.float32)
        return {"score": float(self.session.run(["probability"], {"input": x})[0][0, 1])}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
    serve.run(Score.bind(sys.argv[1]), name="score", route_prefix="/score", blocking=True)  # type: ignore[attr-defined]
