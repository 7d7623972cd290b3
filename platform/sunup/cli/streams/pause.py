"""`platform stream pause` and `resume`."""

from typing import Any

import click

from sunup.cli.cluster.place import Place, cluster_engine, placing
from sunup.cli.engine import running
from sunup.cli.terminal import options, show_json
from sunup.settings import Project

_partitions = click.option(
    "--partition", "partitions", type=click.IntRange(0), multiple=True, metavar="N", help="Only this one. Repeatable."
)


@click.command()
@click.argument("function")
@_partitions
@placing
@options()
def pause(function: str, partitions: tuple[int, ...], place: Place, as_json: bool, project: Project) -> None:
    """Read nothing more of a function's topic until `resume`; workers finish and commit what they have.

    It stays so when the engine is started again and when the function is deployed again.
    """
    engine = cluster_engine(project, place) if place.is_cluster else running(project)
    _show(engine.pause(function, partitions or None), as_json)


@click.command()
@click.argument("function")
@_partitions
@placing
@options()
def resume(function: str, partitions: tuple[int, ...], place: Place, as_json: bool, project: Project) -> None:
    """Read a paused topic on, from where its group stands."""
    engine = cluster_engine(project, place) if place.is_cluster else running(project)
    _show(engine.resume(function, partitions or None), as_json)


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
