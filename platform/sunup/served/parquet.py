"""Spooled rows as a Parquet file. The one place that writes with pyarrow; only the recorder imports it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet

from sunup.limits import SERVED_GROUP_ROWS
from sunup.served.schema import TIMESTAMP, Heading, Noted, table
from sunup.types import Field

_TYPES: Final[dict[str, pa.DataType]] = {
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "string": pa.string(),
    "bytes": pa.binary(),
    TIMESTAMP: pa.timestamp("us", tz="UTC"),
}
_MISFITS: Final = (pa.ArrowException, OverflowError, TypeError, ValueError)


def arrow_schema(heading: Heading) -> pa.Schema:
    """The file's schema: every column under its own name with its own type, lists as list<>."""
    return pa.schema([(field.name, arrow_type(field)) for field in heading.columns])


def arrow_type(field: Field) -> pa.DataType:
    """The Arrow type of a field: a list for each dimension of one record's value."""
    made = _TYPES[field.dtype.removesuffix("[]")]
    for _ in range(len(field.shape) or field.dtype.endswith("[]")):
        made = pa.list_(made)
    return made


class ParquetFile:
    """A file being written; whole when `close` returned. `rows`: in it; `lost`: rows that do not fit their columns'
    types (an integer beyond 64 bits), left out."""

    def __init__(self, path: Path, heading: Heading) -> None:
        self._heading = heading
        self._schema = arrow_schema(heading)
        self._writer = pyarrow.parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._calls: list[Noted] = []
        self._waiting = 0
        self.rows = 0
        self.lost = 0

    def __repr__(self) -> str:
        return f"ParquetFile({self._heading.function}/{self._heading.revision}, rows={self.rows})"

    def add(self, calls: Sequence[Noted]) -> None:
        """Write these calls, in row groups of about SERVED_GROUP_ROWS rows."""
        self._calls += calls
        self._waiting += sum(len(call.rows) for call in calls)
        if self._waiting >= SERVED_GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        """Write what is left, and the file's end. Not in it when an exception ended the writing before."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        columns = table(self._heading, self._calls) if self._waiting else []
        self._calls, self._waiting = [], 0
        if columns:
            self._write(columns)

    def _write(self, columns: list[list[Any]]) -> None:
        """As one row group; a row that does not fit is found by halves, and left out."""
        count = len(columns[0])
        try:
            arrays = [pa.array(values, type) for values, type in zip(columns, self._schema.types, strict=True)]
        except _MISFITS:
            if count == 1:
                self.lost += 1
                return
            half = count // 2
            self._write([values[:half] for values in columns])
            self._write([values[half:] for values in columns])
            return
        self._writer.write_table(pa.table(arrays, schema=self._schema))
        self.rows += count
