"""The content-addressed folder of bundles. A bundle's name is the SHA-256 of its manifest, which holds the SHA-256 of
every other file; it is written elsewhere on the same file system, flushed and renamed: it exists whole or not at all.

    bundles/<digest>/         the bundles
    bundles/.checked/<digest> size, mtime and inode of every file after the last full check on this machine
    bundles/.index/<key>      digest of the bundle last made from these inputs
    bundles/.arranged/<digest>/<machine>/ the model as one machine likes it best (execute/arranged.py)
    bundles/.staging/<name>/  bundles being written; left-overs of killed processes are swept
"""

import contextlib
import fcntl
import hashlib
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from sunup.bundle.manifest import FORMAT, Manifest
from sunup.errors import BundleDamaged, UsageError

MANIFEST: Final = "manifest.json"
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")

Stamps = dict[str, tuple[int, int, int]]


class Store:
    """Bundles under one folder, made when first needed."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __repr__(self) -> str:
        return f"Store({str(self._root)!r})"

    @contextlib.contextmanager
    def stage(self) -> Iterator[Path]:
        """An empty folder to write a bundle in. Gone at the end, unless `add` took it."""
        staging = self._root / ".staging"
        staging.mkdir(parents=True, exist_ok=True)
        with _locked(staging):
            _sweep(staging)
            folder = Path(tempfile.mkdtemp(dir=staging))
            # Held while this process lives: what is not locked was left by one that was killed.
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            os.close(lock)
            shutil.rmtree(folder, ignore_errors=True)

    def add(self, staged: Path) -> str:
        """Take a staged folder whose manifest is written. Returns its digest.

        Raises BundleDamaged when a file is missing, extra, or does not match the manifest.
        """
        digest = examine(staged, None)
        for path in (*staged.rglob("*"), staged):
            _flush(path)
        target = self._root / digest
        with _locked(self._root):
            try:
                verify(target)
            except BundleDamaged:  # or not there
                self._forget(digest)
                staged.rename(target)
                _flush(self._root)
                verify(target)
            _use(target)
        return digest

    def take(self, folder: Path) -> str:
        """Copy a bundle prepared elsewhere into the store. Returns its digest. Raises BundleDamaged, UsageError."""
        read_manifest(folder)
        with self.stage() as staged:
            for name in _stat_files(folder):
                if not (folder / name).is_symlink():
                    (staged / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(folder / name, staged / name)
            return self.add(staged)

    def open(self, digest: str) -> Path:
        """The folder of a bundle, its files checked by size, mtime and inode. Raises UsageError when there is none."""
        path = self._root / digest
        if not _DIGEST.fullmatch(digest) or not path.is_dir():
            raise UsageError(f"There is no bundle {digest[:12]} in {self._root}. Build it with `platform deploy NAME`.")
        check(path)
        return path

    def list(self) -> list[str]:
        """The digests of the bundles there are, sorted."""
        if not self._root.is_dir():
            return []
        return sorted(entry.name for entry in self._root.iterdir() if _DIGEST.fullmatch(entry.name))

    def remove(self, digest: str, *, before: float = math.inf) -> bool:
        """Forget a bundle, unless it was asked for since `before` (Unix seconds); whether it is not there now. It
        leaves its name at once, whole."""
        if not self._root.is_dir():
            return True
        with _locked(self._root):
            with contextlib.suppress(FileNotFoundError):
                if (self._root / digest).stat().st_mtime >= before:
                    return False
            self._forget(digest)
        return True

    def remember(self, key: str, digest: str) -> None:
        """Note that the inputs with this key made this bundle."""
        _write_whole(self._root / ".index" / key, digest.encode())

    def recall(self, key: str) -> str | None:
        """The digest last remembered under `key`, when that bundle is still here and undamaged."""
        try:
            digest = (self._root / ".index" / key).read_text()
            with _locked(self._root):
                _use(self._root / digest)
            check(self._root / digest)
        except (FileNotFoundError, BundleDamaged):
            return None
        return digest

    def _forget(self, digest: str) -> None:
        with contextlib.suppress(FileNotFoundError), self.stage() as staged:
            (self._root / digest).rename(staged / digest)
        _stamps_path(self._root / digest).unlink(missing_ok=True)
        shutil.rmtree(arranged_folder(self._root / digest, ""), ignore_errors=True)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a bundle folder. Raises BundleDamaged, or UsageError for a format this version cannot read."""
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleDamaged(f"{path} cannot be read: {error.strerror}. {_rebuild(None)}") from error
    return _decode(path, data)


def verify(folder: Path) -> Manifest:
    """Check every byte of a bundle against its manifest, and the manifest against the folder's name if it is a digest.

    What was found is noted beside the store, so that `check` can be quick. Raises BundleDamaged naming the file.
    """
    before = _stat_files(folder)
    examine(folder, folder.name if _DIGEST.fullmatch(folder.name) else None)
    if _DIGEST.fullmatch(folder.name):
        with contextlib.suppress(OSError):  # a folder of another user is checked in full every time
            note_checked(folder, before)
    return read_manifest(folder)


def check(folder: Path) -> Manifest:
    """The quick check of a cold start: size, mtime and inode of every file as after the last full check.

    Whatever differs is checked in full. Raises BundleDamaged naming the file.
    """
    try:
        known = msgspec.json.decode(_stamps_path(folder).read_bytes(), type=Stamps)
    except (OSError, msgspec.DecodeError):
        return verify(folder)
    if _stat_files(folder) != known:
        return verify(folder)
    return read_manifest(folder)


def arranged_folder(bundle: Path, machine: str) -> Path:
    """Where the model of a bundle is kept as `machine` likes it best."""
    return bundle.parent / ".arranged" / bundle.name / machine


def digest_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def note_checked(folder: Path, stamps: Stamps | None = None) -> None:
    """Remember a full check, the files as in `stamps`, or as now. Not flushed: a torn note leads to another check."""
    path, data = _stamps_path(folder), msgspec.json.encode(stamps or _stat_files(folder))
    if not path.exists() or path.read_bytes() != data:
        _write_whole(path, data, durable=False)


def _sweep(staging: Path) -> None:
    for folder in staging.iterdir():
        # Its owner lives, or took it away just now.
        with contextlib.suppress(BlockingIOError, FileNotFoundError), _locked(folder, wait=False):
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _decode(path: Path, data: bytes) -> Manifest:
    try:
        found = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        version = msgspec.json.decode(found.get("format", msgspec.Raw(b"null")))
        if version != FORMAT:
            name = msgspec.json.decode(found.get("function", msgspec.Raw(b'"NAME"')))
            raise UsageError(
                f"{path.parent} is a bundle of format {version}; this version of Sunup reads format {FORMAT}. "
                f"{_rebuild(str(name))}"
            )
        return msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise BundleDamaged(f"{path} is damaged: {error}. {_rebuild(None)}") from error


def examine(folder: Path, digest: str | None) -> str:
    """Check every byte of a folder, and that it is `digest`. Returns its digest. Raises BundleDamaged."""
    path = folder / MANIFEST
    manifest = read_manifest(folder)
    actual = digest_file(path)
    if digest not in (None, actual):
        raise BundleDamaged(f"{path} does not match the bundle's digest. {_rebuild(manifest.function)}")
    present = set(_stat_files(folder)) - {MANIFEST}
    for name in sorted(present | set(manifest.files)):
        file = folder / name
        if name not in manifest.files:
            raise BundleDamaged(f"{file} does not belong to the bundle. {_rebuild(manifest.function)}")
        if name not in present:
            raise BundleDamaged(f"{file} is missing. {_rebuild(manifest.function)}")
        if file.is_symlink() or digest_file(file) != manifest.files[name]:
            raise BundleDamaged(f"{file} does not match its digest. {_rebuild(manifest.function)}")
    return actual


def _use(folder: Path) -> None:
    """Note that a bundle was asked for just now, so that it does not expire before whoever asked has deployed it. The
    time is the folder's own, of which no check knows. Raises FileNotFoundError when it is gone."""
    try:
        os.utime(folder)
    except FileNotFoundError:
        raise
    except OSError:
        pass  # a store that this user cannot write to: nothing expires there


def _rebuild(function: str | None) -> str:
    return f"Build it again with `platform deploy {function or 'NAME'}`."


def _stat_files(folder: Path) -> Stamps:
    try:
        stats = dict(_stats(folder, ""))
    except OSError as error:
        raise BundleDamaged(f"{folder} cannot be read: {error.strerror}. {_rebuild(None)}") from error
    return {name: (stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in sorted(stats.items())}


def _stats(folder: Path, inside: str) -> Iterator[tuple[str, os.stat_result]]:
    """Every file below `folder`, by its path in the bundle; a link is a file here, whatever it leads to."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _stats(folder / entry.name, f"{inside}{entry.name}/")
            else:
                yield f"{inside}{entry.name}", entry.stat(follow_symlinks=False)


def _stamps_path(folder: Path) -> Path:
    return folder.parent / ".checked" / folder.name


def _write_whole(path: Path, data: bytes, *, durable: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
