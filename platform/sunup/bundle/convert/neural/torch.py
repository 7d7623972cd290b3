"""PyTorch networks (MLflow's flavour pytorch), exported by PyTorch itself. One matrix of all columns goes in."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow.pytorch
import numpy as np
from numpy.typing import NDArray

from sunup.bundle.convert.neural.network import served
from sunup.bundle.convert.onnx import OnnxModel
from sunup.errors import ConversionRefused
from sunup.types import Field


def load(folder: Path, flavor: str, columns: Sequence[Field]) -> OnnxModel:
    """Load and export a network. Raises ConversionRefused, and ModuleNotFoundError where the extra is absent."""
    # mypy knows no library that is not installed.
    import torch  # type: ignore[import-not-found,unused-ignore]  # seconds: only models of this flavour pay for it

    model: Any = mlflow.pytorch.load_model(str(folder), map_location="cpu")
    if not isinstance(model, torch.nn.Module):
        raise ConversionRefused(f"This {flavor} model is a {type(model).__name__}, not a torch.nn.Module.")
    model.eval()
    torch.set_num_threads(1)  # sums of several threads come in any order

    def network(inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        with torch.no_grad():
            given = model(torch.from_numpy(np.ascontiguousarray(inputs[0])))
        return [one.numpy() for one in (given if isinstance(given, list | tuple) else [given])]

    # Two rows: an exporter takes a dimension of one for a constant.
    example = torch.zeros((2, len(columns)), dtype=torch.float32)
    rows = torch.export.Dim("rows")
    program = torch.onnx.export(model, (example,), dynamo=True, dynamic_shapes=({0: rows},), input_names=["input"])
    return served(program.model_proto, network, columns, f"exported by PyTorch {torch.__version__}")
