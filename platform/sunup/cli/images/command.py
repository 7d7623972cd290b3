"""`platform image`: container images for clusters, made and pushed without a container engine."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

import sunup
from sunup.bundle.store import digest_file, read_manifest
from sunup.cli.bundles import bundle_folder
from sunup.cli.terminal import Stages, options, pairs, show_json, size, stages
from sunup.engine.kubernetes.image.layout import write_layout
from sunup.engine.kubernetes.image.model import Image
from sunup.engine.kubernetes.image.push import (
    bundle_image,
    bundle_tag,
    flat_image,
    flat_tag,
    pull,
    push_bundle,
    push_flat,
    push_image,
    scratch,
)
from sunup.engine.kubernetes.image.registry.client import Registry
from sunup.engine.kubernetes.image.registry.reference import parse_reference, repository_of
from sunup.engine.kubernetes.image.runtime import build as runtime
from sunup.engine.kubernetes.image.runtime.cache import Cache
from sunup.errors import UsageError
from sunup.settings import REGISTRY, Project

_PATH: Final = click.Path(path_type=Path)
_output = click.option(
    "--output", type=_PATH, metavar="PATH", help="Write an OCI layout: a tar file if PATH ends in .tar, else a folder."
)


@click.group()
def image() -> None:
    """Make and push container images, without a container engine."""


@image.command()
@click.option("--push", "registry", metavar="REGISTRY", help="Push it: HOST[:PORT][/PREFIX].")
@_output
@options()
def build(registry: str | None, output: Path | None, as_json: bool, project: Project) -> None:  # noqa: ARG001
    """Make the runtime image, which worker pods run: Debian 12, Python, a worker's packages, Sunup.

    What was made before and has not changed is used again. Without --push and --output it is made, and stays in the
    cache."""
    target = Registry.of(registry) if registry else None
    with stages(quiet=as_json) as shown:
        made = runtime.build(runtime.sources(Path(sunup.__file__).parent), Cache.usual(), on_stage=shown.begin)
        tag = runtime.tag_of(made)
        facts = {"image": made.digest, "size": sum(layer.blob.descriptor.size for layer in made.layers)}
        if output is not None:
            shown.begin("write", str(output))
            write_layout(made, output, name=f"{runtime.REPOSITORY}:{tag}")
            facts |= {"path": str(output)}
        if target is not None:
            shown.begin("push", target.address.host)
            reference = push_image(made, target, runtime.REPOSITORY, tag, on_blob=_telling(shown))
            facts |= {"reference": reference, "tag": tag}
    _show(facts, as_json)


@image.command()
@click.argument("what", metavar="DIR|DIGEST")
@click.option("--registry", envvar=REGISTRY, metavar="REGISTRY", help="Where to: HOST[:PORT][/PREFIX].")
@click.option(
    "--runtime-image", "runtime_image", metavar="IMAGE", help="Push one flat image: the bundle on this runtime image."
)
@_output
@options()
def push(  # noqa: PLR0917 - what click gives
    what: str, registry: str | None, runtime_image: str | None, output: Path | None, as_json: bool, project: Project
) -> None:
    """Push a bundle as an image: to be mounted beside the runtime image, or, with --runtime-image, on top of it.

    With --output it is written instead, and no --registry is needed.
    """
    folder = bundle_folder(project, what)
    function, digest = read_manifest(folder).function, digest_file(folder / "manifest.json")
    with stages(quiet=as_json) as shown:
        if output is not None:
            shown.begin("write", str(output))
            _write(folder, digest, function, runtime_image, output)
            facts: dict[str, object] = {"function": function, "bundle": digest, "path": str(output)}
        elif registry is None:
            raise UsageError(f"Say where to: --registry HOST[:PORT][/PREFIX] (or {REGISTRY}), or --output PATH.")
        else:
            target = Registry.of(registry)
            shown.begin("push", target.address.host)
            tell = _telling(shown)
            if runtime_image is None:
                reference = push_bundle(folder, digest, function, target, on_blob=tell)
            else:
                reference = push_flat(folder, digest, function, runtime_image, target, on_blob=tell)
            facts = {"function": function, "bundle": digest, "reference": reference}
    _show(facts, as_json)


def _write(folder: Path, digest: str, function: str, runtime_image: str | None, output: Path) -> None:
    with scratch() as beside:
        if runtime_image is None:
            made, tag = bundle_image(folder, digest, beside), bundle_tag(digest)
        else:
            below = _pulled(runtime_image)
            made, tag = flat_image(folder, digest, below, beside), flat_tag(digest, below)
        write_layout(made, output, name=f"{repository_of(function)}:{tag}")


def _pulled(reference: str) -> Image:
    address = parse_reference(reference).address
    return pull(reference, Registry.of(f"http://{address.host}" if address.plain else address.host))


def _telling(shown: Stages) -> Callable[[str, int], None]:
    return lambda digest, count: shown.update(f"{digest.removeprefix('sha256:')[:12]}  {size(count)}")


def _show(facts: dict[str, object], as_json: bool) -> None:
    if as_json:
        show_json(facts)
    else:
        pairs(
            {name: size(value) if name == "size" and isinstance(value, int) else value for name, value in facts.items()}
        )
