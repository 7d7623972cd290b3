"""A model small enough to work out by hand, for tests and for trying the rest of the system without a model."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunup.types import Tensor


class StubExecutor:
    """A linear classifier: probability = logistic(input . weights + bias), label = probability > 0.5.

    One input `input`, float64 [-1, len(weights)]; outputs `label` int64 [-1] and `probability` float64 [-1, 2].
    """

    def __init__(self, weights: Sequence[float], bias: float = 0.0) -> None:
        self._weights = np.asarray(weights, dtype=np.float64)
        self._bias = bias
        columns = len(self._weights)
        self.inputs: Sequence[Tensor] = (Tensor("input", "float64", (-1, columns)),)
        self.outputs: Sequence[Tensor] = (Tensor("label", "int64", (-1,)), Tensor("probability", "float64", (-1, 2)))

    def __repr__(self) -> str:
        return f"StubExecutor({self._weights.tolist()}, bias={self._bias})"

    def run(self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[Any]]:
        """See Executor.run."""
        if set(feeds) != {"input"}:
            raise ValueError(f"the model's one input is 'input', not {sorted(feeds)}")
        matrix = feeds["input"]
        if matrix.dtype != np.float64 or matrix.ndim != 2 or matrix.shape[1] != len(self._weights):
            raise ValueError(f"input is float64 [n, {len(self._weights)}], not {matrix.dtype} {list(matrix.shape)}")
        one = 1.0 / (1.0 + np.exp(-(matrix @ self._weights + self._bias)))
        made: dict[str, NDArray[Any]] = {
            "label": (one > 0.5).astype(np.int64),
            "probability": np.stack([1.0 - one, one], axis=1),
        }
        unknown = [name for name in outputs if name not in made]
        if unknown:
            raise ValueError(f"the model has no output {unknown[0]!r}")
        return [made[name] for name in outputs]

    def close(self) -> None:
        """Nothing to give back."""
