"""A model laid out for one machine: the graph as its processor likes it, the weights beside it in a file to be mapped.

    <folder>/model.onnx    the graph, optimised for good: opening it decides nothing any more
    <folder>/weights.bin   its large tensors, read from the page cache where they are, shared by all who opened them
    <folder>/stamps.json   size, mtime and inode of both, as they were written

It is made from a bundle's model, and never relied on: what is absent or was touched is not found, and the model itself
is opened instead.
"""

import logging
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import msgspec

from sunup.execute.onnx import OnnxExecutor, spread
from sunup.limits import ARRANGED_BYTES_MAX, ARRANGED_MODEL_BYTES_MIN

_LOG: Final = logging.getLogger(__name__)

GRAPH: Final = "model.onnx"
WEIGHTS: Final = "weights.bin"
STAMPS: Final = "stamps.json"

Stamps = dict[str, tuple[int, int, int]]


def open_model(
    model: Path, folder: Path, *, layout: bool, stage: Callable[[], AbstractContextManager[Path]] | None = None
) -> OnnxExecutor | None:
    """The model in the bundle's file `model` from `folder`; None where it is not, for whatever reason.

    `stage` makes an empty folder on the same file system: given, the model is laid out anew, and it is on the caller to
    prove what is returned. `layout`: see OnnxExecutor.
    """
    try:
        if model.stat().st_size < ARRANGED_MODEL_BYTES_MIN:
            return None
        if stage is not None:
            with stage() as staged:
                make(model, staged, folder, layout=layout)
        found = find(folder)
        return OnnxExecutor(found, optimised=True) if found else None
    except Exception as error:  # the runtime has no class of its own; if it matters, opening the model itself says so
        _LOG.warning("the model is not laid out for this machine: %s", error)
        return None


def find(folder: Path) -> Path | None:
    """The graph in `folder`; None unless all of it is there and as it was written. About 30 microseconds."""
    try:
        known = msgspec.json.decode((folder / STAMPS).read_bytes(), type=Stamps)
        return folder / GRAPH if known == _stamps(folder) else None
    except (OSError, msgspec.DecodeError):
        return None


def make(model: Path, staged: Path, folder: Path, *, layout: bool, bytes_max: int = ARRANGED_BYTES_MAX) -> None:
    """Lay `model` out in the empty folder `staged`, and give it the place and name of `folder`.

    `folder` is <root>/<bundle>/<machine>: others of its bundle, and what was made longest ago when all below the root
    takes more than `bytes_max`, are removed. Does nothing for a model that is not mostly weights (trees are not).
    Raises OSError, and the runtime's own exceptions.
    """
    shutil.rmtree(folder.parent, ignore_errors=True)
    spread(model, staged / GRAPH, WEIGHTS, layout=layout)
    weights = staged / WEIGHTS
    if not weights.exists() or weights.stat().st_size < model.stat().st_size // 2:
        return
    for name in (GRAPH, WEIGHTS):
        _flush(staged / name)
    (staged / STAMPS).write_bytes(msgspec.json.encode(_stamps(staged)))
    _flush(staged / STAMPS)
    _make_room(folder.parent.parent, bytes_max - weights.stat().st_size)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged.rename(folder)


def _make_room(root: Path, bytes_max: int) -> None:
    """Who has one of these open keeps it: a mapped file without a name is there until its last reader ends."""
    made = sorted(
        (stat.st_mtime_ns, stat.st_size, path) for path in root.glob(f"*/*/{WEIGHTS}") if (stat := path.stat())
    )
    total = sum(size for _, size, _ in made)
    for _, size, path in made:
        if total <= bytes_max:
            return
        shutil.rmtree(path.parent.parent, ignore_errors=True)
        total -= size


def _stamps(folder: Path) -> Stamps:
    stats = {name: (folder / name).stat(follow_symlinks=False) for name in (GRAPH, WEIGHTS)}
    return {name: (stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in stats.items()}


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
