"""Many bundles prepared elsewhere, taken into the store together.

What `Store.take` does for one: a copy, every byte of it checked. But they are flushed all at once, which is most of the
time: a flush waits for the disk, however little there is to write, and one bundle is some seven of them.
"""

import ctypes
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from sunup.bundle.store import MANIFEST, Store, digest_file, examine, note_checked, read_manifest
from sunup.errors import BundleDamaged, CommandError


def take_all(root: Path, folders: Sequence[Path]) -> list[str | CommandError]:
    """The digest of each folder's bundle, which is in the store at `root` now; or why it was refused.

    A bundle that is there already, undamaged, is not copied again: its name says what it holds.
    """
    store = Store(root)
    found: list[str | CommandError] = []
    with store.stage() as stage:
        staged: dict[str, Path] = {}
        for number, folder in enumerate(folders):
            try:
                digest = digest_file(folder / MANIFEST)
                if not _holds(store, digest):
                    read_manifest(folder)
                    shutil.copytree(folder, stage / str(number), symlinks=True, copy_function=shutil.copyfile)
                    digest = examine(stage / str(number), None)
                    staged[digest] = stage / str(number)
                found.append(digest)
            except CommandError as error:
                found.append(error)
            except OSError as error:
                found.append(BundleDamaged(f"{folder} cannot be copied: {error}."))
        if staged:
            _flush(stage)
            for digest, folder in staged.items():
                _place(store, root / digest, folder)
            _flush(root)
    return found


def _holds(store: Store, digest: str) -> bool:
    """Whether there is such a bundle, its files as after the last full check. One that is damaged goes."""
    try:
        os.utime(store.open(digest))  # it was asked for just now, so it is not the next one to be removed
    except BundleDamaged:
        store.remove(digest)
        return False
    except CommandError:
        return False
    return True


def _place(store: Store, target: Path, staged: Path) -> None:
    """Give a folder its name: it is whole, and on the disk."""
    try:
        staged.rename(target)
    except OSError:
        store.open(target.name)  # somebody else was faster
    else:
        os.utime(target)
        note_checked(target)


def _flush(folder: Path) -> None:
    """Everything written on the file system that `folder` is on: syncfs(2)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), "the bundles could not be written to the disk")
    finally:
        os.close(descriptor)
