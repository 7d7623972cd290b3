"""The documentation says what is there: commands, flags, keys, metrics and limits, no more and no less.

`python -m tests.test_docs` writes the table of limits in operations.md again from limits.py.
"""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any, Final

import click
import msgspec
import pytest

from sunup import limits
from sunup.bundle.declare import file
from sunup.bundle.manifest import SecuritySpec
from sunup.cli.main import COMMANDS, platform
from sunup.serve.telemetry.metrics import HELP

ROOT: Final = Path(__file__).resolve().parent.parent
DOCS: Final = ROOT / "platform" / "docs"
PAGES: Final = sorted([ROOT / "README.md", *DOCS.glob("*.md"), *(ROOT / "platform").glob("*.md")])
OPERATIONS: Final = DOCS / "operations.md"
LIMITS: Final = re.compile(r"(<!-- limits: .*? -->\n)(.*?)(<!-- end of limits -->)", re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def command(name: str, *words: str) -> click.Command:
    """A command, or of a group the one that the next of `words` names."""
    found = platform.get_command(click.Context(platform), name)
    assert found is not None
    if isinstance(found, click.Group) and words:
        found = found.commands[words[0]]
    return found


def commands(name: str) -> list[tuple[str, click.Command]]:
    """What is typed, and the command it is: one, or those of a group."""
    found = command(name)
    if not isinstance(found, click.Group):
        return [(name, found)]
    return [(f"{name} {sub}", each) for sub, each in found.commands.items()]


def limits_table() -> str:
    """The table of limits, from limits.py's own lines and comments."""
    rows = ["| limit | value | unit and reason |", "| --- | --- | --- |"]
    lines = re.findall(r"^(\w+): Final = .*?  # (.*)$", Path(limits.__file__).read_text("utf-8"), re.MULTILINE)
    rows += [f"| `{name}` | {getattr(limits, name):,} | {reason.replace('|', '/')} |" for name, reason in lines]
    return "\n".join(rows) + "\n"


def test_the_table_of_limits_is_current() -> None:
    found = LIMITS.search(OPERATIONS.read_text("utf-8"))
    assert found is not None
    assert found[2] == limits_table(), "write it again: python -m tests.test_docs"


def test_every_limit_has_a_unit_and_a_reason() -> None:
    table = limits_table()
    assert [name for name in vars(limits) if name.isupper() and f"`{name}`" not in table] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_flag_is_documented(name: str) -> None:
    text = OPERATIONS.read_text("utf-8")
    for typed, found in commands(name):
        assert f"`platform {typed}" in text
        for option in found.params:
            for flag in option.opts if isinstance(option, click.Option) else ():
                assert f"`{flag}" in text, f"{flag} of `platform {typed}` is not in {OPERATIONS.name}"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_says_what_the_command_says(name: str) -> None:
    assert command(name).get_short_help_str(limit=200).startswith(COMMANDS[name].summary.rstrip("."))


def test_every_metric_is_documented() -> None:
    assert set(HELP) == set(re.findall(r"`(sunup_[a-z_]+)`", OPERATIONS.read_text("utf-8")))


def test_every_key_of_function_toml_is_documented() -> None:
    page = DOCS / "function-toml.md"
    text = page.read_text("utf-8")
    shown: dict[str, dict[str, Any]] = {}
    for block in blocks(page, "toml"):  # more than one, for not every table goes with every other
        for table, keys in tomllib.loads(block).items():
            shown.setdefault(table, {}).update(keys)
    for table in msgspec.json.schema(file._File)["$defs"]["_File"]["properties"]:
        assert f"## [{table}]" in text
        section = text.split(f"## [{table}]")[1].split("\n## ")[0]
        struct = file._TABLES[table]
        for key in struct.__struct_fields__ if struct else ():
            assert f"| `{key}` |" in section, f"[{table}] {key} is not in {page.name}"
            assert key in shown[table], f"[{table}] {key} is not in the example of {page.name}"
    security = text.split("### [stream.security]")[1].split("\n## ")[0]
    for key in SecuritySpec.__struct_fields__:
        assert f"`{key}`" in security, f"[stream.security] {key} is not in {page.name}"
        assert key in shown["stream"]["security"], f"[stream.security] {key} is not in the example of {page.name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_of_function_toml_are_valid(page: Path) -> None:
    for block in blocks(page, "toml"):
        file.parse(block, source=page.name, name="example")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_the_docs_compiles(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, page.name, "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_docs_exist(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    text = page.read_text("utf-8")
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    lines += [line for line in re.findall(r"`((?:platform|make) [^`]+)`", text) if "|" not in line and "[" not in line]
    for line in lines:
        words = shlex.split(line, comments=True)
        if words[:1] == ["make"]:
            assert words[1] in targets, f"{page.name}: {line}"
        elif words[:1] == ["platform"] and not words[1].startswith("-"):
            assert words[1] in COMMANDS, f"{page.name}: {line}"
            flags = [word for word in words[2:] if re.match(r"--?[a-z]", word)]
            known = {flag for option in command(*words[1:]).params for flag in option.opts} | {"--help"}
            assert set(flags) <= known, f"{page.name}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def write() -> None:
    """Write the table of limits into operations.md."""
    text = OPERATIONS.read_text("utf-8")
    OPERATIONS.write_text(LIMITS.sub(lambda found: found[1] + limits_table() + found[3], text), "utf-8")


if __name__ == "__main__":
    write()
