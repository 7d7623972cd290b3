"""Commands about functions that are deployed: call, logs, rollback, remove. (`platform status` is in status/.)"""

import http.client
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import click

from sunup.cli.cluster.place import Place, Wishes, cluster_engine, placing
from sunup.cli.engine import running
from sunup.cli.terminal import milliseconds, options, pairs, show_json, show_note, show_table, timings
from sunup.errors import CommandError, UsageError
from sunup.settings import API_KEY, Project

CALL_SECONDS_MAX = 60.0
COLD = ("hold", "fork", "load", "prove")


@click.command()
@click.argument("function")
@click.argument("record", metavar="JSON|@FILE|-")
@click.option(
    "--gateway", envvar="SUNUP_GATEWAY", metavar="URL", help="Cluster: its gateway. [default: the function's URL]"
)
@placing
@options()
def call(*, function: str, record: str, gateway: str | None, place: Place, as_json: bool, project: Project) -> None:
    """Make one prediction and show where its time went.

    The record is JSON, @FILE, or - for standard input; a list of records gets a list of predictions. Where the engine
    wants a key, it is taken from SUNUP_API_KEY.
    """
    body = _read(record)
    if place.is_cluster:
        answer = post(_cluster_url(project, place, function), body, gateway)
    else:
        answer = post(f"{_address(project)}/functions/{function}", body)
    if answer.status != 200:
        error = answer.body.get("error", {}) if isinstance(answer.body, dict) else {}
        hint = error.get("hint")
        raise CommandError(f"{answer.status}: {error.get('message', answer.body)}", hint=f"({hint})" if hint else None)
    if as_json:
        show_json({**answer.body, "stages_ms": answer.stages, "seconds": round(answer.seconds, 6)})
        return
    _show_answer(answer)


@click.command()
@click.argument("function")
@click.option("-f", "--follow", is_flag=True, help="Go on printing what comes.")
@click.option("-n", "--lines", default=100, show_default=True, help="How many lines from the end.")
@placing
@options(facts=False)
def logs(function: str, follow: bool, lines: int, place: Place, project: Project) -> None:
    """Print a function's log: one JSON object a line.

    On a cluster: the log of each of its pods, and of a container that ended badly before.
    """
    if place.is_cluster:
        for line in cluster_engine(project, place).logs(function, lines, follow=follow):
            click.echo(line)
        return
    path = running(project).logs(function)
    sys.stdout.flush()
    # tail(1) knows how to follow a file through its rotation.
    os.execvp("tail", ["tail", "-n", str(lines), *(["-F"] if follow else []), "--", str(path)])


@click.command()
@click.argument("function")
@click.option("--to", "revision", type=int, metavar="REVISION", help="Which one. [default: the one before]")
@click.option("--force", is_flag=True, help="Cluster: take over fields that others have changed.")
@placing
@options()
def rollback(
    *, function: str, revision: int | None, force: bool, place: Place, as_json: bool, project: Project
) -> None:
    """Route an earlier revision again; it is proven first, and no request is dropped."""
    engine = cluster_engine(project, place, Wishes(force=force)) if place.is_cluster else running(project)
    result = engine.rollback(function, revision)
    if as_json:
        show_json(result)
    else:
        click.echo(f"{function} serves revision {result['revision']} ({result.get('model', result['digest'][:12])})")
        if follows := result.get("follows"):
            show_note(f"It stays on that until {follows['name']} moves again.")


@click.command()
@click.argument("function")
@placing
@options()
def remove(function: str, place: Place, as_json: bool, project: Project) -> None:
    """Stop serving a function and forget its revisions. Its bundles stay in the store."""
    engine = cluster_engine(project, place) if place.is_cluster else running(project)
    result = engine.remove(function)
    if as_json:
        show_json(result)
    else:
        click.echo(f"{function} is removed.")


class Answer(NamedTuple):
    """What came back: `stages` are the milliseconds of Server-Timing, `seconds` the time seen from here."""

    status: int
    body: Any
    stages: dict[str, float]
    seconds: float


def post(url: str, body: bytes, gateway: str | None = None) -> Answer:
    """One POST of JSON. `gateway`: where to send it, with the URL's host in its head. Raises CommandError when nothing
    answers."""
    parts, way = urlsplit(url), urlsplit(gateway or url)
    connect = http.client.HTTPSConnection if way.scheme == "https" else http.client.HTTPConnection
    connection = connect(way.netloc, timeout=CALL_SECONDS_MAX)
    began = time.perf_counter()
    try:
        key = os.environ.get(API_KEY)
        headers = {"host": parts.netloc, "content-type": "application/json", **({"x-api-key": key} if key else {})}
        connection.request("POST", parts.path, body, headers)
        response = connection.getresponse()
        data = response.read()
        seconds = time.perf_counter() - began
    except (OSError, http.client.HTTPException) as error:
        where = f"{gateway} did not answer for {url}" if gateway else f"{url} did not answer"
        raise CommandError(f"{where}: {error}. `platform status` shows what is wrong.") from error
    finally:
        connection.close()
    try:
        decoded = json.loads(data)
    except ValueError:
        decoded = data.decode("utf-8", "replace")
    return Answer(response.status, decoded, parse_server_timing(response.headers.get("server-timing", "")), seconds)


def parse_server_timing(header: str) -> dict[str, float]:
    """Milliseconds by name of a Server-Timing header (W3C Server Timing): `decode;dur=0.02, lookup;dur=0.3`."""
    found: dict[str, float] = {}
    for part in header.split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key == "dur":
                found[name] = float(value.strip('"'))
    return found


def _address(project: Project) -> str:
    address = running(project).running()
    if address is None:
        raise CommandError("The engine has just ended. Start it again with `platform up --detach`.")
    url: str = address["url"]
    return url


def _cluster_url(project: Project, place: Place, function: str) -> str:
    url = cluster_engine(project, place).status(function)["functions"][0]["url"]
    if not url:
        raise CommandError(f"{function} has no URL yet. `platform status{place.options()}` shows what it waits for.")
    return str(url)


def _read(record: str) -> bytes:
    if record == "-":
        text = sys.stdin.read()
    elif record.startswith("@"):
        try:
            text = Path(record[1:]).read_text()
        except OSError as error:
            raise UsageError(f"{record[1:]} cannot be read: {error.strerror}.") from error
    else:
        text = record
    try:
        json.loads(text)
    except ValueError as error:
        raise UsageError(f"The record is not JSON: {error}. Put it in single quotes: '{{\"amount\": 12.5}}'") from error
    return text.encode()


def _show_answer(answer: Answer) -> None:
    body = answer.body
    predictions = body["predictions"]
    if len(predictions) == 1:
        pairs({name: json.dumps(value) if isinstance(value, list) else value for name, value in predictions[0].items()})
    else:
        names = list(dict.fromkeys(name for one in predictions for name in one))
        show_table(names, [[str(one.get(name, "")) for name in names] for one in predictions])
    click.echo()
    click.echo(
        click.style(f"{body['function']} revision {body['revision']} ({body['model']}), id {body['id']}", dim=True)
    )
    warm = {name: ms for name, ms in answer.stages.items() if name not in COLD}
    cold = {name: ms for name, ms in answer.stages.items() if name in COLD}
    if cold:
        click.echo(f"woken: {timings(cold)}")
    click.echo(f"{timings(warm)}   seen from here {milliseconds(1000 * answer.seconds)}")
