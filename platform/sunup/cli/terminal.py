"""What the commands share: their common options, and how facts, stages, tables and errors are printed.

Facts go to standard output, everything else to standard error. Colour and wrapping only where a person looks on.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from sunup.settings import Project, find_project

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status
    from rich.table import Table

Command = TypeVar("Command", bound=Callable[..., Any])


def options(*, facts: bool = True) -> Callable[[Command], Command]:
    """The options every command has: --project, --debug and, where it prints facts, --json (as `as_json`)."""

    def to_project(_: click.Context, __: click.Parameter, value: str | None) -> Project:
        return find_project(Path.cwd(), Path(value) if value is not None else None)

    def add(command: Command) -> Command:
        if facts:
            command = click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")(command)
        command = click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")(command)
        return click.option(
            "--project",
            metavar="DIR",
            callback=to_project,
            help="The project folder. [default: the nearest parent that holds functions/ or .sunup/]",
        )(command)

    return add


def accepting(command: Command) -> Command:
    """The option --accept-difference (as `accept`) of the commands that make bundles."""
    return click.option(
        "--accept-difference",
        "accept",
        type=click.FloatRange(0.0, 1.0, min_open=True),
        default=None,
        callback=lambda _, __, value: value or 0.0,
        metavar="X",
        help="Accept a conversion whose answers differ by up to X; it is recorded and shown.",
    )(command)


def show_error(message: str, *, hint: str | None = None) -> None:
    """One paragraph on standard error."""
    paragraph = f"{message} {hint}" if hint else message
    if sys.stderr.isatty():
        console(sys.stderr).print(f"[bold red]error[/] {_escape(paragraph)}", highlight=False)
    else:
        click.echo(f"error: {paragraph}", err=True)


def show_note(message: str) -> None:
    """One line on standard error about what is happening."""
    click.echo(click.style(message, dim=True), err=True)


def show_json(facts: object) -> None:
    """Facts as JSON on standard output."""
    click.echo(json.dumps(facts, indent=2, default=str))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None) -> None:
    """A table on standard output; columns whose name ends in a space are right-aligned numbers."""
    console(sys.stdout).print(table(columns, rows, title=title))


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None, fold: bool = True
) -> "Table":
    """The table of `show_table`. `fold`: what is too wide goes on in the next line; else it is cut."""
    from rich.table import Table  # rich costs 60 ms, and --help must not pay for it

    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="dim")
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.endswith(" ") else "left"
        made.add_column(column.rstrip(), justify=justify, overflow="fold" if fold else "ellipsis", no_wrap=not fold)
    for row in rows:
        made.add_row(*(_escape(cell) for cell in row))
    return made


class Stages:
    """Progress of a long command: a spinner on the stage under way, a line with its time for each one done."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._console = None if quiet or not sys.stderr.isatty() else console(sys.stderr)
        self._spinner: Status | None = None
        self._name = ""
        self._detail = ""
        self._began = 0.0
        self.seconds: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"Stages(now={self._name!r}, seconds={self.seconds})"

    @property
    def stage(self) -> str:
        """The one under way, or ""."""
        return self._name

    def begin(self, name: str, detail: str = "") -> None:
        """A stage begins; the one before it, if any, is done."""
        self.end()
        self._name, self._detail, self._began = name, detail, time.monotonic()
        if self._console is not None:
            self._spinner = self._console.status(f"{name}  [dim]{_escape(detail)}[/]")
            self._spinner.start()

    def end(self) -> None:
        """The stage under way, if any, is done."""
        name = self._name
        self.stop()
        if name:
            self.note(name, time.monotonic() - self._began, self._detail)

    def update(self, detail: str) -> None:
        """Another detail of the stage under way."""
        self._detail = detail
        if self._spinner is not None:
            self._spinner.update(_escape(f"{self._name} {detail}"))

    def note(self, name: str, seconds: float, detail: str = "") -> None:
        """Print and remember a stage that somebody else timed."""
        self.seconds[name] = round(self.seconds.get(name, 0.0) + seconds, 4)
        line = f"  {name:<10}{seconds:8.2f} s  {detail}".rstrip()
        if self._console is not None:
            self._console.print(_escape(line), style="dim" if seconds < 0.1 else "")
        elif not self._quiet:
            click.echo(line, err=True)

    def stop(self) -> None:
        """Take the spinner away without noting the stage (it failed)."""
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None
        self._name = ""


@contextmanager
def stages(*, quiet: bool) -> Iterator[Stages]:
    """Stages that leave no spinner behind, whatever happens. `quiet` prints nothing (for --json)."""
    shown = Stages(quiet=quiet)
    try:
        yield shown
        shown.end()
    finally:
        shown.stop()


def size(count: float) -> str:
    """Bytes for people: 18.2 MB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def milliseconds(value: float | None) -> str:
    """A time in milliseconds for people; a dash when there is none."""
    if value is None:
        return "-"
    return f"{value:.2f} ms" if value < 10 else f"{value:.0f} ms"


def timings(stages: Mapping[str, float]) -> str:
    """Milliseconds by stage, in one line."""
    return "  ".join(f"{name} {milliseconds(ms)}" for name, ms in stages.items())


def when(seconds: float) -> str:
    """A moment (Unix seconds) in local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def pairs(facts: Mapping[str, object]) -> None:
    """Name and value, one pair a line, on standard output."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        click.echo(f"{name:<{width}}  {value}")


def console(stream: Any) -> "Console":
    """Where rich prints: as wide as the terminal, or as COLUMNS says."""
    from rich.console import Console  # rich costs 60 ms, and --help must not pay for it

    width = None if stream.isatty() else int(os.environ.get("COLUMNS", "160"))
    return Console(file=stream, width=width, highlight=False, soft_wrap=False)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")
