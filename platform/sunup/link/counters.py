"""Shared-memory counters: one small file per writer, mapped by the writer and by whoever reads it.

A segment describes itself, so a reader needs no schema: `b"SUNCTR1\\n" | uint32 header length | JSON header |
padding to 8 | float64 slots`. The header lists the series `[name, kind, labels, buckets]` in slot order: a counter or
gauge takes one slot; a histogram takes len(buckets) + 1 counts (the last is +Inf) and one sum.
One process writes a segment; adding to a slot is one aligned 8-byte store, so a reader never sees a torn value.
A worker that takes over a slot maps the same file, and its counters go on where the dead one left them.
"""

import json
import mmap
import os
import struct
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

_MAGIC = b"SUNCTR1\n"
_LENGTH = struct.Struct("<I")

STAGE_BUCKETS = (25e-6, 50e-6, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5)


class Series(NamedTuple):
    """One time series of a segment. `kind`: counter, gauge or histogram; `labels`: label name -> value."""

    name: str
    kind: str
    labels: dict[str, str]
    buckets: tuple[float, ...] = ()

    @property
    def slots(self) -> int:
        return len(self.buckets) + 2 if self.kind == "histogram" else 1


class Segment:
    """A mapped segment. `values` are its slots (float64)."""

    def __init__(self, path: Path, mapped: mmap.mmap, series: list[Series], start: int) -> None:
        self.path = path
        self.series = series
        self._map = mapped
        view = memoryview(mapped)
        self._first: dict[str, int] = {}
        slot = 0
        self._at: list[int] = []
        for one in series:
            self._at.append(slot)
            self._first[key(one.name, one.labels)] = slot
            slot += one.slots
        self.values = view[start : start + 8 * slot].cast("d")
        self._view = view

    @classmethod
    def create(cls, path: Path, series: list[Series]) -> Self:
        """Map `path`, made anew unless it already describes exactly these series (then its values go on)."""
        header = json.dumps({"series": [list(s) for s in series]}).encode()
        head = _MAGIC + _LENGTH.pack(len(header)) + header
        start = _up8(len(head))
        size = start + 8 * sum(s.slots for s in series)
        if not (path.exists() and path.stat().st_size == size and path.read_bytes()[: len(head)] == head):
            temporary = path.with_suffix(f".{os.getpid()}.new")
            temporary.unlink(missing_ok=True)
            with open(_descriptor(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
                file.write(head + bytes(size - len(head)))  # written, not sparse: a full disk fails here
            temporary.rename(path)
        return cls._map_file(path, series, start, write=True)

    @classmethod
    def open(cls, path: Path, *, write: bool = False) -> Self:
        """Map an existing segment, for reading or to `write`, too. Raises ValueError when damaged."""
        with open(_descriptor(path, os.O_RDONLY), "rb") as file:
            if file.read(8) != _MAGIC:
                raise ValueError(f"{path} is not a counter segment")
            (length,) = _LENGTH.unpack(file.read(4))
            header: dict[str, Any] = json.loads(file.read(length))
        series = [Series(n, k, labels, tuple(buckets)) for n, k, labels, buckets in header["series"]]
        return cls._map_file(path, series, _up8(12 + length), write=write)

    @classmethod
    def _map_file(cls, path: Path, series: list[Series], start: int, *, write: bool) -> Self:
        descriptor = _descriptor(path, os.O_RDWR if write else os.O_RDONLY)
        try:
            mapped = mmap.mmap(descriptor, 0, access=mmap.ACCESS_WRITE if write else mmap.ACCESS_READ)
        finally:
            os.close(descriptor)
        return cls(path, mapped, series, start)

    def slot(self, name: str, **labels: str) -> int:
        """The index in `values` of a series (of a histogram: of its first bucket)."""
        return self._first[key(name, labels)]

    def observe(self, slot: int, buckets: tuple[float, ...], value: float) -> None:
        """Add one observation to the histogram that starts at `slot`. About 0.3 microseconds."""
        self.values[slot + bisect_left(buckets, value)] += 1.0
        self.values[slot + len(buckets) + 1] += value

    def read(self, index: int) -> list[float]:
        """The slots of series number `index`."""
        first = self._at[index]
        return list(self.values[first : first + self.series[index].slots])

    def close(self) -> None:
        """Unmap. The file stays, so that counts survive the process."""
        self.values.release()
        self._view.release()
        self._map.close()


def counters_path(run: Path, function: str, slot: int) -> Path:
    """Where the worker in `slot` of a function keeps its counters; the next one in the slot goes on with them."""
    return run / "counters" / f"{function}.{slot}.seg"


def key(name: str, labels: dict[str, str]) -> str:
    """A series' identity within a segment."""
    return name + "".join(f"|{k}={labels[k]}" for k in sorted(labels))


def _descriptor(path: Path, flags: int) -> int:
    """Open a file of a folder in which another user may write: through no link, and never to wait for a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)


def _up8(size: int) -> int:
    return (size + 7) // 8 * 8


def stage_quantile(counts: Sequence[float], q: float) -> float | None:
    """A quantile in milliseconds from counts per STAGE_BUCKETS bucket, linear within its bucket; None without calls."""
    wanted = q * sum(counts)
    if not wanted:
        return None
    seen = 0.0
    for count, low, high in zip(counts, (0.0, *STAGE_BUCKETS), (*STAGE_BUCKETS, STAGE_BUCKETS[-1]), strict=True):
        if seen + count >= wanted:
            return float(round(1000 * (low + (high - low) * (wanted - seen) / count), 3))
        seen += count
    raise AssertionError("counts changed while they were read")
