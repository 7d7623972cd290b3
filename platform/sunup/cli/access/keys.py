"""`platform keys`: the keys of callers, made, listed and revoked. An engine that uses the file notices by itself."""

from pathlib import Path
from typing import Any

import click

from sunup.access import keys as kept
from sunup.access.keys import Key
from sunup.cli.terminal import options, show_json, show_note, show_table
from sunup.settings import Project

_FILE = click.option(
    "--file", "file", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
    help="The key file. [default: keys.jsonl in .sunup/]",
)  # fmt: skip


@click.group()
def keys() -> None:
    """Make, list and revoke the keys of callers (platform up --api-keys FILE)."""


@keys.command()
@click.option("--functions", metavar="A,B", help="The functions it covers. [default: all]")
@click.option("--name", default="", help="What it is for.")
@_FILE
@options()
def new(*, functions: str | None, name: str, file: Path | None, as_json: bool, project: Project) -> None:
    """Make a key and print it, once: only its digest is kept.

    Callers send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`.
    """
    path = file or project.keys
    covered = None if functions is None else [one.strip() for one in functions.split(",") if one.strip()]
    text, key = kept.make(name=name, functions=covered)
    kept.add(path, key)
    if as_json:
        show_json({"key": text, "file": str(path), **_facts(key)})
        return
    click.echo(text)
    show_note(f"Key {key.id} covers {_scope(key)}. It is not shown again; its digest is in {path}.")


@keys.command("list")
@_FILE
@options()
def list_keys(*, file: Path | None, as_json: bool, project: Project) -> None:
    """Show what keys there are: never the keys."""
    path = file or project.keys
    found = kept.read(path) if path.exists() else []
    if as_json:
        show_json({"file": str(path), "keys": [_facts(key) for key in found]})
    elif found:
        show_table(["id", "name", "functions", "created"], [[k.id, k.name, _scope(k), k.created] for k in found])
    else:
        show_note(f"There are no keys in {path}. `platform keys new` makes one.")


@keys.command()
@click.argument("which", metavar="ID|NAME")
@_FILE
@options()
def revoke(*, which: str, file: Path | None, as_json: bool, project: Project) -> None:
    """Revoke a key: a running engine refuses it within a second."""
    gone = kept.revoke(file or project.keys, which)
    if as_json:
        show_json({"revoked": [_facts(key) for key in gone]})
    else:
        click.echo(f"Revoked: {', '.join(key.id for key in gone)}.")


def _facts(key: Key) -> dict[str, Any]:
    return {"id": key.id, "name": key.name, "functions": key.functions, "created": key.created}


def _scope(key: Key) -> str:
    return "all functions" if key.functions is None else ", ".join(key.functions)
