"""`platform deploy` and `platform init`: from a registered model to a live function."""

import json
import os
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from sunup.bundle.evidence import Proof, read_proof
from sunup.bundle.manifest import FEATURES
from sunup.bundle.store import MANIFEST, Store, read_manifest
from sunup.cli.bulk.deploy import deploy_many, takes
from sunup.cli.client import Asker, Resident
from sunup.cli.cluster.deploy import check_cluster, deploy_to_cluster
from sunup.cli.cluster.place import Place, Wishes, delivering, placing
from sunup.cli.engine import ensure, running
from sunup.cli.streams.broker import broker_settings
from sunup.cli.terminal import Stages, accepting, options, show_json, show_note, stages
from sunup.engine.access import remembered
from sunup.errors import UsageError
from sunup.limits import FOLLOW_ENVIRONMENT_BYTES_MAX
from sunup.registry.alias import fingerprint
from sunup.registry.source import parse
from sunup.settings import API_KEY, STREAM_BROKER, Project

FEATURES_URL = "FEATURES_URL"  # where workers read features, instead of what the feature repository says


@click.command()
@click.argument("given", metavar="NAME|DIR...", nargs=-1, required=True)
@accepting
@click.option("--follow", is_flag=True, help="Deploy again, by itself, whenever the alias moves.")
@click.option("--no-start", is_flag=True, help="Refuse when no engine runs, instead of starting one.")
@delivering
@placing
@options()
def deploy(
    *,
    given: tuple[str, ...],
    accept: float,
    follow: bool,
    no_start: bool,
    wishes: Wishes,
    place: Place,
    as_json: bool,
    project: Project,
) -> None:
    """Turn a registered model into a live function.

    NAME is fraud-v3 (a version), fraud@champion (an alias), fraud (the newest version) or a models:/ URI. DIR is a
    bundle made by `platform bundle`. The new revision is proven on this machine before it is routed, and the old one
    serves until then. Thousands of DIRs can be given at once (bundles/*): those that fail are named, the others are
    live, and at zero until they are called.

    With --follow and an alias, the engine looks once a second where the alias points, and deploys by itself what it is
    moved to. Deploying the function again without --follow ends that.

    With --engine kubernetes it runs on a cluster, as a Knative Service; the revision before serves until the new one is
    ready, and goes on where that fails.
    """
    what = given[0]
    _check(given, accept, follow=follow)
    if place.is_cluster:
        check_cluster(given, follow=follow)
        deploy_to_cluster(project, place, wishes, lambda shown: prepare(project, what, shown, accept), as_json=as_json)
        return
    if wishes.canary is not None or wishes.dry_run:
        raise UsageError("--canary and --dry-run are for clusters: add --engine kubernetes.")
    if no_start:
        running(project)
    if len(given) > 1:
        deploy_many(project, list(map(Path, given)), no_start=no_start, as_json=as_json, features=_settings)
        return
    _deploy_here(project, what, accept, follow=follow, no_start=no_start, as_json=as_json)


@click.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Write over a function.toml that is there.")
@options()
def init(name: str, force: bool, as_json: bool, project: Project) -> None:
    """Write functions/NAME/function.toml from a model's signature.

    A model needs no such file to be deployed; it is where features, names of response fields, limits and scale go.
    """
    with stages(quiet=True) as shown:
        made = Resident(project).ask("derive", {"name": name}, lambda event: _show_packager(shown, event))
    path = project.functions / made["function"] / "function.toml"
    if path.exists() and not force:
        raise UsageError(f"{path} is already there. Add --force to write over it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(made["text"])
    if as_json:
        show_json({"function": made["function"], "path": str(path)})
    else:
        click.echo(path)


def build(project: Project, name: str, shown: Stages, accept: float = 0.0) -> dict[str, Any]:
    """Build a bundle of a named model into the project's store: function, digest, settings, model, unchanged."""
    arguments = {"name": name, "accept_difference": accept}
    return Resident(project).ask("build", arguments, lambda event: _show_packager(shown, event))


def worker_settings(
    project: Project, built: dict[str, Any], environment: Mapping[str, str]
) -> tuple[dict[str, str], str]:
    """What workers of a bundle just built get at birth, for whoever has this environment; and a line about its stream.

    Raises UsageError when the environment does not name the broker of its stream.
    """
    manifest = read_manifest(project.bundles / built["digest"])
    broker, note = broker_settings(manifest.stream, environment, project.root)
    return built["settings"] | broker | takes(manifest), note


def curl(project: Project, digest: str, url: str, *, key: bool) -> str:
    """A command line that makes one call with the manifest's example record. `key`: one is wanted."""
    record = json.dumps(example(project.bundles / digest))
    header = f' -H "x-api-key: ${API_KEY}"' if key else ""
    return f"curl -s {url}{header} -H 'content-type: application/json' -d {shlex.quote(record)}"


def example(folder: Path) -> dict[str, Any]:
    """One request record that a bundle's function answers."""
    record: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())["example"]
    return record


def _deploy_here(project: Project, what: str, accept: float, *, follow: bool, no_start: bool, as_json: bool) -> None:
    """Deploy to this machine's engine."""
    began = time.monotonic()
    with stages(quiet=as_json) as shown:
        built, settings, note = prepare(project, what, shown, accept)
        proof = read_proof(project.bundles / built["digest"])
        engine = ensure(project, shown, may_start=not no_start)
        result = engine.deploy(
            built["function"],
            built["digest"],
            settings=settings,
            on_event=lambda event: _show_engine(shown, event),
            follow=_wish(project, what, built) if follow else None,
        )
        shown.stop()
        seconds = time.monotonic() - began
        facts = {
            **result,
            "seconds": round(seconds, 4),
            "stages": shown.seconds,
            "plan": read_manifest(project.bundles / built["digest"]).files.get(FEATURES),
            "parity": msgspec.to_builtins(proof),
            "curl": curl(project, built["digest"], result["url"], key=remembered(project).api_keys is not None),
            **({"stream": settings[STREAM_BROKER]} if STREAM_BROKER in settings else {}),
        }
    _tell(built.get("note"), note, _following(result))
    if as_json:
        show_json(facts)
    else:
        _show(facts, proof, seconds)


def prepare(project: Project, what: str, shown: Stages, accept: float) -> tuple[dict[str, Any], dict[str, str], str]:
    """What is given as a bundle in the store; settings of its workers, and a line about its stream."""
    built = _take(project, Path(what), shown) if _is_bundle(what) else build(project, what, shown, accept)
    return built, *worker_settings(project, built, os.environ)


def _check(given: tuple[str, ...], accept: float, *, follow: bool) -> None:
    """Refuse options that say nothing of what is given."""
    what = given[0]
    prepared = len(given) > 1 or _is_bundle(what)
    if accept and prepared:
        raise UsageError(f"{what} is made already: give --accept-difference to `platform bundle`.")
    if follow and (prepared or parse(what).alias is None):
        raise UsageError(
            f"--follow needs an alias, as in `platform deploy fraud@champion --follow`; {what} names none."
        )


def _show(facts: dict[str, Any], proof: Proof | None, seconds: float) -> None:
    state = "unchanged" if facts["unchanged"] else f"live after {seconds:.1f} s"
    click.echo(f"{facts['function']} revision {facts['revision']} ({facts['model']}) is {state}")
    if proof is not None:
        click.echo(f"proven: {proof.sentence()}")
        if proof.types:
            click.echo(f"trusted: {', '.join(proof.types)}")
    click.echo(facts["url"])
    click.echo(facts["curl"])


def _wish(project: Project, name: str, built: dict[str, Any]) -> dict[str, Any]:
    """What the engine is told of an alias to follow. The environment goes along, for it says how to reach the registry;
    the engine keeps it in memory only."""
    asker = Asker.here(project)
    if len(json.dumps(dict(asker.environment))) > FOLLOW_ENVIRONMENT_BYTES_MAX:
        most = FOLLOW_ENVIRONMENT_BYTES_MAX // 1024
        raise UsageError(f"--follow takes the environment along, and this one is over {most} KiB. Unset what is large.")
    model, _, version = built["model"].rpartition("/")
    registry = fingerprint(asker.registry(project))
    said = {"name": name, "model": model, "alias": built["alias"], "version": version, "registry": registry}
    return {**said, "environment": dict(asker.environment), "folder": asker.folder}


def _tell(*lines: str | None) -> None:
    for line in lines:
        if line:
            show_note(line)


def _following(result: dict[str, Any]) -> str:
    """A line about what the function follows, or does no longer."""
    if result["follows"]:
        return f"{result['function']} follows {result['follows']} from now on"
    return f"{result['function']} no longer follows {result['followed']}" if "followed" in result else ""


def _is_bundle(what: str) -> bool:
    if (Path(what) / MANIFEST).is_file():
        return True
    if os.sep in what and ":" not in what and "@" not in what:
        raise UsageError(f"{what} is not a bundle: it holds no {MANIFEST}. `platform bundle NAME --out DIR` makes one.")
    return False


def _take(project: Project, folder: Path, shown: Stages) -> dict[str, Any]:
    """Copy a bundle prepared elsewhere into the store, every byte checked."""
    shown.begin("take", str(folder))
    manifest = read_manifest(folder)
    digest = Store(project.bundles).take(folder)
    shown.end()
    made = {"function": manifest.function, "digest": digest}
    if FEATURES not in manifest.files or os.environ.get(FEATURES_URL):
        return {**made, "settings": _settings(project, shown) if FEATURES in manifest.files else {}}
    found = Resident(project).ask("features", {"digest": digest}, lambda event: _show_packager(shown, event))
    shown.end()
    return {**made, **found}


def _settings(project: Project, shown: Stages) -> dict[str, str]:
    """What a worker that looks features up gets at birth. With FEATURES_URL no Feast is needed to know it."""
    url = os.environ.get(FEATURES_URL)
    if url:
        return {"features_url": url}
    found = Resident(project).ask("settings", {}, lambda event: _show_packager(shown, event))
    shown.end()
    return found


def _show_packager(shown: Stages, event: dict[str, Any]) -> None:
    if "stage" in event:
        shown.begin(event["stage"], event.get("detail", ""))
    elif "note" in event:
        show_note(event["note"])


def _show_engine(shown: Stages, event: dict[str, Any]) -> None:
    shown.stop()
    # The packager proves the conversion, the engine the bundle on this machine: two stages, two names.
    stage = "self-proof" if event["stage"] == "prove" else event["stage"]
    shown.note(stage, event["seconds"])
