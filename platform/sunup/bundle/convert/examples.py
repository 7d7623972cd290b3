"""The real rows a model comes with (its input example, its training sample, rows collected elsewhere), and how rows are
fed to a graph."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import Model
from numpy.typing import NDArray

from sunup.bundle.parity import Arrays
from sunup.errors import ConversionRefused
from sunup.limits import PARITY_ROWS_MAX, TRAINING_ROWS_MAX
from sunup.served.skew.profile import VERSION, Profile, measure
from sunup.settings import TRAINING_SAMPLE
from sunup.types import PIXELS, Field, Tensor


def real_rows(folder: Path, columns: Sequence[Field], more: str) -> dict[str, NDArray[Any]]:
    """The model's input example and the rows of the file `more` (Parquet or .npz of columns; "" for none), by column.

    Empty arrays when there are none. Rows beyond half of what a proof compares are left out, evenly.
    """
    tables = [_table(Model.load(str(folder)).load_input_example(str(folder)), columns)]
    if more.endswith(".npz"):
        with np.load(more, allow_pickle=False) as arrays:
            tables.append(pd.DataFrame({name: arrays[name] for name in arrays.files}))
    elif more:
        tables.append(pd.read_parquet(more))
    names = [column.name for column in columns]
    for table in tables:
        if absent := [name for name in names if len(table) and name not in table.columns]:
            raise ConversionRefused(f"The model's example rows lack the columns {', '.join(absent)} of its signature.")
    whole = pd.concat([table[names] for table in tables if len(table)] or [pd.DataFrame(columns=names)])
    keep = np.linspace(0, len(whole) - 1, min(len(whole), PARITY_ROWS_MAX // 2)).astype(int)
    return {c.name: _values(whole[c.name].iloc[keep], c.dtype) for c in columns}


def training_profile(folder: Path, columns: Sequence[Field]) -> Profile:
    """The profile of the rows the model was trained on: of training.parquet beside the model if it has one, else of its
    input example. What cannot be read is the profile's `problem`, and no reason to refuse the model."""
    sampled, path = 1, folder / TRAINING_SAMPLE
    source = TRAINING_SAMPLE if path.exists() else "input example"
    try:
        if path.exists():
            table, sampled = _sample(path, [column.name for column in columns])
        else:
            table = _table(Model.load(str(folder)).load_input_example(str(folder)), columns)
        absent = [column.name for column in columns if column.name not in table.columns]
        if not len(table):
            problem = f"the model came with no rows: neither {TRAINING_SAMPLE} nor an input example"
        elif absent:
            problem = f"{source} lacks the columns {', '.join(absent)} of the model's signature"
        else:
            rows = {column.name: _values(table[column.name], column.dtype) for column in columns}
            return measure(columns, rows, source=source, sampled=sampled)
    except (ImportError, OSError, TypeError, ValueError) as error:  # pyarrow's own errors are ValueErrors and OSErrors
        problem = f"{source} cannot be read: {' '.join(str(error).split())[:200]}"
    return Profile(VERSION, 0, source, problem=problem)


def _sample(path: Path, names: Sequence[str]) -> tuple[Any, int]:
    """At most TRAINING_ROWS_MAX rows of the sample, evenly, and every how many-th that is. Columns it lacks are left
    out."""
    import pyarrow as pa  # most models come without a sample, and some environments of models without pyarrow
    import pyarrow.parquet as pq  # as above

    with pq.ParquetFile(path) as file:
        step = max(1, -(-file.metadata.num_rows // TRAINING_ROWS_MAX))
        there = [name for name in names if name in file.schema_arrow.names]
        parts, at = [], 0
        for part in file.iter_batches(columns=there):
            parts.append(part.take(pa.array(range(-at % step, len(part), step), pa.int64())))
            at += len(part)
    return (pa.Table.from_batches(parts).to_pandas() if parts else pd.DataFrame(columns=there)), step


def _table(example: Any, columns: Sequence[Field]) -> Any:
    if isinstance(example, np.ndarray) and example.ndim == 2 and example.shape[1] == len(columns):
        return pd.DataFrame(example, columns=[column.name for column in columns])
    return example if isinstance(example, pd.DataFrame) else pd.DataFrame()


def _values(series: Any, dtype: str) -> NDArray[Any]:
    # Numbers travel as float64, as requests bring them; `answer` makes them what the signature says.
    if dtype == "string":
        texts: NDArray[Any] = series.astype(object).to_numpy()
        return texts
    numbers: NDArray[Any] = series.to_numpy(np.float64, na_value=np.nan)
    return numbers


def feeds(inputs: Sequence[Tensor], rows: Arrays) -> dict[str, NDArray[Any]]:
    """A graph's inputs from columns of values: a matrix of all, [n, 1] or [n] per column, images as they are."""
    arrays = {}
    for tensor in inputs:
        dtype: Any = object if tensor.dtype == "string" else tensor.dtype
        if tensor.dtype == PIXELS:
            arrays[tensor.name] = rows[tensor.columns[0]]
            continue
        with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite
            matrix = np.column_stack([rows[name] for name in tensor.columns]).astype(dtype)
        arrays[tensor.name] = matrix[:, 0] if len(tensor.shape) == 1 else matrix
    return arrays
