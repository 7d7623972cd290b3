"""The durable record of functions and revisions."""

import sqlite3
from pathlib import Path

import pytest

from sunup.engine.local.state import Revision, StateFile
from sunup.errors import EngineError
from sunup.limits import REVISIONS_KEPT


def revision(number: int, function: str = "fraud") -> Revision:
    return Revision(function, number, f"{number:064x}", f"fraud/{number}", {"features_url": "sqlite:///x"}, 1.0)


def test_route_survives_reopening(tmp_path: Path) -> None:
    state = StateFile(tmp_path / "state.db")
    assert state.next_revision("fraud") == 1
    state.route(revision(1))
    state.route(revision(2))
    state.close()
    state = StateFile(tmp_path / "state.db")
    assert state.current() == [revision(2)]
    assert state.revisions("fraud") == [revision(1), revision(2)]
    assert state.next_revision("fraud") == 3
    state.close()


def test_rollback_keeps_the_later_revision(tmp_path: Path) -> None:
    state = StateFile(tmp_path / "state.db")
    for number in (1, 2):
        state.route(revision(number))
    state.route(revision(1))
    assert state.current() == [revision(1)]
    assert state.next_revision("fraud") == 3
    state.close()


def test_old_revisions_are_forgotten_but_never_the_routed_one(tmp_path: Path) -> None:
    state = StateFile(tmp_path / "state.db")
    for number in range(1, REVISIONS_KEPT + 6):
        state.route(revision(number))
    assert [r.revision for r in state.revisions("fraud")] == list(range(6, REVISIONS_KEPT + 6))
    state.route(revision(1))
    assert state.current() == [revision(1)]
    state.close()


def test_forget(tmp_path: Path) -> None:
    state = StateFile(tmp_path / "state.db")
    state.route(revision(1))
    state.route(revision(1, "other"))
    state.forget("fraud")
    assert [r.function for r in state.current()] == ["other"]
    assert state.revisions("fraud") == []
    state.close()


def test_proofs_hold_for_one_machine(tmp_path: Path) -> None:
    state = StateFile(tmp_path / "state.db")
    state.note_proof("d", "here")
    state.note_proof("d", "here")
    assert state.proven("d", "here")
    assert not state.proven("d", "elsewhere")
    state.close()


def test_state_of_another_version_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "state.db") as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(EngineError, match="state version 99"):
        StateFile(tmp_path / "state.db")


def test_what_was_learned_of_silences_is_kept_until_its_function_goes(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    state = StateFile(path)
    state.silences.note({})
    state.silences.note({"fraud": b"1", "churn": b"2"})
    state.silences.note({"fraud": b"3"})
    state.close()
    state = StateFile(path)
    assert [state.silences.of(name) for name in ("fraud", "churn", "other")] == [b"3", b"2", b""]
    state.forget("fraud")
    assert [state.silences.of(name) for name in ("fraud", "churn")] == [b"", b"2"]
    state.close()


def test_a_state_file_from_before_silences_were_kept_opens(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    state = StateFile(path)
    state.route(revision(1))
    state.close()
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE silences")
    db.close()
    state = StateFile(path)
    assert (state.current(), state.silences.of("fraud")) == ([revision(1)], b"")
    state.close()
