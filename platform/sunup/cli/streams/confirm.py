"""Asking before something that cannot be taken back."""

import sys

import click

from sunup.errors import UsageError


def confirm(question: str, *, yes: bool) -> None:
    """Ask on standard error; `yes`: it was answered beforehand. Raises UsageError where nobody can answer, click.Abort
    for a no."""
    if yes:
        return
    try:
        click.confirm(question, abort=True, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        click.echo(err=True)  # behind the question
        raise UsageError("Nothing was done, for nobody said yes. Add --yes.") from None
