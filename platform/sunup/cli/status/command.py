"""`platform status`: what there is, and with --watch what goes on."""

import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

import click

from sunup.cli.cluster.place import Place, cluster_engine, placing
from sunup.cli.cluster.screen import cluster_detail, cluster_overview
from sunup.cli.engine import running
from sunup.cli.status.rates import Rates
from sunup.cli.status.screen import detail, overview
from sunup.cli.terminal import console, options, show_json, show_note, when
from sunup.errors import EngineError
from sunup.settings import Project

if TYPE_CHECKING:
    from rich.table import Table

REFRESH_SECONDS: Final = 1.0
_AROUND: Final = 8  # lines of the terminal that are not rows of functions
_NOTHING: Final = "Nothing is deployed yet: platform deploy NAME"

Show = Callable[[dict[str, Any]], None]


class _Asked(Protocol):
    """What is asked of either engine here."""

    def status(self, function: str | None, *, latency: bool = False) -> dict[str, Any]: ...


@click.command()
@click.argument("function", required=False)
@click.option("--watch", is_flag=True, help="Go on, a look a second, until Ctrl-C.")
@placing
@options()
def status(function: str | None, watch: bool, place: Place, as_json: bool, project: Project) -> None:
    """Show functions, revisions, workers and their figures (one FUNCTION: in detail).

    With --watch, requests per second, p50 and p99 are those of the last second; with --json it prints one line a look.
    """
    engine: _Asked = cluster_engine(project, place) if place.is_cluster else running(project)
    if watch:
        engine.status(function)  # an unknown function is an error now, not an empty screen
        _watch(engine, function, as_json=as_json)
        return
    facts = engine.status(function)
    if as_json:
        show_json(facts)
        return
    _print(_parts(facts, function))
    if trouble := facts["engine"].get("access", {}).get("trouble"):
        show_note(f"{trouble} The keys known before hold.")
    if not facts["functions"]:
        show_note(_NOTHING)


def _watch(engine: _Asked, function: str | None, *, as_json: bool) -> None:
    """Look and show until Ctrl-C, which is how this ends and no failure."""
    try:
        if as_json:
            _look(engine, function, lambda facts: click.echo(json.dumps(facts, default=str)))
        elif not sys.stdout.isatty():
            _look(engine, function, lambda facts: _print([when(facts["at"]), *_parts(facts, function), ""]))
        else:
            _live(engine, function)
    except KeyboardInterrupt:
        return


def _look(engine: _Asked, function: str | None, show: Show) -> None:
    """Show what each look finds. Without an engine that is an `error`: it may come back."""
    rates, now = Rates(), time.monotonic()
    due = now
    while True:
        facts: dict[str, Any]
        try:
            facts = rates.since(engine.status(function, latency=True), now)
        except EngineError as error:
            facts = {"error": error.message}
        show({"at": round(time.time(), 3), **facts})
        sys.stdout.flush()
        due = max(due + REFRESH_SECONDS, now)
        time.sleep(max(0.0, due - time.monotonic()))  # the period of looking
        now = time.monotonic()


def _print(parts: "list[str | Table]") -> None:
    for part in parts:
        if isinstance(part, str):
            click.echo(part)  # unlike rich it wraps nothing, and takes nothing for markup
        else:
            console(sys.stdout).print(part)


def _live(engine: _Asked, function: str | None) -> None:
    from rich.console import Group  # rich costs 60 ms, and --help must not pay for it
    from rich.live import Live  # as above
    from rich.text import Text  # as above

    screen = console(sys.stdout)
    with Live(console=screen, auto_refresh=False, vertical_overflow="ellipsis") as live:

        def show(facts: dict[str, Any]) -> None:
            parts = _parts(facts, function, fold=False, rows_max=max(1, screen.height - _AROUND))
            live.update(Group(*(Text(part) if isinstance(part, str) else part for part in parts)), refresh=True)

        _look(engine, function, show)


def _parts(
    facts: dict[str, Any], function: str | None, *, fold: bool = True, rows_max: int | None = None
) -> "list[str | Table]":
    if "error" in facts:
        return [facts["error"]]
    on_cluster = facts["engine"].get("engine") == "kubernetes"
    parts = (cluster_overview if on_cluster else overview)(facts, fold=fold, rows_max=rows_max)
    if function is not None:
        for one in facts["functions"]:
            parts += cluster_detail(one, fold=fold) if on_cluster else detail(one, facts["engine"], fold=fold)
    return parts
