"""`platform stream pause` and `resume`."""

from typing import Any

import click

from sunup.cli.engine import running
from sunup.cli.terminal import options, show_json
from sunup.settings import Project

_partitions = click.option(
    "--partition", "partitions", type=click.IntRange(0), multiple=True, metavar="N", help="Only this one. Repeatable."
)


@click.command()
@click.argument("function")
@_partitions
@options()
def pause(function: str, partitions: tuple[int, ...], as_json: bool, project: Project) -> None:
    """Read nothing more of a function's topic until `resume`; workers finish and commit what they have.

    It stays so when the engine is started again and when the function is deployed again.
    """
    _show(running(project).pause(function, partitions or None), as_json)


@click.command()
@click.argument("function")
@_partitions
@options()
def resume(function: str, partitions: tuple[int, ...], as_json: bool, project: Project) -> None:
    """Read a paused topic on, from where its group stands."""
    _show(running(project).resume(function, partitions or None), as_json)


def _show(result: dict[str, Any], as_json: bool) -> None:
    function, paused, workers = result["function"], result["paused"], result["workers"]
    if as_json:
        show_json(result)
    elif paused == "all":
        still = f"; {workers} of its workers still finish what they have" if workers else ""
        click.echo(f"The stream of {function} is paused{still}.")
    elif paused:
        click.echo(f"The stream of {function} is read, but for partition {', '.join(map(str, paused))}.")
    else:
        click.echo(f"The stream of {function} is read.")
