"""A small language for what an object may hold: every key is known, or a finding names the closest one that is."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from sunup.bundle.declare.lines import closest

Judge: TypeAlias = Callable[[Any], str | None]  # what is wrong with a value and what to do, or None
Problem: TypeAlias = tuple[str, str]  # the path of a value, what is wrong with it


@dataclass(frozen=True, slots=True)
class Table:
    """An object whose keys are these. `needed`: those that must be there."""

    fields: Mapping[str, "Rule"]
    needed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Each:
    """A list of such things, at least one."""

    of: "Rule"


@dataclass(frozen=True, slots=True)
class Keyed:
    """An object with free keys."""

    key: Judge
    value: Judge


Rule: TypeAlias = Judge | Table | Each | Keyed


def walk(rule: Rule, value: Any, path: str = "") -> Iterator[Problem]:
    """Everything that is wrong with `value`, in its order."""
    if isinstance(rule, Each):
        if not isinstance(value, list) or not value:
            yield path, "it must be a list of at least one"
            return
        for number, one in enumerate(value):
            yield from walk(rule.of, one, f"{path}[{number}]")
    elif isinstance(rule, Table | Keyed):
        if not isinstance(value, dict):
            yield path, "it must be an object with keys"
        else:
            yield from _table(rule, value, path) if isinstance(rule, Table) else _keyed(rule, value, path)
    elif problem := rule(value):
        yield path, problem


def below(path: str, key: str) -> str:
    """The path of a key: a dot, or brackets where the key has dots and slashes itself."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", key):
        return f'{path}["{key}"]'
    return f"{path}.{key}" if path else key


def _table(rule: Table, value: dict[str, Any], path: str) -> Iterator[Problem]:
    for key in rule.needed:
        if key not in value:
            yield below(path, key), "it is missing"
    for key, one in value.items():
        if key in rule.fields:
            yield from walk(rule.fields[key], one, below(path, key))
        else:
            near = closest(key, rule.fields) or " Leave it out."
            yield below(path, key), f"there is no such key here.{near}"


def _keyed(rule: Keyed, value: dict[str, Any], path: str) -> Iterator[Problem]:
    for key, one in value.items():
        problem = rule.key(key) or rule.value(one)
        if problem:
            yield below(path, key), problem
