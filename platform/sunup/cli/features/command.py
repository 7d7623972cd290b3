"""`platform features`: what is typed. What it does is in skew.py, which --help does without."""

from pathlib import Path

import click

from sunup.cli.terminal import options
from sunup.errors import UsageError
from sunup.settings import Project


@click.group()
def features() -> None:
    """Look after the features functions are served with."""


@features.command("compare")
@click.argument("function", metavar="NAME")
@click.option("--since", metavar="AGE", help="Only what was served in the last 24h, 90m, 7d. [default: all there is]")
@click.option("--revision", type=int, metavar="N", help="Which one. [default: the one that serves]")
@click.option(
    "--log",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the log is. [default: as function.toml says]",
)
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.png", help="Also draw it.")
@click.option("--psi-max", type=click.FloatRange(min=0), metavar="X", help="Exit with 1 if any PSI is beyond X.")
@options()
def compare_command(
    *,
    function: str,
    since: str | None,
    revision: int | None,
    folder: Path | None,
    plot: Path | None,
    psi_max: float | None,
    as_json: bool,
    project: Project,
) -> None:
    """Compare what was served with what the model was trained on.

    Per feature: the population stability index (PSI) over the training sample's deciles, missing rates, defaults and
    quantiles. The log of served features is read in parts, however large it is.
    """
    if plot is not None and plot.suffix.lower() != ".png":
        raise UsageError(f"--plot {plot} does not end in .png, and a PNG is what is drawn.")
    from sunup.cli.features.skew import Asked, show_skew  # numpy and the engine's client: 0.2 s that --help saves

    show_skew(project, Asked(function, revision, since, folder, plot, psi_max), as_json=as_json)
