"""`platform render`: a function's Kubernetes objects as YAML. No cluster is asked; its images are pushed."""

from pathlib import Path
from typing import Any, Final

import click

from sunup.bundle.store import Store
from sunup.cli.deploy import prepare
from sunup.cli.terminal import accepting, options, show_json, show_note, stages
from sunup.engine.kubernetes.check.check import check
from sunup.engine.kubernetes.check.facts import IMAGE_VOLUMES, ClusterFacts
from sunup.engine.kubernetes.order import Delivery, Given, take_order
from sunup.engine.kubernetes.render.folder import stale, written
from sunup.engine.kubernetes.render.objects import dump
from sunup.engine.kubernetes.render.objects import render as rendered
from sunup.engine.kubernetes.render.target import Object, Way
from sunup.engine.kubernetes.steps import Steps
from sunup.errors import UsageError
from sunup.settings import Project

_FACTS: Final = {"volume": ClusterFacts(features={IMAGE_VOLUMES: "enabled"}), "flat": ClusterFacts()}


@click.command()
@click.argument("given", metavar="NAME|DIR")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Write files into DIR.")
@click.option("--namespace", default="default", envvar="SUNUP_NAMESPACE", metavar="N", show_default=True)
@click.option("--registry", default="", envvar="SUNUP_REGISTRY", metavar="R", help="Where its images are pushed.")
@click.option("--runtime-image", "runtime", default="", envvar="SUNUP_RUNTIME_IMAGE", metavar="I", help="What runs it.")
@click.option("--way", type=click.Choice(["volume", "flat"]), default="flat", show_default=True, help="Of the bundle.")
@click.option("--pull-secret", "pull_secrets", multiple=True, metavar="NAME", help="A Secret images are fetched with.")
@click.option("--keys-secret", default="", metavar="NAME", help="A Secret with the key file of callers, keys.jsonl.")
@click.option("--without-secrets", is_flag=True, help="Leave Secrets out: they come into the cluster another way.")
@accepting
@options()
def render(
    *,
    given: str,
    output: Path | None,
    namespace: str,
    registry: str,
    runtime: str,
    way: Way,
    pull_secrets: tuple[str, ...],
    keys_secret: str,
    without_secrets: bool,
    accept: float,
    as_json: bool,
    project: Project,
) -> None:
    """Write a function's Kubernetes objects as YAML, for GitOps.

    NAME and DIR are as for `platform deploy`. Images are named by their digests, and the same bundle, settings and
    options give the same files. What a cluster does otherwise than the local engine is told on standard error.
    """
    told: list[str] = []
    delivery = Delivery(registry, runtime, None, pull_secrets, keys_secret)
    with stages(quiet=as_json or output is None) as shown:
        built, settings, note = prepare(project, given, shown, accept)
        digest = built["digest"]
        shown.begin("images", registry)
        place = Given(Store(project.bundles).open(digest), digest, settings)
        order = take_order(namespace, place, delivery, _FACTS[way], Steps(lambda event: _listen(event, told)))
        objects = rendered(order.manifest, digest, order.target)
        check(objects)
    for line in filter(None, (built.get("note"), note, *told)):
        show_note(line)
    if without_secrets:
        objects = _without_secrets(objects)
    if output is not None:
        paths = _write(output, objects)
        show_json({"function": built["function"], "digest": digest, "files": paths}) if as_json else _list(paths)
    elif as_json:
        show_json(objects)
    else:
        click.echo(dump(objects), nl=False)


def _listen(event: dict[str, Any], told: list[str]) -> None:
    if "note" in event:
        told.append(event["note"])


def _without_secrets(objects: list[Object]) -> list[Object]:
    for one in objects:
        if one["kind"] == "Secret":
            show_note(f"Secret {one['metadata']['name']} is left out: it must be in the namespace, with the keys "
                      f"{', '.join(one['data'])}.")  # fmt: skip
    return [one for one in objects if one["kind"] != "Secret"]


def _write(folder: Path, objects: list[Object]) -> list[str]:
    """Write them, and take away what an earlier rendering of the same function left; the paths."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in stale([path.name for path in folder.iterdir()], objects):
            (folder / name).unlink()
        for one, (name, text) in zip(objects, written(objects).items(), strict=True):
            (folder / name).touch(0o600 if one["kind"] == "Secret" else 0o666)
            (folder / name).write_text(text, "utf-8")
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}. Name another --output.") from error
    return [str(folder / name) for name in written(objects)]


def _list(paths: list[str]) -> None:
    for path in paths:
        click.echo(path)
