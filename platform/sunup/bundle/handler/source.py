"""handler.py as it was written: its text, what it requires, and whether it says what it should. Nothing runs here."""

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from sunup.bundle.declare.lines import closest
from sunup.errors import UsageError

HANDLER: Final = "handler.py"
LOCK: Final = "requirements.lock"
LIB: Final = "lib"
REQUIREMENTS: Final = "requirements.txt"
EXAMPLES: Final = "examples.json"
HOOKS: Final[Mapping[str, str]] = {"preprocess": "rows", "postprocess": "rows, outputs"}


class Source(msgspec.Struct, frozen=True):
    """A function's own code. `folder`: where it stands; `requirements`: the text of requirements.txt, or "";
    `examples`: request records to try it with; `hooks`: those it defines."""

    folder: str
    code: str
    requirements: str
    examples: tuple[dict[str, Any], ...]
    hooks: tuple[str, ...]


def read_handler(folder: Path) -> Source | None:
    """The handler in a function's folder; None when it has none. Raises UsageError: file, line and what is wrong."""
    path = folder / HANDLER
    if not path.is_file():
        for name in (REQUIREMENTS, EXAMPLES):
            if (folder / name).is_file():
                raise UsageError(f"{folder / name} is for a {HANDLER}, which is not there. Write one, or remove it.")
        return None
    try:
        code = path.read_text("utf-8")
        requirements = _read(folder / REQUIREMENTS)
        examples = tuple(msgspec.convert(json.loads(_read(folder / EXAMPLES) or "[]"), list[dict[str, Any]]))
    except (UnicodeDecodeError, ValueError) as error:
        raise UsageError(f"A file of {folder} cannot be read: {error}. {EXAMPLES} is a list of records.") from error
    return Source(str(folder), code, requirements, examples, _hooks(path, code))


def _read(path: Path) -> str:
    return path.read_text("utf-8") if path.is_file() else ""


def _hooks(path: Path, code: str) -> tuple[str, ...]:
    try:
        tree = ast.parse(code)
    except SyntaxError as error:
        raise UsageError(f"{path}, line {error.lineno}: {error.msg}.") from error
    found: list[str] = []
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        if node.name in HOOKS:
            _check_signature(path, node)
            found.append(node.name)
        elif near := closest(node.name, HOOKS):
            raise UsageError(f"{path}, line {node.lineno}: {node.name} is no hook and would never be called.{near}")
    if not found:
        known = " and ".join(f"{name}({arguments})" for name, arguments in HOOKS.items())
        raise UsageError(f"{path} defines no hook. Known: {known}; either will do.")
    return tuple(name for name in HOOKS if name in found)


def _check_signature(path: Path, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    arguments = node.args
    needed = len(HOOKS[node.name].split(","))
    count = len(arguments.posonlyargs) + len(arguments.args)
    optional = len(arguments.defaults)
    fits = count - optional <= needed <= count and not arguments.vararg and None not in arguments.kw_defaults
    if isinstance(node, ast.AsyncFunctionDef) or not fits:
        raise UsageError(f"{path}, line {node.lineno}: write `def {node.name}({HOOKS[node.name]})`, a plain function.")
