"""What streams look like on a terminal."""

from collections.abc import Sequence
from typing import Any, Final

import click

from sunup.cli.terminal import pairs, show_table, when

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


def show_detail(facts: dict[str, Any]) -> None:
    """Print what a stream is by partition, and what else is known of it."""
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
