"""A model run with a function's own code around it: rows -> columns -> preprocess -> model -> postprocess -> outputs.

Only functions with a handler.py go this way, always on the batcher's thread: nobody knows what that code costs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sunup.batch.respond import Response
from sunup.types import Field, ResponseField, Row, Tensor, numpy_dtype

Columns = dict[str, NDArray[Any]]
Run = Callable[[Mapping[str, NDArray[Any]], Sequence[str]], list[NDArray[Any]]]


class Hooks(Protocol):
    """The code around a model. `postprocess` is called only for functions that have it."""

    def preprocess(self, columns: Columns, count: int) -> Columns:
        """Columns with what was made of them."""
        ...

    def postprocess(self, columns: Columns, outputs: Columns, count: int) -> Columns:
        """Response columns."""
        ...


class Handled:
    """Runs rows [request values, feature values] of `fields` through hooks and model.

    `outputs`: what the model's outputs are called before postprocess sees them; `given`: the columns postprocess gives,
    None without one. A call returns arrays in the order a Response over the same fields asks for.
    """

    def __init__(
        self,
        hooks: Hooks,
        run: Run,
        *,
        inputs: Sequence[Tensor],
        fields: Sequence[Field],
        outputs: Sequence[ResponseField],
        given: Sequence[ResponseField] | None,
    ) -> None:
        self._hooks, self._run, self._inputs = hooks, run, inputs
        self._fields = tuple(fields)
        self._outputs = Response(outputs)
        self._given = given

    def __repr__(self) -> str:
        return f"Handled({self._hooks!r})"

    def __call__(self, rows: Sequence[Row]) -> list[NDArray[Any]]:
        """The outputs of at least one row. Raises what the hooks and the model raise, ValueError for what they left
        out."""
        count = len(rows)
        columns = self._hooks.preprocess(columns_of(rows, self._fields), count)
        outputs = self._run(feeds_of(columns, self._inputs), self._outputs.outputs)
        if self._given is None:
            return outputs
        named = {name: _array(values) for name, values in self._outputs.columns(outputs).items()}
        answered = self._hooks.postprocess(columns, named, count)
        return [_as(field, answered) for field in self._given]


def columns_of(rows: Sequence[Row], fields: Sequence[Field]) -> Columns:
    """Rows as columns [n] of their fields' dtypes; text, bytes and lists as objects, missing numbers NaN."""
    columns: Columns = {}
    for field, values in zip(fields, zip(*rows, strict=True), strict=False):
        if field.dtype.endswith("[]"):
            column = np.empty(len(values), dtype=object)
            column[:] = values
        else:
            column = np.array(values, dtype=numpy_dtype(field.dtype))
        columns[field.name] = column
    return columns


def feeds_of(columns: Columns, inputs: Sequence[Tensor]) -> Columns:
    """The model's inputs from columns. Raises ValueError naming a column that nothing gives."""
    feeds: Columns = {}
    for tensor in inputs:
        absent = [name for name in tensor.columns if name not in columns]
        if absent:
            raise ValueError(f"the model takes {absent[0]!r}, which neither the request nor preprocess gives")
        whole = len(tensor.shape) == 1
        made = columns[tensor.columns[0]] if whole else np.column_stack([columns[name] for name in tensor.columns])
        feeds[tensor.name] = made.astype(numpy_dtype(tensor.dtype))
    return feeds


def _array(values: Any) -> NDArray[Any]:
    return values if isinstance(values, np.ndarray) else np.array(values, dtype=object)


def _as(field: ResponseField, answered: Columns) -> NDArray[Any]:
    """A response column in the dtype it had when the bundle was made."""
    if field.name not in answered:
        raise ValueError(f"postprocess gave no column {field.name!r}")
    column = answered[field.name]
    if column.shape[1:] != field.shape:
        raise ValueError(f"postprocess gave {field.name!r} with shape {list(column.shape)}")
    return column.astype(numpy_dtype(field.dtype), casting="same_kind", copy=False)
