"""From the spool to files: which rows are due, and how they get into a file exactly once whatever dies in between.

    1. segments -> <folder>/.<name>.parquet.new, flushed
    2. .sunup/served/<group>.<ms>.moving says which file and which segments; flushed
    3. the file gets its name, flushed
    4. the segments are removed, then what 2 wrote

Whoever finds a `.moving` goes on with 3, whoever finds a `.new` without one begins again. A file is due when its oldest
rows are `rotate_s` old, when they take `size` bytes in the spool, or when none of the group's writers lives any more:
what was served before a function was removed, replaced or scaled to zero is in a file at once.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import msgspec

from sunup.served.schema import Heading, Noted
from sunup.served.spool import LIVE, OPEN, Damaged, Group, Segment, SegmentReader, lives

MOVING: Final = ".moving"


class Terms(NamedTuple):
    """What a bundle declares. `folder`: of the whole log; `rotate_s`: seconds; `size`: bytes, as they are spooled."""

    folder: Path
    rotate_s: float
    size: int


class File(Protocol):
    """What rows are written to: parquet.ParquetFile."""

    rows: int
    lost: int

    def add(self, calls: Sequence[Noted]) -> None: ...
    def close(self) -> None: ...


class Moving(msgspec.Struct, frozen=True):
    """A file that is about to get its name, and the segments that are in it (names in the spool)."""

    new: str
    file: str
    segments: list[str]


class Moved(NamedTuple):
    """A file that was written, of so many segments. `lost`: rows, and `damaged`: why segments could not be read to
    their end."""

    path: Path
    rows: int
    lost: int
    damaged: Sequence[str]
    segments: int


class Shelf:
    """The spool of one project, for one process. `notes`: a folder of its own; `spool` may be another user's, too.
    `terms`: what the bundle of a group declares, None where there is no such bundle; `make`: begins a file."""

    def __init__(
        self, notes: Path, spool: Path, *, terms: Callable[[Group], Terms | None], make: Callable[[Path, Heading], File]
    ) -> None:
        self._notes = notes
        self._spool = spool
        self._terms = terms
        self._make = make

    def __repr__(self) -> str:
        return f"Shelf({self._spool})"

    def recover(self) -> None:
        """Finish what another process left half done. Once, before anything is moved."""
        for path in sorted(self._notes.glob(f"*{MOVING}")):
            self._finish(path, msgspec.json.decode(path.read_bytes(), type=Moving))

    def empty(self) -> bool:
        """Whether there is nothing to do, now or soon: no rows, and nobody who writes some."""
        with os.scandir(self._spool) as entries:
            return next(entries, None) is None

    def move(self, wall: float, *, everything: bool = False) -> Iterator[Moved]:
        """Write every file that is due at `wall` (seconds since the epoch); `everything`: whatever is whole.

        Raises OSError (the disk is full): what was not moved is still spooled.
        """
        groups, living = self._segments()
        for group, segments in sorted(groups.items()):
            terms = self._terms(group)
            while terms is not None and segments:
                take = _first(segments, terms.size)
                old = wall - segments[0].begun / 1000 >= terms.rotate_s
                full = sum(map(_bytes, take)) >= terms.size
                if not (everything or old or full or group not in living):
                    break
                moved = self._move(group, take, terms)
                del segments[: moved.segments]
                if moved.rows or moved.lost or moved.damaged:
                    yield moved

    def _segments(self) -> tuple[dict[Group, list[Segment]], set[Group]]:
        """Whole segments by group, the oldest first; and the groups that somebody writes to."""
        # The files first, then the locks: a writer has its lock before its first segment, and has renamed its last one
        # before it lets go.
        paths = sorted(self._spool.iterdir())
        living = {path: lives(path) for path in paths if path.suffix == LIVE}
        groups: dict[Group, list[Segment]] = {}
        for path in paths:
            segment = Segment.named(path)
            if segment is None or not _is_file(path):
                continue
            if path.suffix == OPEN:
                if segment.live not in living:
                    living[segment.live] = lives(segment.live)
                if living[segment.live] or not _is_file(path):
                    continue
            groups.setdefault(segment.group, []).append(segment)
        alive = {group for path, lived in living.items() if lived and (group := Group.of(path)) is not None}
        return {group: sorted(found, key=lambda one: (one.begun, one.writer)) for group, found in groups.items()}, alive

    def _move(self, group: Group, segments: Sequence[Segment], terms: Terms) -> Moved:
        folder = terms.folder / group.function / str(group.revision)
        folder.mkdir(parents=True, exist_ok=True)
        target = _free(folder, segments[0].begun / 1000)
        new = folder / f".{target.name}.new"
        new.unlink(missing_ok=True)
        try:
            moved = self._write(new, target, segments)
        except BaseException:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
            raise
        moving = Moving(
            str(new), str(target) if moved.rows else "", [one.path.name for one in segments[: moved.segments]]
        )
        note = self._notes / f"{group}.{segments[0].begun}{MOVING}"
        _write_flushed(note, msgspec.json.encode(moving))
        self._finish(note, moving)
        return moved

    def _write(self, new: Path, target: Path, segments: Sequence[Segment]) -> Moved:
        """One file of all their rows, up to one with other columns (another Sunup wrote it); of no rows, none."""
        file: File | None = None
        heading: Heading | None = None
        damaged = []
        done = 0
        for segment in segments:
            try:
                reader = SegmentReader(segment.path)
                if file is None and reader.heading is not None:
                    heading = reader.heading
                    file = self._make(new, heading)
                if reader.heading not in (None, heading):
                    break
                for calls in reader:
                    file.add(calls)  # type: ignore[union-attr]  # what has calls has a heading
            except Damaged as error:
                damaged.append(f"{segment.path.name}: {error}")
            done += 1
        if file is None:
            return Moved(target, 0, 0, damaged, done)
        file.close()
        new.chmod(0o600)
        _flush(new)
        return Moved(target, file.rows, file.lost, damaged, done)

    def _finish(self, note: Path, moving: Moving) -> None:
        """Steps 3 and 4. Everything named may have been done before."""
        new = Path(moving.new)
        if new.exists():
            if moving.file:
                new.rename(moving.file)
            else:
                new.unlink()
            _flush(new.parent)
        for name in moving.segments:
            (self._spool / name).unlink(missing_ok=True)
        note.unlink(missing_ok=True)


def _first(segments: Sequence[Segment], size: int) -> list[Segment]:
    """The oldest of them, of one file's size together."""
    take: list[Segment] = []
    total = 0
    for segment in segments:
        take.append(segment)
        total += _bytes(segment)
        if total >= size:
            break
    return take


def _is_file(path: Path) -> bool:
    """Whether it is there and is one: another user may put anything into the spool."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _bytes(segment: Segment) -> int:
    return segment.path.stat().st_size


def _free(folder: Path, begun: float) -> Path:
    """The first name of a file with rows from `begun` on (Unix seconds) that is not taken."""
    stamp = datetime.fromtimestamp(begun, UTC).strftime("%Y%m%dT%H%M%SZ")
    number = 1
    while (path := folder / f"{stamp}-{number}.parquet").exists():
        number += 1
    return path


def _write_flushed(path: Path, data: bytes) -> None:
    """A file that is there whole or not at all, also after a power cut."""
    new = path.with_suffix(".part")
    new.unlink(missing_ok=True)
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(file, "wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(file)
    new.rename(path)
    _flush(path.parent)


def _flush(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
