"""Whose reader a name of a group is, and whether it lives."""

from pathlib import Path

import pytest

from sunup.serve.streams.names import is_dead, place, reader_name

HERE = "0a1b2c3d"


@pytest.mark.parametrize(
    ("name", "dead"),
    [
        (reader_name("fraud", 1, HERE), True),
        (reader_name("fraud", 10, HERE), True),
        (reader_name("fraud", 0, HERE), False),  # lives
        (reader_name("fraud", 1, "ffffffff"), False),  # another engine's
        (reader_name("fraud-1", 1, HERE), False),  # another function's
        (reader_name("fraud", "x", HERE), False),
        ("", False),
    ],
)
def test_dead_is_who_was_of_this_engine_and_has_no_slot_any_more(name: str, dead: bool) -> None:
    assert is_dead(name, "fraud", [0, 2], HERE) is dead


def test_a_place_is_the_same_after_a_restart_and_no_other_engines(tmp_path: Path) -> None:
    assert place(tmp_path / "one") == place(tmp_path / "one") != place(tmp_path / "two")
