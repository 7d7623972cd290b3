"""What streams look like on a terminal."""

from collections.abc import Sequence
from typing import Any, Final

import click

from sunup.cli.terminal import milliseconds, pairs, show_table, when

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
VIEW_COUNTS: Final = ("late", "duplicates", "invalid", "misplaced", "behind")
VIEW_COLUMNS: Final = ("features of", "state", "entities ", "fresh ", *[f"{kind} " for kind in VIEW_COUNTS])


def stream_notes(functions: Sequence[dict[str, Any]]) -> list[str]:
    """What is to be said of the streams among `functions`, a line each."""
    kinds = ("reason", "note")
    said = [f"{one['name']}: {one['stream'][kind]}" for one in functions for kind in kinds if kind in one["stream"]]
    return said + [_features(one["name"], view) for one in functions for view in one["stream"].get("features", ())]


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
    if views := facts.get("features"):
        show_table(VIEW_COLUMNS, [_view_row(one) for one in views])
        click.echo()
    last = facts["last_error"]
    pairs(
        {
            "group": facts["group"],
            "dead letters": facts["dead_letter"],
            "guarantee": facts["guarantee"],
            **({"client": facts["client"]} if facts["client"] else {}),
            **_aggregates(facts),
            "last error": "none" if last is None else f"{when(last['at'])}  {last['message']}",
        }
    )


def _features(name: str, view: dict[str, Any]) -> str:
    """What one line says of a view that a function aggregates."""
    known = "" if view["entities"] is None else f", {view['entities']:,} entities"
    fresh = "" if view["freshness_ms"] is None else f", {milliseconds(view['freshness_ms'])} old when written"
    behind = f", {view['behind']:,} not in the store yet" if view["behind"] else ""
    return f"{name}: features of {view['view']} {view['state']}{known}{fresh}{behind}"


def _view_row(view: dict[str, Any]) -> list[str]:
    known = "-" if view["entities"] is None else f"{view['entities']:,}"
    counts = [f"{view[kind]:,}" for kind in VIEW_COUNTS]
    return [view["view"], view["state"], known, milliseconds(view["freshness_ms"]), *counts]


def _aggregates(facts: dict[str, Any]) -> dict[str, str]:
    """What else is known of the views it aggregates."""
    if "features" not in facts:
        return {}
    reasons = {f"invalid in {one['view']}": one["reason"] for one in facts["features"] if one["reason"]}
    due = facts["next_change"]
    notes = {f"note {at}": note for at, note in enumerate(facts["notes"], 1)}
    return {"next change": "-" if due is None else when(due), **reasons, **notes}


def _partition_row(one: dict[str, Any]) -> list[str]:
    reader = "paused" if one["paused"] else one["worker"] or "-"
    numbers = [f"{one[name]:,}" for name in ("partition", "position", "end", "lag")]
    return [*numbers, _seconds(one["oldest_seconds"]), reader]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"
