"""Keras networks (MLflow's flavours tensorflow and keras), exported by Keras itself through tf2onnx."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from sunup.bundle.convert.neural.network import served
from sunup.bundle.convert.onnx import OnnxModel
from sunup.errors import ConversionRefused
from sunup.types import Field


def load(folder: Path, flavor: str, columns: Sequence[Field]) -> OnnxModel:
    """Load and export a network. Raises ConversionRefused, and ModuleNotFoundError where the extra is absent."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    import keras  # type: ignore[import-not-found,unused-ignore]  # 10 to 30 s, with TensorFlow: only models of this flavour pay for it
    import mlflow.tensorflow  # see above
    import tf2onnx  # type: ignore[import-not-found,unused-ignore]  # noqa: F401  # Keras exports with it; its absence is known before anything is loaded

    model: Any = mlflow.tensorflow.load_model(str(folder))
    if not isinstance(model, keras.Model):
        raise ConversionRefused(
            f"This {flavor} model is a {type(model).__name__}, not a Keras model. Log it as one, or as ONNX."
        )

    def network(inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        given = model.predict(inputs[0] if len(inputs) == 1 else list(inputs), batch_size=1024, verbose=0)
        return [np.asarray(one) for one in (given if isinstance(given, list | tuple) else [given])]

    # A network read from a file must have been called once before it can be exported.
    zeros = [np.zeros((2, *tensor.shape[1:]), dtype=str(tensor.dtype)) for tensor in model.inputs]
    model(zeros[0] if len(zeros) == 1 else zeros)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "model.onnx"
        model.export(str(file), format="onnx", verbose=False)
        proto = onnx.load(str(file))
    return served(proto, network, columns, f"exported by Keras {keras.__version__}")
