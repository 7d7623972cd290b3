"""A layer: a tar file, compressed, whose bytes follow from names, modes and contents alone.

Owners are root, times are 0, names are sorted, modes are 0755 or 0644 unless an entry says otherwise. The compressed
bytes depend on the zlib that compresses, the digest of the tar file (`diff_id`) does not."""

import gzip
import hashlib
import io
import os
import stat
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final, NamedTuple, cast

from sunup.engine.kubernetes.image.model import LAYER_TYPE, Descriptor, Layer, Stored
from sunup.limits import IMAGE_GZIP_LEVEL

_FOLDER: Final = 0o755
_STICKY: Final = 0o1777


class Entry(NamedTuple):
    """One name in a layer. `name`: relative, "/" between; `source`: a file, text of a link as `link`, bytes as `data`;
    a folder has none of them."""

    name: str
    mode: int = _FOLDER
    source: Path | None = None
    data: bytes | None = None
    link: str | None = None


def folder(name: str, *, anyone: bool = False) -> Entry:
    """An empty folder; `anyone`: may write in it, as in /tmp."""
    return Entry(name, _STICKY if anyone else _FOLDER)


def tree(root: Path, below: str = "") -> Iterator[Entry]:
    """Everything in a folder, as it will lie below `below`. Hard links become files; sockets and devices are left
    out."""
    for path in sorted(root.rglob("*")):
        name = str(PurePosixPath(below, path.relative_to(root).as_posix()))
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            yield Entry(name, 0o777, link=os.readlink(path))
        elif stat.S_ISDIR(status.st_mode):
            yield Entry(name)
        elif stat.S_ISREG(status.st_mode):
            yield Entry(name, 0o755 if status.st_mode & stat.S_IXUSR else 0o644, path)


def write_layer(entries: Iterable[Entry], path: Path) -> Layer:
    """Write a layer to `path`. Folders that entries need and nobody names are made. Of one name the last entry
    holds."""
    with path.open("wb") as file:
        packed = _Hashed(file)
        # No name and no time in gzip's head.
        with gzip.GzipFile("", "wb", IMAGE_GZIP_LEVEL, cast(Any, packed), mtime=0) as compressed:
            plain = _Hashed(cast(BinaryIO, compressed))
            _write_tar(entries, plain)
        file.flush()
        os.fsync(file.fileno())
    found = Descriptor(LAYER_TYPE, packed.digest, packed.size)
    return Layer(Stored(found, path), plain.digest)


def read_layer(path: Path) -> Layer:
    """The layer that `write_layer` wrote to `path`."""
    with path.open("rb") as file:
        packed = hashlib.file_digest(file, "sha256").hexdigest()
    with gzip.open(path, "rb") as plain:
        diff_id = hashlib.file_digest(cast(BinaryIO, plain), "sha256").hexdigest()  # type: ignore[arg-type]
    found = Descriptor(LAYER_TYPE, f"sha256:{packed}", path.stat().st_size)
    return Layer(Stored(found, path), f"sha256:{diff_id}")


def contents(layer: BinaryIO) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """What is in a layer, each file with its bytes, as whoever unpacks it finds it."""
    with tarfile.open(fileobj=layer, mode="r|gz") as archive:
        for found in archive:
            file = archive.extractfile(found) if found.isreg() else None
            yield found, file.read() if file is not None else b""


def compressor() -> str:
    """What the compressed bytes depend on beside the entries."""
    return f"zlib {zlib.ZLIB_RUNTIME_VERSION} level {IMAGE_GZIP_LEVEL}"


def _write_tar(entries: Iterable[Entry], into: "_Hashed") -> None:
    named = {entry.name: entry for entry in entries}
    for name in list(named):
        for above in list(PurePosixPath(name).parents)[:-1]:
            named.setdefault(str(above), folder(str(above)))
    with tarfile.open(fileobj=cast(Any, into), mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as archive:
        for name in sorted(named, key=lambda name: name.split("/")):
            _add(archive, named[name])


def _add(archive: tarfile.TarFile, entry: Entry) -> None:
    member = tarfile.TarInfo(entry.name)
    member.mode = entry.mode
    if entry.link is not None:
        member.type, member.linkname = tarfile.SYMTYPE, entry.link
        archive.addfile(member)
    elif entry.source is not None:
        member.size = entry.source.stat().st_size
        with entry.source.open("rb") as file:
            archive.addfile(member, file)
    elif entry.data is not None:
        member.size = len(entry.data)
        archive.addfile(member, io.BytesIO(entry.data))
    else:
        member.type = tarfile.DIRTYPE
        archive.addfile(member)


class _Hashed:
    """A file to write to that knows the digest and number of the bytes it got."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._sha256.update(data)
        self.size += len(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        self._file.flush()

    @property
    def digest(self) -> str:
        return f"sha256:{self._sha256.hexdigest()}"
