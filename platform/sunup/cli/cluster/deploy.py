"""`platform deploy --engine kubernetes`: a bundle of the store onto a cluster."""

import json
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import click
import msgspec

from sunup.bundle.evidence import Proof, read_proof
from sunup.bundle.manifest import FEATURES
from sunup.bundle.store import read_manifest
from sunup.cli.cluster.place import Place, Wishes, cluster_engine
from sunup.cli.cluster.streaming import Topic
from sunup.cli.terminal import Stages, show_json, show_note, stages
from sunup.errors import UsageError
from sunup.settings import Project

GATEWAY: Final = "SUNUP_GATEWAY"  # environment variable: where callers outside reach the cluster's gateway

Prepared = tuple[dict[str, Any], dict[str, str], str]  # what was built, settings of workers, a line about its stream


def deploy_to_cluster(
    project: Project, place: Place, wishes: Wishes, prepare: Callable[[Stages], Prepared], *, as_json: bool
) -> None:
    """`prepare`: makes the bundle, in the store then."""
    began = time.monotonic()
    with stages(quiet=as_json or wishes.dry_run) as shown:
        built, settings, note = prepare(shown)
        shown.end()
        folder = project.bundles / built["digest"]
        manifest = read_manifest(folder)
        topic = Topic(manifest.stream, settings, project.embedded_log)
        engine = cluster_engine(project, place, wishes, partitions=topic.partitions(), begin_stream=topic.begin)
        _tell(built.get("note"), note, told := topic.note)
        result = engine.deploy(
            built["function"],
            built["digest"],
            settings=settings,
            on_event=lambda event: _show(shown, event),
            dry_run=wishes.dry_run,
        )
        shown.stop()
        seconds = time.monotonic() - began
    _tell(topic.note if topic.note != told else None)
    if wishes.dry_run:
        _show_dry(result, as_json=as_json)
        return
    proof = read_proof(folder)
    facts = {
        **result,
        "seconds": round(seconds, 4),
        "stages": shown.seconds,
        "plan": manifest.files.get(FEATURES),
        "parity": msgspec.to_builtins(proof),
        "curl": curl(manifest.example, result["url"], os.environ),
    }
    if as_json:
        show_json(facts)
    else:
        _show_facts(facts, proof, seconds, place)


def check_cluster(given: Sequence[str], *, follow: bool) -> None:
    """Refuse what has no meaning on a cluster. Raises UsageError."""
    if len(given) > 1:
        raise UsageError("Deploy to a cluster one by one: each waits until it is ready there.")
    if follow:
        raise UsageError(
            "--follow is the local engine's: nothing of Sunup stays running on a cluster. Deploy NAME@ALIAS from a "
            "CronJob or a pipeline; a deploy that finds nothing new changes nothing."
        )


def curl(example: Mapping[str, Any], url: str, environment: Mapping[str, str]) -> str:
    """A command line that makes one call, through the gateway where that is known."""
    record = shlex.quote(json.dumps(msgspec.to_builtins(example)))
    gateway, parts = environment.get(GATEWAY), urlsplit(url)
    where = f"-H 'Host: {parts.netloc}' {gateway.rstrip('/')}{parts.path}" if gateway else url
    return f"curl -s {where} -H 'content-type: application/json' -d {record}"


def _show_facts(facts: Mapping[str, Any], proof: Proof | None, seconds: float, place: Place) -> None:
    state = "unchanged" if facts["unchanged"] else f"live after {seconds:.1f} s"
    click.echo(f"{facts['function']} revision {facts['revision']} ({facts['model']}) is {state}")
    if facts["percent"] < 100:
        promote = f"platform promote {facts['function']}{place.options()}"
        click.echo(f"it gets {facts['percent']} % of the calls; all of them: {promote}")
        for tag, url in facts["tags"].items():
            click.echo(f"  {tag}: {url}/functions/{facts['function']}")
    if proof is not None:
        click.echo(f"proven: {proof.sentence()}")
    click.echo(facts["url"])
    click.echo(facts["curl"])


def _tell(*lines: str | None) -> None:
    for line in lines:
        if line:
            show_note(line)


def _show_dry(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(result)
        return
    from sunup.engine.kubernetes.render.objects import dump  # imports yaml, for this alone

    click.echo(dump(result["objects"]), nl=False)
    for text in result["differences"]:
        click.echo(text, err=True, nl=False)
    if not result["differences"]:
        show_note("Nothing would change.")


def _show(shown: Stages, event: dict[str, Any]) -> None:
    if "note" in event:
        show_note(event["note"])
    elif "seconds" in event:
        shown.end()
    elif shown.stage == event["stage"]:
        shown.update(event["detail"])
    else:
        shown.begin(event["stage"], event["detail"])
