"""What a worker's predecessors died with: a record that ends the process that scores it must not be read for ever.

A worker marks its slot when it begins, and removes the mark when it ends in order. One that finds the mark notes from
then on, before each batch, where it begins; one that finds that its predecessor died with a batch that begins here
scores it record by record, each noted before; and a record that workers died with alone is not scored any more.

The mark is a small file that is written over, never synced: it outlives the process, and need not outlive the machine.
A worker whose predecessor ended in order writes nothing after its birth.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from sunup.limits import STREAM_DEATHS_MAX
from sunup.stream.broker import Record

_LOG: Final = logging.getLogger(__name__)


class _Mark(msgspec.Struct):
    """`hand`: partition -> where in it the batch begins that is being scored; `alone`: partition and offset of the
    record that is, by itself. `stuck`: partition -> where the batch began that the last worker died with; `deaths`:
    partition -> offset -> how many died with that record alone. All of one revision: the next may well be able to
    score what killed this one."""

    revision: int
    hand: dict[int, int] = {}
    alone: tuple[int, int] | None = None
    stuck: dict[int, int] = {}
    deaths: dict[int, dict[int, int]] = {}


class Deaths:
    """The mark of one slot. Constructing it touches nothing. `path`: no other living process has it."""

    def __init__(self, path: Path, revision: int) -> None:
        self._path = path
        self._mark = _Mark(revision)
        self._file = -1
        self._length = 0  # bytes

    def __repr__(self) -> str:
        return f"Deaths({self._path.name}, {self._mark!r})"

    def begin(self) -> bool:
        """Mark the slot. Whether the worker before died: only then the methods below are of use."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        found = os.read(self._file, os.fstat(self._file).st_size)
        self._length = len(found)
        if found:
            self._learn(found)
        self._write()
        return bool(found)

    def take(self, records: Sequence[Record]) -> bool:
        """Note a batch. Whether a worker died with one that began here, so that its records are to go one by one."""
        mark = self._mark
        mark.hand = {record.partition: record.offset for record in reversed(records)}
        self._write()
        return any(mark.stuck.get(partition) == offset for partition, offset in mark.hand.items())

    def alone(self, record: Record | None) -> int:
        """Note a record that is scored by itself, or that none is any more. How many workers died with it alone: from
        STREAM_DEATHS_MAX on it must not be scored, and is not noted."""
        mark = self._mark
        died = 0 if record is None else mark.deaths.get(record.partition, {}).get(record.offset, 0)
        mark.alone = None if record is None or died >= STREAM_DEATHS_MAX else (record.partition, record.offset)
        self._write()
        return died

    def committed(self) -> None:
        """What was taken is done with."""
        mark = self._mark
        mark.stuck = {number: at for number, at in mark.stuck.items() if number not in mark.hand}
        mark.deaths = {number: died for number, died in mark.deaths.items() if number not in mark.hand}
        mark.hand = {}
        self._write()

    def end(self) -> None:
        """Remove the mark: the worker ends in order."""
        self._path.unlink(missing_ok=True)
        os.close(self._file)

    def _learn(self, found: bytes) -> None:
        try:
            left = msgspec.json.decode(found, type=_Mark)
        except msgspec.DecodeError:  # half written: all it says is that a worker died
            return
        if left.revision != self._mark.revision:
            return
        if left.alone is not None:
            partition, offset = left.alone
            died = left.deaths.setdefault(partition, {})
            died[offset] = died.get(offset, 0) + 1
            _LOG.warning("a worker died while it scored the record at %d of partition %d alone", offset, partition)
        self._mark.stuck, self._mark.deaths = left.stuck | left.hand, left.deaths

    def _write(self) -> None:
        said = msgspec.json.encode(self._mark).ljust(self._length)
        self._length = len(said)
        os.pwrite(self._file, said, 0)
