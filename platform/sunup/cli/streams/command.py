"""`platform stream`: the group and its commands, each from a file of its own but for `status`."""

import sys

import click

from sunup.cli.cluster.place import Place, cluster_engine, placing
from sunup.cli.cluster.screen import stream_reasons, stream_table
from sunup.cli.engine import running
from sunup.cli.streams.letters.dead import dead
from sunup.cli.streams.letters.replay import replay_command
from sunup.cli.streams.pause import pause, resume
from sunup.cli.streams.screen import STREAM_COLUMNS, show_detail, stream_notes, stream_row
from sunup.cli.streams.seek import seek
from sunup.cli.terminal import console, options, show_json, show_note, show_table
from sunup.settings import Project


@click.group()
def stream() -> None:
    """Look after the topics functions score."""


@stream.command()
@click.argument("function", required=False)
@placing
@options()
def status(function: str | None, place: Place, as_json: bool, project: Project) -> None:
    """Show every stream: lag, rate, workers, what keeps it (one FUNCTION: by partition)."""
    engine = cluster_engine(project, place) if place.is_cluster else running(project)
    functions = [one for one in engine.status(function)["functions"] if "stream" in one]
    if as_json:
        show_json([{"function": one["name"], **one["stream"]} for one in functions])
    elif not functions:
        show_note(
            f"{function} has no [stream] in its function.toml."
            if function
            else "No function that is deployed has a [stream] in its function.toml."
        )
    elif place.is_cluster:
        console(sys.stdout).print(stream_table(functions))
        for line in stream_reasons(functions):
            click.echo(line)
    else:
        show_table(STREAM_COLUMNS, [stream_row(one["name"], one["stream"]) for one in functions])
        for line in stream_notes(functions):
            click.echo(line)
        if function is not None:
            show_detail(functions[0]["stream"])


stream.add_command(pause)
stream.add_command(resume)
stream.add_command(dead)
stream.add_command(replay_command)
stream.add_command(seek)
