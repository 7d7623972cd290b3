"""Reading the served-feature log: Parquet files, batch by batch, of the columns asked for only.

A file that cannot be read, or is not of the log, is named in `skipped` with the reason, and the others are read.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sunup.limits import SERVED_READ_ROWS
from sunup.served.skew.profile import Column
from sunup.served.skew.totals import Batch

TIME: Final = "event_timestamp"
NOTED: Final = ("defaulted", "stale")
_BUFFER_BYTES: Final = 1 << 16  # read of a column at a time; without it a whole row group's column is in memory
_ERRORS: Final = (pa.ArrowException, OSError, ValueError)


class Skipped(NamedTuple):
    """A file that was not read, or not to its end. `rows`: of it that were counted before."""

    path: Path
    reason: str
    rows: int


class Log:
    """The files of one revision in `folder`. `columns`: those to read; `since`: Unix seconds, earlier rows are left
    out."""

    def __init__(self, folder: Path, columns: Sequence[Column], *, since: float = float("-inf")) -> None:
        self._columns = columns
        self._since = since
        self.files = sorted(folder.glob("*.parquet"))
        self.skipped: list[Skipped] = []

    def __repr__(self) -> str:
        return f"<Log of {len(self.files)} files>"

    def batches(self) -> Iterator[Batch]:
        """What the files hold, at most SERVED_READ_ROWS rows at a time, in order of their names."""
        for path in self.files:
            rows = 0
            try:
                for batch in self._read(path):
                    rows += batch.rows
                    yield batch
            except _ERRORS as error:
                self.skipped.append(Skipped(path, " ".join(str(error).split())[:200], rows))

    def _read(self, path: Path) -> Iterator[Batch]:
        with pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
            there = set(file.schema_arrow.names)
            if TIME not in there:
                raise ValueError(f"it has no column {TIME}, so it is not of the served-feature log")
            wanted = [column for column in self._columns if column.name in there]
            names = [TIME, *(name for name in NOTED if name in there), *(column.name for column in wanted)]
            groups = [at for at in range(file.num_row_groups) if not self._is_before(file, at)]
            for part in file.iter_batches(SERVED_READ_ROWS, row_groups=groups, columns=names) if groups else ():
                batch = _batch(part, wanted, self._since)
                if batch.rows:
                    yield batch

    def _is_before(self, file: Any, group: int) -> bool:
        """Whether a row group ends before the time asked for, as far as its statistics say."""
        if np.isneginf(self._since):
            return False
        metadata = file.metadata.row_group(group)
        found = (metadata.column(at) for at in range(metadata.num_columns))
        statistics = next((column.statistics for column in found if column.path_in_schema == TIME), None)
        if statistics is None or not statistics.has_min_max:
            return False
        return bool(statistics.max.timestamp() < self._since)


def _batch(part: Any, wanted: Sequence[Column], since: float) -> Batch:
    seconds = part.column(TIME).cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy(zero_copy_only=False) / 1e6
    if len(seconds) and seconds.min() < since:
        part, seconds = part.filter(pa.array(seconds >= since)), seconds[seconds >= since]
    values = {}
    for column in wanted:
        if (read := _values(part.column(column.name), column)) is not None:
            values[column.name] = read
    noted = [_times_named(part.column(name)) if name in part.schema.names else {} for name in NOTED]
    span = (float(seconds.min()), float(seconds.max())) if len(seconds) else (float("inf"), float("-inf"))
    return Batch(len(seconds), values, noted[0], noted[1], span)


def _values(array: Any, column: Column) -> NDArray[Any] | None:
    """The values as the profile has them; None where the log has another type."""
    text = pa.types.is_string(array.type) or pa.types.is_large_string(array.type)
    if text or column.dtype == "string":
        return array.to_numpy(zero_copy_only=False) if text and column.dtype == "string" else None
    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_boolean(array.type)):
        return None
    numbers: NDArray[Any] = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return numbers


def _times_named(lists: Any) -> dict[str, int]:
    """In how many rows each column is named by the list column `lists`."""
    counted: Iterable[dict[str, Any]] = pc.value_counts(pc.list_flatten(lists)).to_pylist()
    return {str(each["values"]): int(each["counts"]) for each in counted}
