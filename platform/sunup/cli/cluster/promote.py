"""`platform promote`: what was tried with a share of the calls gets them all."""

import click

from sunup.cli.cluster.place import Place, Wishes, cluster_engine, placing
from sunup.cli.terminal import options, show_json
from sunup.errors import UsageError
from sunup.settings import Project


@click.command()
@click.argument("function")
@click.option("--force", is_flag=True, help="Take over fields that others have changed.")
@placing
@options()
def promote(function: str, force: bool, place: Place, as_json: bool, project: Project) -> None:
    """Give all calls to the revision that is tried with --canary; no request is dropped."""
    if not place.is_cluster:
        raise UsageError("The local engine routes a proven revision at once and tries none: add --engine kubernetes.")
    result = cluster_engine(project, place, Wishes(force=force)).promote(function)
    if as_json:
        show_json(result)
    else:
        click.echo(f"{function} serves revision {result['revision']} ({result.get('model', '')}) to all callers")
