"""Names of models as people type them, and what a registry must be able to do.

`parse` turns text into a Reference without asking anybody; `choose` applies it to what a registry holds. Every backend
(mlflow.py, sqlite.py, folder.py) fetches entries its own way and leaves the decision to `choose`, so all of them agree.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from sunup.errors import RegistryError, UsageError

LATEST: Final = "latest"  # as MLflow has it: models:/fraud/latest and fraud@latest are the newest version
SCHEME: Final = "models:/"

_VERSIONED = re.compile(r"(?P<name>.+)-v(?P<version>[0-9]+)")
_GRAMMAR: Final = (
    "Write fraud-v3 (version), fraud@champion (alias), fraud (newest), models:/fraud/3 or models:/fraud@champion."
)


@dataclass(frozen=True, slots=True)
class Reference:
    """What was asked for. Neither `version` nor `alias`: the newest version.

    `exact`: the text as typed, when a model that is registered under just that name wins over the reading as name and
    version ("fraud-v3"); None when there is only one reading.
    """

    text: str
    name: str
    version: str | None = None
    alias: str | None = None
    exact: str | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """One version in a registry. `uri`: where its files are. `problem`: why it cannot be used, "" when it can."""

    run_id: str
    uri: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A registered model: its versions by number (as text) and its aliases (alias -> version)."""

    name: str
    versions: Mapping[str, Version]
    aliases: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Resolved:
    """One version of one model. `aliases`: those that point at it, sorted. `note`: one sentence worth telling the
    person who typed the name, or ""."""

    name: str
    version: str
    run_id: str
    source_uri: str
    aliases: tuple[str, ...] = ()
    note: str = ""


class Source(Protocol):
    """A model registry. Nothing here prints; every failure is a UsageError (the name) or a RegistryError."""

    def resolve(self, reference: Reference) -> Resolved:
        """The version `reference` names. Raises UsageError with the closest existing names when there is none."""

    def fetch(self, resolved: Resolved, into: Path) -> Path:
        """Bring the model's files under `into` (made if absent) and return the folder that holds `MLmodel`."""

    def models(self) -> list[str]:
        """Names of all registered models, sorted."""


def parse(text: str) -> Reference:
    """Read a name. Grammar: NAME | NAME-vN | NAME@ALIAS | models:/NAME/N | models:/NAME/latest | models:/NAME@ALIAS.

    Raises UsageError when `text` is none of these.
    """
    typed = text.strip()
    if typed.startswith(SCHEME):
        return _parse_uri(typed)
    if not typed or "/" in typed or ":" in typed or any(c.isspace() for c in typed):
        raise UsageError(f"{text!r} is not the name of a model. {_GRAMMAR}")
    if "@" in typed:
        return _with_alias(typed, typed)
    match = _VERSIONED.fullmatch(typed)
    if match:
        return Reference(typed, match["name"], version=str(int(match["version"])), exact=typed)
    return Reference(typed, typed)


def _parse_uri(text: str) -> Reference:
    """models:/... as MLflow writes it: the name in it is exact."""
    rest = text.removeprefix(SCHEME).lstrip("/")
    if "@" in rest and "/" not in rest:
        return _with_alias(text, rest)
    name, slash, version = rest.partition("/")
    if name and version == LATEST:
        return Reference(text, name)
    if name and slash and version.isdecimal() and version.isascii():
        return Reference(text, name, version=str(int(version)))
    raise UsageError(f"{text!r} names no version. {_GRAMMAR}")


def _with_alias(text: str, name_and_alias: str) -> Reference:
    name, _, alias = name_and_alias.partition("@")
    if not name or not alias or "@" in alias:
        raise UsageError(f"{text!r} is not a model and an alias. {_GRAMMAR}")
    return Reference(text, name, alias=None if alias.lower() == LATEST else alias)


def choose(
    reference: Reference, *, find: Callable[[str], Entry | None], names: Callable[[], list[str]], where: str
) -> Resolved:
    """Apply `reference` to a registry. `find` returns the entry of a name or None; `names` all names; `where` is the
    registry as people know it. Raises UsageError with what exists that is closest, RegistryError for a version that
    cannot be used."""
    exact = find(reference.exact) if reference.exact else None
    if exact is not None:
        note = (
            f"A model is registered as {exact.name}, so that is the one used, not version {reference.version} of "
            f"{reference.name} (for that write models:/{reference.name}/{reference.version})."
        )
        return _pick(exact, _newest(exact, where), note)
    entry = find(reference.name)
    if entry is None:
        raise UsageError(_no_model(reference, names(), where))
    if reference.alias is not None:
        if reference.alias not in entry.aliases:
            raise UsageError(_no_alias(reference, entry))
        return _pick(entry, entry.aliases[reference.alias])
    version = reference.version or _newest(entry, where)
    if version not in entry.versions:
        raise UsageError(_no_version(entry, version))
    return _pick(entry, version)


def _pick(entry: Entry, version: str, note: str = "") -> Resolved:
    found = entry.versions.get(version)
    if found is None:
        raise RegistryError(f"{entry.name} has an alias for version {version}, which is gone. Move the alias.")
    if found.problem:
        raise RegistryError(f"{entry.name} version {version} cannot be used: {found.problem}. Register it again.")
    aliases = tuple(sorted(alias for alias, target in entry.aliases.items() if target == version))
    return Resolved(entry.name, version, found.run_id, found.uri, aliases, note)


def _newest(entry: Entry, where: str) -> str:
    if not entry.versions:
        raise UsageError(f"{entry.name} is registered in {where} but has no version yet. Register one first.")
    return max(entry.versions, key=int)


def _no_model(reference: Reference, names: list[str], where: str) -> str:
    asked = reference.exact or reference.name
    if not names:
        return f"There is no model {asked} in {where}: it holds no models. Train and register one first."
    near = closest(reference.name, names)
    hint = f"Closest: {_join(near)}." if near else f"It holds {_join(names[:10])}{', ...' if len(names) > 10 else '.'}"
    return f"There is no model {reference.name} in {where}. {hint}"


def _no_version(entry: Entry, version: str) -> str:
    have = sorted(entry.versions, key=int)
    if not have:
        return f"{entry.name} has no versions yet, so no version {version}. Register one first."
    shown = ", ".join(have[-10:])
    return f"{entry.name} has no version {version}. It has {shown}{' (and older)' if len(have) > 10 else ''}."


def _no_alias(reference: Reference, entry: Entry) -> str:
    if not entry.aliases:
        newest = max(entry.versions, key=int, default="1")
        return f"{entry.name} has no alias {reference.alias}, and none at all. Name a version: {entry.name}-v{newest}."
    have = closest(reference.alias or "", entry.aliases) or sorted(entry.aliases)
    return f"{entry.name} has no alias {reference.alias}. Closest: {_join(f'{entry.name}@{alias}' for alias in have)}."


def problem(status: str, message: str | None) -> str:
    """Why a version with MLflow's `status` cannot be used; "" for one that can."""
    return "" if status == "READY" else f"its status is {status} ({message or 'no reason is given'})"


def closest(name: str, names: Iterable[str]) -> list[str]:
    """Up to three of `names` that look like `name`, best first."""
    return difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)


def _join(names: Iterable[str]) -> str:
    return ", ".join(names)
