"""Where rows wait for the recorder: files that a worker appends frames to, and how they are read again.

    .sunup/served/spool/<function>.<revision>.<digest>.<writer>
        .live          held locked by the writer for as long as it lives
        .<ms>.open     being written; <ms>: when it was begun, Unix time
        .<ms>.rows     whole: nothing is added any more

A segment is `SUNROWS1`, then frames: `uint32 length | uint32 CRC-32 | payload`, little endian. The first payload is the
Heading, each other one a MessagePack array of Noted. A writer that was killed leaves a frame cut off at the end at
worst, and a lock that nobody holds; its open segments are then as whole as they will be.
"""

import contextlib
import fcntl
import os
import re
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, Self

import msgspec

from sunup.limits import (
    SERVED_FRAME_BYTES_MAX,
    SERVED_LOOK_SECONDS,
    SERVED_SEGMENT_BYTES,
    SERVED_SEGMENT_SECONDS,
    SERVED_SPOOL_SIZES,
)
from sunup.served.schema import Heading, Noted

MAGIC: Final = b"SUNROWS1"
FRAME: Final = struct.Struct("<II")
OPEN: Final = ".open"
WHOLE: Final = ".rows"
LIVE: Final = ".live"

_NAME: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]*)\.(\d+)\.([0-9a-f]{64})\.([0-9a-f]+-\d+)\.(\d+)\.(?:open|rows)")


class Group(NamedTuple):
    """Whose rows: a bundle, served as one revision of a function."""

    function: str
    revision: int
    digest: str

    @classmethod
    def of(cls, live: Path) -> Self | None:
        """Whose writer holds this file; None for another one's name."""
        segment = Segment.named(live.with_suffix(f".0{OPEN}"))
        return None if segment is None else cls(*segment.group)

    def __str__(self) -> str:
        return f"{self.function}.{self.revision}.{self.digest}"


class Segment(NamedTuple):
    """A file of rows. `writer`: who writes it; `begun`: Unix milliseconds."""

    path: Path
    group: Group
    writer: str
    begun: int

    @classmethod
    def named(cls, path: Path) -> Self | None:
        """What a file's name says; None for one that is no segment."""
        match = _NAME.fullmatch(path.name)
        if match is None:
            return None
        return cls(path, Group(match[1], int(match[2]), match[3]), match[4], int(match[5]))

    @property
    def live(self) -> Path:
        """What its writer holds locked."""
        return self.path.with_name(f"{self.group}.{self.writer}{LIVE}")


class Damaged(Exception):
    """A segment that cannot be read on. What came before that is good."""


def framed(payload: bytes | bytearray) -> bytes:
    """One frame."""
    return FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def frames(data: bytes) -> Iterator[memoryview]:
    """The payloads in a segment's bytes, up to the end or to a frame cut off there. Raises Damaged for any other."""
    if data[: len(MAGIC)] != MAGIC[: len(data)]:
        raise Damaged("it does not begin as one")
    view, at = memoryview(data), len(MAGIC)
    while at + FRAME.size <= len(data):
        length, check = FRAME.unpack_from(data, at)
        start, at = at + FRAME.size, at + FRAME.size + length
        if length > SERVED_FRAME_BYTES_MAX:
            raise Damaged("a frame is longer than any that is written")
        if at > len(data):
            return  # the writer was killed in the middle of it
        if zlib.crc32(view[start:at]) != check:
            raise Damaged("a frame is not what was written")
        yield view[start:at]


class SegmentReader:
    """One segment that is not written any more. Iterating gives the calls of frame after frame."""

    def __init__(self, path: Path) -> None:
        # Another user may own the folder's files: through no link, and never to wait for a pipe.
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(file, "rb") as opened:
            self._frames = frames(opened.read())
        first = next(self._frames, None)
        try:
            self.heading = None if first is None else msgspec.msgpack.decode(first, type=Heading)
        except msgspec.DecodeError as error:
            raise Damaged(f"its heading cannot be read: {error}") from error

    def __iter__(self) -> Iterator[list[Noted]]:
        decode = msgspec.msgpack.Decoder(list[Noted]).decode
        for payload in self._frames:
            try:
                yield decode(payload)
            except msgspec.DecodeError as error:
                raise Damaged(f"a frame holds no rows: {error}") from error


class SpoolWriter:
    """The writing end of one process. Blocks, so it belongs to a thread of its own; begins with the first `write`.

    `seconds_max`: how long a segment is written to before `tick` seals it. `size`: bytes of spool that
    make one file of the log; the function's spool holds SERVED_SPOOL_SIZES times as much.
    """

    def __init__(self, folder: Path, group: Group, heading: Heading, *, size: int, rotate_s: float) -> None:
        self._folder = folder
        self._prefix = f"{group}.{time.time_ns():x}-{os.getpid()}"
        self._function = f"{group.function}."
        self.heading = heading
        self._head = MAGIC + framed(msgspec.msgpack.encode(heading))
        self._total_max = SERVED_SPOOL_SIZES * size
        self._bytes_max = min(SERVED_SEGMENT_BYTES, size // 4)
        self.seconds_max = min(SERVED_SEGMENT_SECONDS, rotate_s)
        self._live = -1
        self._file = -1
        self._path = Path()
        self._size = 0
        self._begun = 0.0
        self._named = 0
        self._total = 0  # bytes all writers of the function have spooled, as last seen
        self._look_at = 0.0

    def __repr__(self) -> str:
        return f"SpoolWriter({self._prefix}, {self._total} of {self._total_max} bytes)"

    @property
    def is_open(self) -> bool:
        """Whether a segment is being written. May be asked from any thread."""
        return self._file >= 0

    def write(self, payload: bytes | bytearray) -> bool:
        """Add a frame; False where there is no room for it: the bound is reached, or the disk is full or away."""
        frame = framed(payload)
        try:
            self._look()
            if self._total + len(frame) > self._total_max:
                return False
            if self._file < 0:
                self._begin()
            written = os.write(self._file, frame)
        except OSError:
            self._give_up()
            return False
        if written < len(frame):  # the disk is full
            self._give_up()
            return False
        self._size += written
        self._total += written
        if self._size >= self._bytes_max:
            self.seal()
        return True

    def tick(self) -> None:
        """Seal a segment that has been open for long. Asked for now and then, whether or not anything is written."""
        if self._file >= 0 and time.monotonic() - self._begun >= self.seconds_max:
            self.seal()

    def seal(self) -> None:
        """Add no more to the open segment: it is the recorder's from now on."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            with contextlib.suppress(OSError):  # its writer gone, it counts as whole all the same
                self._path.rename(self._path.with_suffix(WHOLE))

    def close(self) -> None:
        """The writer ends."""
        self.seal()
        if self._live >= 0:
            (self._folder / f"{self._prefix}{LIVE}").unlink(missing_ok=True)
            os.close(self._live)
            self._live = -1

    def _begin(self) -> None:
        if self._live < 0:
            self._live = _locked(self._folder / f"{self._prefix}{LIVE}")
        self._named = max(self._named + 1, time.time_ns() // 1_000_000)
        self._path = self._folder / f"{self._prefix}.{self._named}{OPEN}"
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._begun, self._size = time.monotonic(), 0
        if os.write(self._file, self._head) < len(self._head):
            raise OSError("no room for a segment's head")
        self._size = len(self._head)

    def _give_up(self) -> None:
        """After a write that failed: cut off what is not whole, and begin another segment next time."""
        if self._file < 0:
            return
        with contextlib.suppress(OSError):  # then the reader stops at it
            os.ftruncate(self._file, self._size)
        empty = self._size == 0
        self.seal()
        if empty:
            self._path.with_suffix(WHOLE).unlink(missing_ok=True)

    def _look(self) -> None:
        """How much the function has spooled, all its writers together."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + SERVED_LOOK_SECONDS
        self._total = 0
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.startswith(self._function):
                    with contextlib.suppress(FileNotFoundError):  # the recorder has just removed it
                        self._total += entry.stat(follow_symlinks=False).st_size


def lives(live: Path) -> bool:
    """Whether the writer that made this file is there. What a dead one left is removed."""
    try:
        file = os.open(live, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    live.unlink(missing_ok=True)
    return False


def _locked(path: Path) -> int:
    """A new file at `path` that is locked when it gets its name. Its descriptor."""
    unnamed = path.with_suffix(".new")
    file = os.open(unnamed, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        unnamed.rename(path)
    except OSError:
        os.close(file)
        raise
    return file
