"""Images into registries: a bundle to be mounted, or one image of runtime and bundle. What is there is not sent
again."""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sunup.bundle.manifest import Manifest
from sunup.bundle.store import examine, read_manifest
from sunup.engine.kubernetes.image.layer import Entry, tree, write_layer
from sunup.engine.kubernetes.image.model import LAYER_TYPE, Descriptor, Held, Image, Layer, architecture
from sunup.engine.kubernetes.image.registry.client import Registry, Remote, Repository
from sunup.engine.kubernetes.image.registry.reference import parse_reference, repository_of
from sunup.errors import ImageError, UsageError
from sunup.limits import IMAGE_TEXT_BYTES_MAX

BUNDLE_FOLDER: Final = "bundle"  # where a flat image has the bundle
_DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"  # the same bytes under an older name
_OCI: Final = "org.opencontainers.image"

OnBlob = Callable[[str, int], None]  # what is sent: its digest, its bytes


def push_bundle(folder: Path, digest: str, function: str, registry: Registry, *, on_blob: OnBlob | None = None) -> str:
    """Push a bundle as an image to be mounted: its files at the root. Returns "host/prefix/fraud@sha256:...".

    `digest`: the bundle's; `on_blob` is told of what is sent. Raises BundleDamaged, UsageError, ImageError.
    """
    manifest, target, tag = _checked(folder, digest), registry.repository(repository_of(function)), bundle_tag(digest)
    if there := _there(target, tag, _described(manifest, digest)):
        return there
    with scratch() as beside:
        return _push(bundle_image(folder, digest, beside), target, tag, on_blob)


def push_flat(
    folder: Path, digest: str, function: str, runtime: str, registry: Registry, *, on_blob: OnBlob | None = None
) -> str:
    """Push the runtime image with a bundle under /bundle as one image. Returns "host/prefix/fraud@sha256:...".

    `runtime`: a pushed runtime image's reference; its layers are mounted from there, or copied from another registry.
    """
    manifest, target = _checked(folder, digest), registry.repository(repository_of(function))
    below = pull(runtime, registry)
    tag = flat_tag(digest, below)
    if there := _there(target, tag, _described(manifest, digest, below)):
        return there
    with scratch() as beside:
        return _push(flat_image(folder, digest, below, beside), target, tag, on_blob)


def push_image(image: Image, registry: Registry, repository: str, tag: str, *, on_blob: OnBlob | None = None) -> str:
    """Push an image: blobs that are not there, then its manifest, under a tag, so that no registry thinks it forgotten.
    Returns its reference by digest. Raises UsageError, ImageError."""
    target = registry.repository(repository)
    found = target.find(tag)
    if found is not None and found.descriptor.digest == image.digest:
        return f"{target.name}@{image.digest}"
    return _push(image, target, tag, on_blob)


def _push(image: Image, target: Repository, tag: str, on_blob: OnBlob | None) -> str:
    for blob in image.blobs:
        if not target.has(blob.descriptor):
            if on_blob is not None:
                on_blob(blob.descriptor.digest, blob.descriptor.size)
            target.put(blob)
    target.put_manifest(image.manifest, tag)
    return f"{target.name}@{image.digest}"


def _there(target: Repository, tag: str, described: dict[str, str]) -> str:
    """The reference of an image that was pushed under this tag, if it is described as ours would be; else "".

    Then nothing is compressed to see whether it is the same: another zlib would make other bytes of the same files. Who
    can write into our repository can put another image there; a worker compares the bundle it finds with its digest.
    """
    found = target.find(tag)
    if found is None:
        return ""
    try:
        facts = json.loads(found.data)
        same = facts["annotations"] == described
    except (ValueError, KeyError, TypeError):
        return ""
    return f"{target.name}@{found.descriptor.digest}" if same else ""


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for layers, gone at the end. Raises ImageError when there is no room for it, or for them."""
    try:
        with tempfile.TemporaryDirectory(prefix="sunup-image-") as folder:
            yield Path(folder)
    except OSError as error:
        raise ImageError(
            f"A layer cannot be written: {error.strerror or error}. TMPDIR may name a folder with more room."
        ) from error


def bundle_image(folder: Path, digest: str, scratch: Path) -> Image:
    """A bundle's image: one layer with its files at the root. Every byte is checked against `digest` first. `scratch`:
    where the layer is written, and must stay while the image is used."""
    manifest = _checked(folder, digest)
    layer = write_layer(_files(folder, ""), scratch / "bundle.tar.gz")
    # The config's own `config` would be for a program, and there is none.
    return Image((layer,), annotations=_described(manifest, digest))


def flat_image(folder: Path, digest: str, runtime: Image, scratch: Path) -> Image:
    """The runtime image with a bundle on top, under /bundle."""
    manifest = _checked(folder, digest)
    layer = write_layer(_files(folder, BUNDLE_FOLDER), scratch / "flat.tar.gz")
    return runtime.under(layer, _described(manifest, digest, runtime))


def bundle_tag(digest: str) -> str:
    """The tag of a bundle's image."""
    return f"bundle-{digest}"


def flat_tag(digest: str, runtime: Image) -> str:
    """The tag of a flat image: which bundle, on which runtime."""
    return f"flat-{digest[:32]}-{runtime.digest.removeprefix('sha256:')[:32]}"


def pull(reference: str, near: Registry) -> Image:
    """An image in a registry, its layers left there. `near`: asked, if it is the one that `reference` names.

    Of an index, the image for this machine. Raises UsageError, ImageError.
    """
    found = parse_reference(reference)
    same = found.address.host == near.address.host and "://" not in reference
    repository = (near if same else Registry.of(found.address.url if found.address.plain else found.address.host)).at(
        found.path
    )
    manifest = repository.manifest(found.wanted)
    facts = _json(manifest, reference)
    if "manifests" in facts:
        manifest = repository.manifest(_ours(facts, reference))
        facts = _json(manifest, reference)
    try:
        return _image(facts, repository)
    except (KeyError, TypeError, ValueError) as error:
        raise ImageError(f"{reference} is no container image that can be run: {error!r}.") from error


def _image(facts: dict[str, Any], repository: Repository) -> Image:
    named = facts["config"]
    if named["size"] > IMAGE_TEXT_BYTES_MAX:
        raise ValueError(f"its config has {named['size']:,} bytes")
    with repository.fetch(Descriptor(named["mediaType"], named["digest"], named["size"])) as file:
        config = json.loads(file.read())
    layers = []
    for layer, diff_id in zip(facts["layers"], config["rootfs"]["diff_ids"], strict=True):
        kind = LAYER_TYPE if layer["mediaType"] == _DOCKER_LAYER else layer["mediaType"]
        layers.append(Layer(Remote(Descriptor(kind, layer["digest"], layer["size"]), repository), diff_id))
    annotations = facts.get("annotations") or {}
    return Image(tuple(layers), config.get("config") or {}, annotations, config["architecture"])


def _ours(index: dict[str, Any], reference: str) -> str:
    """The digest of an index's image for this machine."""
    wanted = architecture()
    for one in index["manifests"]:
        if (one.get("platform") or {}).get("architecture") == wanted and one["platform"].get("os") == "linux":
            return str(one["digest"])
    raise ImageError(f"{reference} has no image for linux/{wanted}. Build one: platform image build --push REGISTRY.")


def _json(manifest: Held, reference: str) -> dict[str, Any]:
    try:
        facts = json.loads(manifest.data)
    except ValueError as error:
        raise ImageError(f"{reference} is no container image: its manifest is not JSON.") from error
    if not isinstance(facts, dict) or not ("manifests" in facts or "layers" in facts):
        raise ImageError(f"{reference} is no container image: its manifest names no layers.")
    return facts


def _checked(folder: Path, digest: str) -> Manifest:
    if len(digest) != 64:
        raise UsageError(f"{digest!r} is not the digest of a bundle: 64 hexadecimal digits.")
    examine(folder, digest)
    return read_manifest(folder)


def _files(folder: Path, below: str) -> Iterator[Entry]:
    """A bundle's files and folders, all readable by anyone and none to be run: its digest knows of contents only."""
    for entry in tree(folder, below):
        yield entry._replace(mode=0o644) if entry.source is not None else entry


def _described(manifest: Manifest, digest: str, runtime: Image | None = None) -> dict[str, str]:
    """The annotations of a bundle's image, or of a flat one on `runtime`. Nothing of who made it."""
    model = manifest.model
    facts = {
        f"{_OCI}.title": manifest.function,
        f"{_OCI}.version": model.version,
        "sunup.dev/digest": digest,
        "sunup.dev/function": manifest.function,
        "sunup.dev/model": f"{model.name}/{model.version}",
    }
    return facts if runtime is None else facts | {f"{_OCI}.base.digest": runtime.digest}
