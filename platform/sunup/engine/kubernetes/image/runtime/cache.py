"""Layers that were made before, kept under ~/.cache/sunup/image by the digest of what they were made from."""

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from sunup.engine.kubernetes.image.layer import Entry, write_layer
from sunup.engine.kubernetes.image.model import LAYER_TYPE, Descriptor, Layer, Stored
from sunup.errors import ImageError
from sunup.limits import IMAGE_CACHE_LAYERS_MAX, IMAGE_MAKING_SECONDS_MAX

_LAYER: Final = "layer.tar.gz"
_FACTS: Final = "facts.json"
_MAKING: Final = ".making-"


class _Facts(msgspec.Struct, frozen=True):
    digest: str
    size: int
    diff_id: str


class Cache:
    """A folder of layers, each of which is there whole or not at all; those used longest ago go."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __repr__(self) -> str:
        return f"Cache({str(self._root)!r})"

    @classmethod
    def usual(cls, environment: Mapping[str, str] = os.environ) -> "Cache":
        """The user's own."""
        above = environment.get("XDG_CACHE_HOME")
        return cls((Path(above) if above else Path.home() / ".cache") / "sunup" / "image")

    def layer(self, key: str, make: Callable[[Path], Iterable[Entry]]) -> Layer:
        """The layer of a key: the one that is there, or of what `make` puts together in the empty folder it is given.

        Raises ImageError when it cannot be written.
        """
        found = self._find(key)
        if found is not None:
            return found
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=_MAKING, dir=self._root) as scratch:
                made = Path(scratch) / "made"
                made.mkdir()
                (content := Path(scratch) / "content").mkdir()
                layer = write_layer(make(content), made / _LAYER)
                facts = _Facts(layer.blob.descriptor.digest, layer.blob.descriptor.size, layer.diff_id)
                (made / _FACTS).write_bytes(msgspec.json.encode(facts))
                self._keep(made, key)
        except OSError as error:
            raise ImageError(f"A layer cannot be written into {self._root}: {error.strerror or error}.") from error
        kept = self._find(key)
        if kept is None:
            raise ImageError(
                f"A layer that was just written into {self._root} is gone. Is somebody emptying that folder?"
            )
        return kept

    def _keep(self, made: Path, key: str) -> None:
        target = self._root / key
        try:
            made.rename(target)
        except OSError:
            if not (target / _FACTS).is_file():  # else somebody was faster, and made the same
                raise
        self._prune()

    def _find(self, key: str) -> Layer | None:
        folder = self._root / key
        try:
            facts = msgspec.json.decode((folder / _FACTS).read_bytes(), type=_Facts)
            whole = (folder / _LAYER).stat().st_size == facts.size
            os.utime(folder)
        except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
            whole = False
        except OSError as error:
            raise ImageError(f"{folder} cannot be read: {error.strerror}. Remove it.") from error
        if not whole:
            shutil.rmtree(folder, ignore_errors=True)
            return None
        return Layer(Stored(Descriptor(LAYER_TYPE, facts.digest, facts.size), folder / _LAYER), facts.diff_id)

    def _prune(self) -> None:
        kept = []
        for folder in self._root.iterdir():
            with contextlib.suppress(FileNotFoundError):  # somebody else's, and just gone
                used = folder.stat().st_mtime
                if not folder.name.startswith(_MAKING):
                    kept.append((used, folder))
                elif time.time() - used > IMAGE_MAKING_SECONDS_MAX:  # whoever made it was killed
                    shutil.rmtree(folder, ignore_errors=True)
        for _, folder in sorted(kept, reverse=True)[IMAGE_CACHE_LAYERS_MAX:]:
            shutil.rmtree(folder, ignore_errors=True)


def key_of(*parts: str | bytes) -> str:
    """A key of whatever a layer is made from."""
    hashed = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        hashed.update(len(data).to_bytes(8, "big") + data)
    return hashed.hexdigest()
