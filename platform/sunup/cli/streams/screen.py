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


PARTITION_COLUMNS: Final = ("partition ", "position ", "end ", "lag ", "oldest ", "read by")


def stream_notes(functions: Sequence[dict[str, Any]]) -> list[str]:
    """What is to be said of the streams among `functions`, a line each."""
    kinds = ("reason", "note")
    return [f"{one['name']}: {one['stream'][kind]}" for one in functions for kind in kinds if kind in one["stream"]]


def stream_row(name: str, facts: dict[str, Any]) -> list[str]:
    """A row of a table with STREAM_COLUMNS."""
    return [
        name,
        f"{facts['input']} -> {facts['output']}",
        facts["broker"],
        facts["state"],
        str(facts["workers"]),
        f"{facts['lag']:,}",
        _seconds(facts["oldest_seconds"]),
        f"{facts['records_per_second']:,.1f}",
        f"{facts['scored']:,}",
        f"{facts['dead']:,}",
    ]


def show_detail(facts: dict[str, Any]) -> None:
    """Print what a stream is by partition, and what else is known of it."""
    click.echo()
    show_table(PARTITION_COLUMNS, [_partition_row(one) for one in facts["partitions"]])
    click.echo()
    last = facts["last_error"]
    pairs(
        {
            "group": facts["group"],
            "dead letters": facts["dead_letter"],
            "guarantee": facts["guarantee"],
            **({"client": facts["client"]} if facts["client"] else {}),
            "last error": "none" if last is None else f"{when(last['at'])}  {last['message']}",
        }
    )


def _partition_row(one: dict[str, Any]) -> list[str]:
    reader = "paused" if one["paused"] else one["worker"] or "-"
    numbers = [f"{one[name]:,}" for name in ("partition", "position", "end", "lag")]
    return [*numbers, _seconds(one["oldest_seconds"]), reader]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"
