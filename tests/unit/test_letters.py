"""What dead letters say when they are read, whatever somebody wrote into them; and moments and steps of a seek."""

import random
import time

import pytest

from sunup.cli.streams.alone import moment
from sunup.cli.streams.letters.dead import printable
from sunup.cli.streams.seek import Step
from sunup.errors import CallError, UsageError
from sunup.stream.broker import Record
from sunup.stream.letters import letter_of
from sunup.stream.scoring.letters import Letters
from sunup.wire.cloudevent import stamp


def record(value: bytes | None, headers: list[tuple[str, bytes]]) -> Record:
    return Record("in", 2, 7, b"k", value, headers, 1000.0)


def dead(of: Record, wall: float = 1_700_000_000.25) -> Record:
    made = Letters("dead", {"function": "f", "revision": "3"}).letter(
        of, CallError("no such thing", field="x", hint="leave it out"), stamp(wall)
    )
    return Record("dead", 0, 40, made.key, made.value, made.headers, 5000.0)


def test_a_letter_is_read_as_it_was_written() -> None:
    letter = letter_of(dead(record(b"{}", [("trace", b"\xff")])))
    assert letter is not None
    assert (letter.function, letter.code, letter.message) == ("f", CallError.code, "no such thing")
    assert (letter.field, letter.hint) == ("x", "leave it out")
    assert (letter.source, letter.attempt, letter.at, letter.size) == (("in", 2, 7), 1, 1_700_000_000.25, 2)
    assert not letter.is_cut


def test_a_record_sent_again_counts_on_and_says_nothing_else_of_ours() -> None:
    headers, of = [("trace", b"t")], record(b"{}", [("trace", b"t")])
    for attempt in (1, 2, 3):
        letter = letter_of(dead(of))
        assert letter is not None
        assert letter.attempt == attempt
        again = letter.again()
        assert (again.topic, again.key, again.value) == ("in", b"k", b"{}")
        assert list(again.headers) == [*headers, ("sunup_attempt", b"%d" % attempt)]
        of = record(again.value, list(again.headers))


def test_a_cut_value_keeps_its_size() -> None:
    letter = letter_of(dead(record(bytes(1_000_001), [])))
    assert letter is not None
    assert (letter.size, letter.is_cut, letter.record.value) == (1_000_001, True, None)
    tombstone = letter_of(dead(record(None, [])))
    assert tombstone is not None
    assert not tombstone.is_cut


def test_whatever_the_headers_say_it_is_read() -> None:
    draw = random.Random(3)
    names = ["topic", "partition", "offset", "attempt", "time", "value_bytes", "error_code", "function"]
    texts = [b"", b"-1", b"9" * 40, b"\xff\xfe", b"0001-01-01", b"2026-11-22", "²".encode(), b"in", b"1e9"]
    for _ in range(2000):
        chosen = [(f"sunup_{draw.choice(names)}", draw.choice(texts)) for _ in range(draw.randrange(12))]
        letter = letter_of(record(b"v", chosen))
        if letter is not None:
            assert letter.attempt >= 1
            letter.again()
    assert letter_of(record(b"v", [])) is None


def test_nothing_a_stranger_wrote_reaches_the_terminal() -> None:
    assert printable(b"a\x1b[2Jb\r\n\xff") == "a\\x1b[2Jb\\r\\n\\xff"
    assert printable("\u202e\u200b") == "\\u202e\\u200b"
    assert printable("x" * 300) == "x" * 200 + "..."
    assert printable(None) == "-"


def test_moments() -> None:
    assert moment("1h", 10_000.0, "--to") == 6400.0
    assert moment("2026-11-22T10:00:00Z", 0.0, "--to") == moment("2026-11-22T11:00:00+01:00", 0.0, "--to")
    assert moment("2026-11-22T10:00", 0.0, "--to") == time.mktime((2026, 11, 22, 10, 0, 0, 0, 0, -1))
    with pytest.raises(UsageError, match="--to: 'yesterday' is not earliest, an age"):
        moment("yesterday", 0.0, "--to", "earliest, ")


def test_a_step_when_the_group_has_read_on() -> None:
    forward = Step(0, position=10, target=50, first=0, end=100)
    assert forward.meaning == "skips 40 records"
    assert forward.from_here(30).target == 50
    assert forward.from_here(70).meaning == "stays"  # it was not asked to be scored twice
    back = Step(0, position=10, target=5, first=0, end=100)
    assert back.meaning == "scores 5 records again"
    assert back.from_here(30).doubled == 25
