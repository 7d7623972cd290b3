"""The model the benches share: LightGBM, 200 trees of 31 leaves, 30 features, as ONNX."""

import numpy as np
from lightgbm import LGBMClassifier
from numpy.typing import NDArray
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

FEATURES = 30
TREES = 200


def rows(count: int, seed: int = 7) -> NDArray[np.float64]:
    """Rows of the bench's request: FEATURES floats each, rounded so that JSON carries them exactly as float32."""
    values = np.random.default_rng(seed).normal(size=(count, FEATURES))
    return np.round(values, 3).astype(np.float32).astype(np.float64)


def tree_model() -> bytes:
    """Train and convert. Input "input" float32 [-1, FEATURES]; output "probability" float32 [-1, 2]."""
    x = rows(20_000)
    y = (x[:, :5].sum(axis=1) + x[:, 5] * x[:, 6] > 1).astype(int)
    model = LGBMClassifier(n_estimators=TREES, num_leaves=31, verbose=-1, n_jobs=2, random_state=1).fit(x, y)
    onnx = convert_lightgbm(
        model, initial_types=[("input", FloatTensorType([None, FEATURES]))], zipmap=False, target_opset=15
    )
    onnx.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "n"  # declared 1, which ONNX Runtime warns about
    for node in onnx.graph.node:
        node.output[:] = ["probability" if name == "probabilities" else name for name in node.output]
    for output in onnx.graph.output:
        output.name = "probability" if output.name == "probabilities" else output.name
    return bytes(onnx.SerializeToString())
