"""What the protocols that send tables answer: `{"predictions": [...]}`, one element per record."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np

from sunup.types import Reply, ResponseField


class Predictions:
    """The answers of one function.

    A function with one response field answers that field's values, as TensorFlow Serving does for a model with one
    output. A function whose response nobody declared, of a classifier, answers its labels, as the model's own `predict`
    does behind MLflow's and KServe's servers. Any other one answers records: objects of its response fields.
    """

    def __init__(self, response: Sequence[ResponseField]) -> None:
        self._names = tuple(field.name for field in response)
        declared = any(field.column is not None or field.name != field.output for field in response)
        self._only: str | None = self._names[0] if len(self._names) == 1 else None
        if not declared and "label" in self._names:
            self._only = "label"
        self._to_json = msgspec.json.Encoder().encode

    def __repr__(self) -> str:
        return f"Predictions({self._only or ', '.join(self._names)})"

    def encode(self, reply: Reply) -> bytes:
        """The body. Beside the predictions it names the features that took their default, and those that were stale.

        Raises the first failed record's error, if any failed: these protocols have no errors per record.
        """
        if reply.failed:
            raise reply.failed[min(reply.failed)]
        said: dict[str, Any] = {"predictions": self._values(reply)}
        for note, names in (("defaulted", reply.defaulted), ("stale", reply.stale)):
            if names and any(names):
                said[note] = list(dict.fromkeys(chain.from_iterable(names)))
        return self._to_json(said)

    def _values(self, reply: Reply) -> list[Any]:
        if self._only is not None:
            return _values(reply.columns[self._only])
        columns = [_values(reply.columns[name]) for name in self._names]
        return [dict(zip(self._names, values, strict=True)) for values in zip(*columns, strict=True)]


def _values(column: Any) -> list[Any]:
    values: list[Any] = column.tolist() if isinstance(column, np.ndarray) else column
    return values
