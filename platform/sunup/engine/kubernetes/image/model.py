"""What an OCI image is: layers, a config, and a manifest that names both by digest. Pure.

Format: OCI image specification 1.1 (manifest.md, config.md, layer.md). No time is in any of it: the same layers and
config give the same digest."""

import hashlib
import io
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, Protocol

from sunup.errors import ImageError

MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE: Final = "application/vnd.oci.image.index.v1+json"
CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
_MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


class Descriptor(NamedTuple):
    """What a manifest says of a blob. `digest`: "sha256:" and 64 hexadecimal digits; `size`: bytes."""

    media_type: str
    digest: str
    size: int

    def facts(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


class Blob(Protocol):
    """Bytes that are known by their digest, wherever they are."""

    @property
    def descriptor(self) -> Descriptor:
        """Type, digest and size."""

    def open(self) -> BinaryIO:
        """The bytes, from their beginning; the caller closes it."""


@dataclass(frozen=True, slots=True)
class Held:
    """A blob in memory."""

    descriptor: Descriptor
    data: bytes = field(repr=False)

    def open(self) -> BinaryIO:
        """The bytes."""
        return io.BytesIO(self.data)


@dataclass(frozen=True, slots=True)
class Stored:
    """A blob in a file."""

    descriptor: Descriptor
    path: Path

    def open(self) -> BinaryIO:
        """The file."""
        return self.path.open("rb")


class Layer(NamedTuple):
    """One layer. `diff_id`: the digest of the tar file, before it was compressed."""

    blob: Blob
    diff_id: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image for one machine. `run`: the `config` of its config (Entrypoint, Env, User, ...)."""

    layers: tuple[Layer, ...]
    run: Mapping[str, Any] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    architecture: str = ""

    @property
    def config(self) -> Held:
        """The image's config as a blob."""
        facts = {
            "architecture": self.architecture or architecture(),
            "config": dict(self.run),
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in self.layers]},
        }
        return held(CONFIG_TYPE, _json(facts))

    @property
    def manifest(self) -> Held:
        """The image's manifest as a blob: its digest is the image's."""
        facts: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": self.config.descriptor.facts(),
            "layers": [layer.blob.descriptor.facts() for layer in self.layers],
        }
        if self.annotations:
            facts["annotations"] = dict(sorted(self.annotations.items()))
        return held(MANIFEST_TYPE, _json(facts))

    @property
    def digest(self) -> str:
        """ "sha256:..." of the manifest."""
        return self.manifest.descriptor.digest

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """All but the manifest: layers, then the config."""
        return (*(layer.blob for layer in self.layers), self.config)

    def under(self, layer: Layer, annotations: Mapping[str, str]) -> "Image":
        """This image with one more layer on top, described anew."""
        return replace(self, layers=(*self.layers, layer), annotations=dict(annotations))


def held(media_type: str, data: bytes) -> Held:
    """Bytes as a blob."""
    return Held(Descriptor(media_type, sha256(data), len(data)), data)


def sha256(data: bytes) -> str:
    """A digest as OCI writes it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def architecture(machine: str = "") -> str:
    """What Go, and so OCI, calls this machine. Raises ImageError for one that no image is made for."""
    machine = machine or platform.machine()
    if machine not in _MACHINES:
        raise ImageError(f"Images are made for amd64 and arm64; this machine is {machine}. Make them on another one.")
    return _MACHINES[machine]


def _json(facts: object) -> bytes:
    return json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
