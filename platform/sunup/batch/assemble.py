"""Request rows and their features to rows, and rows to the arrays a model takes, compiled once per function."""

import logging
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sunup.errors import BundleDamaged, CallError, FeaturesFailed
from sunup.types import Call, Features, Field, Row, Tensor, numpy_dtype

_LOG: Final = logging.getLogger(__name__)

Gather: TypeAlias = Callable[[Row], Any]


class Ready(NamedTuple):
    """What goes into the model run, and what already does not.

    `rows`: request values with feature values behind them; `positions[i]` is the caller's index of row i; `failed` maps
    the caller's index of every other record to its error. `defaulted`, `stale` and `ages` (Features.row_ages) go with
    `rows`, or are None.
    """

    rows: Sequence[Row]
    positions: Sequence[int]
    failed: dict[int, CallError]
    defaulted: Sequence[tuple[str, ...]] | None
    stale: Sequence[tuple[str, ...]] | None
    ages: Sequence[tuple[float | None, ...]] | None = None


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


def prepare(call: Call, found: Features | None) -> Ready:
    """Join request rows with their features. Raises the error of a call's only record."""
    if not call.failed and (found is None or not found.failed):
        if found is None:
            return Ready(call.rows, range(call.count), {}, None, None)
        rows = [row + values for row, values in zip(call.rows, found.values, strict=True)]
        return Ready(rows, range(call.count), {}, found.defaulted, found.stale, found.row_ages)
    return _prepare_some(call, found or Features([()] * len(call.rows)))


def _prepare_some(call: Call, found: Features) -> Ready:
    """The same when some records have failed, at decoding or at the lookup: the others go on without them."""
    positions = [index for index in range(call.count) if index not in call.failed]
    failed = dict(call.failed) | {positions[row]: error for row, error in found.failed.items()}
    log_causes(found.failed, call.id)
    if call.single:
        raise failed[0]
    kept = [row for row in range(len(call.rows)) if row not in found.failed]
    return Ready(
        rows=[call.rows[row] + found.values[row] for row in kept],
        positions=[positions[row] for row in kept],
        failed=failed,
        defaulted=[found.defaulted[row] for row in kept] if found.defaulted is not None else None,
        stale=[found.stale[row] for row in kept] if found.stale is not None else None,
        ages=[found.row_ages[row] for row in kept] if found.row_ages is not None else None,
    )


def log_causes(failed: Mapping[int, CallError], call: str) -> None:
    """Log why on-demand feature views failed, once per view and reason, under the id of the call: callers are not
    told."""
    told: set[str] = set()
    for error in failed.values():
        cause = error.__cause__
        if isinstance(error, FeaturesFailed) and cause is not None and (key := f"{error.view} {cause!r}") not in told:
            told.add(key)
            _LOG.error("on-demand feature view %s failed", error.view, exc_info=cause, extra={"id": call})


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
