"""An image as an OCI layout (image-layout.md of the OCI image specification 1.1): a folder, or a tar file of one.
Registries, skopeo, containerd and nerdctl read both."""

import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sunup.engine.kubernetes.image.model import Blob, Held, Image, held
from sunup.errors import ImageError, UsageError
from sunup.limits import IMAGE_BLOCK_BYTES


def write_layout(image: Image, path: Path, *, name: str) -> None:
    """Write `image` to `path`: a tar file if it ends in .tar, else a folder. It is there whole or not at all.

    `name`: what it is called in there, "fraud:tag". The same image gives the same bytes. Raises UsageError when
    something is there already, ImageError when it cannot be written."""
    path = path.resolve()
    if path.exists():
        raise UsageError(f"{path} is already there. Give --output a path that does not exist yet.")
    beside: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        whole = beside / path.name
        if path.suffix == ".tar":
            _write_tar(image, whole, name)
        else:
            _write_folder(image, whole, name)
        whole.rename(path)
    except OSError as error:
        raise ImageError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)


def _files(image: Image, name: str) -> Iterator[tuple[str, Blob]]:
    """The layout's files, by name, sorted."""
    blobs: dict[str, Blob] = {blob.descriptor.digest: blob for blob in (*image.blobs, image.manifest)}
    for digest in sorted(blobs):
        yield f"blobs/{digest.replace(':', '/')}", blobs[digest]
    yield "index.json", _index(image, name)
    yield "oci-layout", held("", b'{"imageLayoutVersion":"1.0.0"}')


def _index(image: Image, name: str) -> Held:
    """The one image of the layout. `ref.name` is read by skopeo, the other annotation by containerd."""
    tag = name.rpartition(":")[2]
    called = {"org.opencontainers.image.ref.name": tag, "io.containerd.image.name": name}
    facts: dict[str, Any] = {**image.manifest.descriptor.facts(), "annotations": called}
    return held("", json.dumps({"schemaVersion": 2, "manifests": [facts]}, sort_keys=True).encode())


def _write_folder(image: Image, folder: Path, name: str) -> None:
    for file, blob in _files(image, name):
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        with blob.open() as source, path.open("wb") as target:
            shutil.copyfileobj(source, target, IMAGE_BLOCK_BYTES)
            target.flush()
            os.fsync(target.fileno())


def _write_tar(image: Image, path: Path, name: str) -> None:
    with path.open("wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for folder in ("blobs", "blobs/sha256"):
                member = tarfile.TarInfo(folder)
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(member)
            for found, blob in _files(image, name):
                member = tarfile.TarInfo(found)
                member.mode, member.size = 0o644, blob.descriptor.size
                with blob.open() as source:
                    archive.addfile(member, source)
        file.flush()
        os.fsync(file.fileno())
