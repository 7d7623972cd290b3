"""`platform stream dead`: the records that could not be scored, and why."""

import base64
import os
import time
from collections import Counter, deque
from contextlib import closing
from typing import Any, Final, NamedTuple

import click

from sunup.bundle.declare.quantity import parse_seconds
from sunup.cli.streams.source import Source, source_of
from sunup.cli.terminal import options, show_json, show_note, show_table, size, when
from sunup.errors import UsageError
from sunup.settings import Project
from sunup.stream.letters import Letter, letter_of, scan
from sunup.stream.replay import replay_stream

_COLUMNS: Final = ("time", "record", "try ", "code", "field", "message", "hint", "size ", "key", "state")
_SHOWN_MAX: Final = 200  # characters of a value, and of anything else that a record's sender wrote


class Found(NamedTuple):
    """Letters, the newest last, at most as many as were asked for, and counts of all: by code; not sent again yet, of
    those that can be; cut. `states`: one word for each of `letters`."""

    letters: list[Letter]
    states: list[str]
    codes: Counter[str]
    waiting: int
    cut: int


@click.command()
@click.argument("function")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=1), help="How many, the newest.")
@click.option("--since", metavar="AGE", help="Only of the last 24h, 90m, 7d.")
@click.option("--code", metavar="CODE", help="Only of this error code.")
@click.option("--value", "with_value", is_flag=True, help="Show the records' values, too.")
@options()
def dead(
    function: str, limit: int, since: str | None, code: str | None, *, with_value: bool, as_json: bool, project: Project
) -> None:
    """Show FUNCTION's dead letters: the records that could not be scored, and why.

    Also works while the engine is down. Reads the whole dead-letter topic, or with --since what is younger.
    """
    begin = None if since is None else time.time() - _seconds(since)
    source = source_of(project, function, os.environ)
    found = find(source, begin, code, limit)
    if as_json:
        show_json(_facts(source, found, with_value=with_value))
        return
    if not found.codes:
        show_note(f"No dead letters of {function} in {source.stream.dead_letter} on {source.where}.")
        return
    columns = (*_COLUMNS, "value") if with_value else _COLUMNS
    pairs = zip(found.letters, found.states, strict=True)
    show_table(columns, [_row(letter, state, with_value=with_value) for letter, state in pairs])
    click.echo()
    show_table(("code", "letters "), [(name, f"{count:,}") for name, count in found.codes.most_common()])
    for line in _notes(function, source, found):
        click.echo(line)


def find(source: Source, begin: float | None, code: str | None, letters_max: int) -> Found:
    """The letters of a function that became so at `begin` (seconds since the epoch) or later."""
    topic, replaying = source.stream.dead_letter, replay_stream(source.stream)
    with closing(source.admin()) as admin:
        spans = admin.span(topic)
        starts = {number: first for number, (first, _) in spans.items()} if begin is None else admin.at(topic, begin)
        passed = admin.positions(replaying.group, topic)
        letters = deque[tuple[Letter, str]](maxlen=letters_max)  # of one partition
        newest, codes, states = list[tuple[Letter, str]](), Counter[str](), Counter[str]()
        last = -1
        for record in scan(admin, topic, starts, {number: end for number, (_, end) in spans.items()}):
            if record.partition != last:
                newest += letters
                letters.clear()
                last = record.partition
            letter = letter_of(record)
            if letter is None or letter.function != source.function or code not in (None, letter.code):
                continue
            if begin is not None and letter.at < begin:
                continue
            state = "cut" if letter.is_cut else "waits"
            if not letter.is_cut and record.offset < passed.get(record.partition, 0):
                state = "replayed"
            codes[letter.code] += 1
            states[state] += 1
            letters.append((letter, state))
        newest += letters
    newest.sort(key=lambda one: (one[0].at, one[0].record.partition, one[0].record.offset))
    shown = newest[-letters_max:]
    return Found([one for one, _ in shown], [state for _, state in shown], codes, states["waits"], states["cut"])


def printable(text: bytes | str | None, length_max: int = _SHOWN_MAX) -> str:
    """What a stranger wrote, without what a terminal would obey; cut."""
    if text is None:
        return "-"
    whole = text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else text
    shown = "".join(one if one.isprintable() else repr(one)[1:-1] for one in whole[:length_max])
    return f"{shown}..." if len(whole) > length_max else shown


def _row(letter: Letter, state: str, *, with_value: bool) -> tuple[str, ...]:
    row = (
        when(letter.at),
        "-".join(map(str, letter.source)),
        str(letter.attempt),
        *map(printable, (letter.code, letter.field, letter.message, letter.hint)),
        size(letter.size),
        printable(letter.record.key),
        state,
    )
    return (*row, printable(letter.record.value)) if with_value else row


def _notes(function: str, source: Source, found: Found) -> list[str]:
    total = found.codes.total()
    first = f"{total:,} dead letters of {function} in {source.stream.dead_letter} on {source.where}"
    lines = [f"{first}; the newest {len(found.letters)} are shown." if total > len(found.letters) else f"{first}."]
    if found.waiting:
        lines.append(f"{found.waiting:,} were not sent again yet: platform stream replay {function}")
    if found.cut:
        lines.append(
            f"{found.cut:,} are without their value, which was too large: they cannot be sent again from here."
        )
    return lines


def _facts(source: Source, found: Found, *, with_value: bool) -> dict[str, Any]:
    pairs = zip(found.letters, found.states, strict=True)
    return {
        "function": source.function,
        "topic": source.stream.dead_letter,
        "total": found.codes.total(),
        "codes": dict(found.codes.most_common()),
        "not_replayed": found.waiting,
        "cut": found.cut,
        "letters": [_letter_facts(letter, state, with_value=with_value) for letter, state in pairs],
    }


def _letter_facts(letter: Letter, state: str, *, with_value: bool) -> dict[str, Any]:
    """`key` and `value` as text, other bytes as \\xNN; `value_base64` as they are."""
    key, value = letter.record.key, letter.record.value
    source = dict(zip(("topic", "partition", "offset"), letter.source, strict=True))
    facts = {
        **source,
        "at": letter.at,
        "attempt": letter.attempt,
        "code": letter.code,
        "message": letter.message,
        "field": letter.field or None,
        "hint": letter.hint or None,
        "size": letter.size,
        "key": None if key is None else key.decode("utf-8", "backslashreplace"),
        "state": state,
        "letter": {"partition": letter.record.partition, "offset": letter.record.offset},
    }
    if with_value:
        facts["value"] = None if value is None else value.decode("utf-8", "backslashreplace")
        facts["value_base64"] = None if value is None else base64.b64encode(value).decode()
    return facts


def _seconds(text: str) -> float:
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise UsageError(f"--since: {error}.") from error
