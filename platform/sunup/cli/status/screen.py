"""How the facts about an engine are laid out for a person: lines and tables, from top to bottom."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from sunup.cli.streams.screen import STREAM_COLUMNS, stream_notes, stream_row
from sunup.cli.terminal import milliseconds, size, table, timings, when

if TYPE_CHECKING:
    from rich.table import Table

_COLUMNS: Final = (
    "function",
    "rev ",
    "model",
    "state",
    "workers ",
    "memory ",
    "req/s ",
    "p50 ",
    "p99 ",
    "cold ",
    "last cold ",
)


def overview(facts: Mapping[str, Any], *, fold: bool = True, rows_max: int | None = None) -> "list[str | Table]":
    """The engine and its functions. `fold`: see terminal.table; `rows_max`: the busiest so many functions."""
    engine, functions = facts["engine"], _busiest(facts["functions"], rows_max)
    memory = sum(process["pss_bytes"] for process in engine["processes"])
    parts: list[str | Table] = [
        f"{engine['url']}   metrics {engine['metrics_url']}   resident processes {size(memory)}",
        "",
        table(_COLUMNS, [_row(one) for one in functions], fold=fold),
    ]
    if len(functions) < len(facts["functions"]):
        parts.append(f"and {len(facts['functions']) - len(functions):,} more")
    streams = [one for one in functions if "stream" in one]
    if streams:
        parts += ["", table(STREAM_COLUMNS, [stream_row(one["name"], one["stream"]) for one in streams], fold=fold)]
    notes = [*stream_notes(streams), *_reasons(functions), *_follows(functions, time.time())]
    return [*parts, *notes]


def detail(one: Mapping[str, Any], engine: Mapping[str, Any], *, fold: bool = True) -> "list[str | Table]":
    """More of one function: its cold starts by stage, processes and revisions."""
    if "workers" not in one:
        return []
    parts: list[str | Table] = []
    cold = one["cold_starts"]
    if cold["last_ms"]:
        parts.append(
            f"\nlast cold start: {timings(cold['last_ms'])}\nmean of {cold['count']}: {timings(cold['mean_ms'])}"
        )
    workers = [[f"{w['id']} ({w['role']})", str(w["pid"]), w["state"], size(w["memory_bytes"])] for w in one["workers"]]
    processes = [
        [process["role"], str(process["pid"]), "", size(process["pss_bytes"])] for process in engine["processes"]
    ]
    revisions = [[str(r["revision"]), r["model"], r["digest"][:12], when(r["at"])] for r in reversed(one["revisions"])]
    return [
        *parts,
        "",
        table(["process", "pid ", "state", "memory "], workers + processes, fold=fold),
        "",
        table(["revision ", "model", "bundle", "deployed"], revisions, fold=fold),
    ]


def _busiest(functions: Sequence[dict[str, Any]], most: int | None) -> Sequence[dict[str, Any]]:
    if most is None or len(functions) <= most:
        return functions

    def quiet(one: dict[str, Any]) -> tuple[bool, float, int]:
        return one["state"] != "failed", -one.get("rps", 0.0), -len(one.get("workers", ()))

    chosen = {one["name"] for one in sorted(functions, key=quiet)[:most]}
    return [one for one in functions if one["name"] in chosen]


def _row(one: Mapping[str, Any]) -> list[str]:
    if "workers" not in one:  # its bundle is damaged
        return [one["name"], "", "", one["state"], *[""] * (len(_COLUMNS) - 4)]
    workers, cold = one["workers"], one["cold_starts"]
    states = Counter(worker["state"] for worker in workers)
    shown = str(len(workers)) if len(states) < 2 else ", ".join(f"{count} {name}" for name, count in states.items())
    return [
        one["name"],
        str(one["revision"]),
        one["model"] + _accepted(one),
        one["state"],
        shown,
        size(sum(worker["memory_bytes"] for worker in workers)),
        f"{one['rps']:.1f}",
        milliseconds(one["p50_ms"]),
        milliseconds(one["p99_ms"]),
        str(cold["count"]),
        milliseconds(cold["last_ms"].get("total")),
    ]


def _accepted(one: Mapping[str, Any]) -> str:
    """The mark of a function whose conversion is not within its tolerance."""
    accepted = one.get("accept_difference")
    return f" (differs by up to {accepted:g}: accepted)" if accepted else ""


def _reasons(functions: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"{one['name']}: {one['reason']}" for one in functions if one.get("reason")]


def _follows(functions: Sequence[Mapping[str, Any]], now: float) -> list[str]:
    """A line for each function that follows an alias, and why it is not where the alias is, if so."""
    lines = []
    for one in functions:
        if follows := one.get("follows"):
            at = follows["looked_at"]
            looked = "not looked at yet" if at is None else f"looked at {max(0.0, now - at):.0f} s ago"
            lines.append(f"{one['name']} follows {follows['name']}, {looked}")
            if follows["trouble"]:
                lines.append(f"  {follows['trouble']}")
            if refused := follows["refused"]:
                lines.append(f"  version {refused['version']} was refused {when(refused['at'])}: {refused['reason']}")
    return lines
