"""`platform stream`: the topics functions score; and which broker a function's [stream] means."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from sunup.bundle.declare.spec import BROKER
from sunup.bundle.manifest import StreamSpec
from sunup.cli.engine import running
from sunup.cli.terminal import options, pairs, show_json, show_note, show_table, when
from sunup.errors import UsageError
from sunup.settings import EMBEDDED, STREAM_BROKER, Project


@click.group()
def stream() -> None:
    """Look after the topics functions score."""


@stream.command()
@click.argument("function", required=False)
@options()
def status(function: str | None, as_json: bool, project: Project) -> None:
    """Show every stream: lag, rate, workers, what keeps it (one FUNCTION: by partition)."""
    functions = [one for one in running(project).status(function)["functions"] if "stream" in one]
    if as_json:
        show_json([{"function": one["name"], **one["stream"]} for one in functions])
    elif not functions:
        show_note(
            f"{function} has no [stream] in its function.toml."
            if function
            else "No function that is deployed has a [stream] in its function.toml."
        )
    else:
        show_table(STREAM_COLUMNS, [stream_row(one["name"], one["stream"]) for one in functions])
        for line in stream_notes(functions):
            click.echo(line)
        if function is not None:
            _show_detail(functions[0]["stream"])


def broker_settings(declared: StreamSpec | None, environment: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """What workers of a function are told of its broker (nothing without a stream), and a line for the deployer.

    Raises UsageError when the environment does not name the broker, or the broker cannot keep the declared guarantee.
    """
    if declared is None:
        return {}, ""
    broker, why = declared.broker, ""
    if broker.startswith("env:"):
        name, _, otherwise = broker.removeprefix("env:").partition(" or ")
        broker = environment.get(name, "") or otherwise
        why = f" ({name} is not set)" if broker == otherwise else f" ({name})"
        if not broker:
            raise UsageError(
                f"[stream] broker is env:{name}, and {name} is not set. Set it to the brokers' host:port, or write "
                f'broker = "env:{name} or embedded" to use the embedded log without it.'
            )
        if not BROKER.fullmatch(broker) or broker.startswith("env:"):
            raise UsageError(f"{name} is {broker!r}, and {broker!r} is not host:port, or several with commas.")
    if broker != EMBEDDED and declared.guarantee == "exactly-once":
        raise UsageError(
            f'[stream] guarantee = "exactly-once" cannot be kept with the brokers at {broker} yet: a crash would have '
            'records scored twice. Write guarantee = "at-least-once" if that will do, or use the embedded log.'
        )
    where = "the embedded log" if broker == EMBEDDED else f"Kafka at {broker}"
    return {STREAM_BROKER: broker}, f"stream {declared.input} -> {declared.output} on {where}{why}"


STREAM_COLUMNS: Final = (
    "stream of",
    "topics",
    "broker",
    "state",
    "workers ",
    "lag ",
    "oldest ",
    "rec/s ",
    "scored ",
    "dead ",
)


def stream_notes(functions: Sequence[dict[str, Any]]) -> list[str]:
    """What is to be said of the streams among `functions`, a line each."""
    kinds = ("reason", "note")
    return [f"{one['name']}: {one['stream'][kind]}" for one in functions for kind in kinds if kind in one["stream"]]


def stream_row(name: str, facts: dict[str, Any]) -> list[str]:
    """A row of a table with STREAM_COLUMNS."""
    oldest = facts["oldest_seconds"]
    return [
        name,
        f"{facts['input']} -> {facts['output']}",
        facts["broker"],
        facts["state"],
        str(facts["workers"]),
        f"{facts['lag']:,}",
        "-" if oldest is None else f"{oldest:.1f} s",
        f"{facts['records_per_second']:,.1f}",
        f"{facts['scored']:,}",
        f"{facts['dead']:,}",
    ]


def _show_detail(facts: dict[str, Any]) -> None:
    click.echo()
    rows = [[str(one[name]) for name in ("partition", "position", "end", "lag")] for one in facts["partitions"]]
    show_table(["partition ", "position ", "end ", "lag "], rows)
    click.echo()
    last = facts["last_error"]
    pairs(
        {
            "group": facts["group"],
            "dead letters": facts["dead_letter"],
            "guarantee": facts["guarantee"],
            "last error": "none" if last is None else f"{when(last['at'])}  {last['message']}",
        }
    )
