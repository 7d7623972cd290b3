"""Rows to the arrays a model takes, compiled once per function."""

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sunup.errors import BundleDamaged
from sunup.types import Field, Row, Tensor, numpy_dtype

Gather: TypeAlias = Callable[[Row], Any]


class Part(NamedTuple):
    """One model input: `gather` picks its values out of a row; None takes the row whole, as it is."""

    input: str
    dtype: np.dtype[Any]
    gather: Gather | None


class Assembly:
    """Makes the feeds of a run. A row here is a request row with its feature values behind it.

    `inputs`: the model's inputs with the columns that fill them; `columns`: the fields of a row, request then features
    (a name in both is the caller's). Raises BundleDamaged when an input names a column that no row has.
    """

    def __init__(self, inputs: Sequence[Tensor], columns: Sequence[Field]) -> None:
        self._parts = tuple(_part(tensor, columns) for tensor in inputs)

    def __repr__(self) -> str:
        return f"Assembly({', '.join(part.input for part in self._parts)})"

    def feeds(self, rows: Sequence[Row]) -> dict[str, NDArray[Any]]:
        """One array per model input; the first dimension is `rows`, at least one of them.

        Missing floats (None or NaN) are NaN. Raises ValueError or TypeError for values their dtype cannot hold, and for
        lists of different lengths. About 1 us for one row of thirty columns.
        """
        return {
            part.input: np.array([part.gather(row) for row in rows] if part.gather else rows, dtype=part.dtype)
            for part in self._parts
        }


def _part(tensor: Tensor, columns: Sequence[Field]) -> Part:
    places: dict[str, int] = {}
    for place, field in enumerate(columns):
        places.setdefault(field.name, place)
    absent = [name for name in tensor.columns if name not in places]
    if absent or not tensor.columns:
        what = f"column {absent[0]!r}, which is neither a request field nor a feature" if absent else "no column"
        raise BundleDamaged(f"Model input {tensor.name!r} takes {what}. Deploy the model again to rebuild its bundle.")
    at = tuple(places[name] for name in tensor.columns)
    # One column whose value is all of a row's share: a number, a list or an image.
    whole = len(tensor.shape) != 2 or columns[at[0]].dtype.endswith("[]")
    if not whole and at == tuple(range(len(columns))):
        return Part(tensor.name, numpy_dtype(tensor.dtype), None)
    return Part(tensor.name, numpy_dtype(tensor.dtype), itemgetter(*at) if whole or len(at) > 1 else _alone(at[0]))


def _alone(place: int) -> Gather:
    """One column of a matrix: a tuple of one, where itemgetter would give the bare value."""
    return lambda row: (row[place],)
