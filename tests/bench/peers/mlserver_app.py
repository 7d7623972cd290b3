"""MLServer's runtime for the model, in the server's own process. The model's settings name the file."""

import mlserver
import numpy as np
import onnxruntime as ort
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Score(mlserver.MLModel):  # type: ignore[misc]  # not installed here
    async def load(self) -> bool:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        path = self.settings.parameters.uri
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        (tensor,) = payload.inputs
        x = np.array(tensor.data, dtype=np.float32).reshape(tensor.shape)
        p = self.session.run(["probability"], {"input": x})[0][:, 1]
        output = ResponseOutput(name="score", shape=[len(p)], datatype="FP32", data=p.tolist())
        return InferenceResponse(model_name=self.name, outputs=[output])
