"""The durable record of functions and revisions."""

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from sunup.engine.local.state import MIGRATIONS, VERSION, Revision, StateFile
from sunup.errors import EngineError
from sunup.limits import REVISIONS_KEPT

FORMAT_1: Final = Path(__file__).resolve().parents[1] / "data" / "state-format-1"
KILLED: Final = """
import os, signal, sqlite3, sys
from pathlib import Path
from sunup.engine.local import state
left, connect = [int(sys.argv[2])], sqlite3.connect
def count(_):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
def counted(*arguments, **more):
    db = connect(*arguments, **more)
    db.set_trace_callback(count)
    return db
sqlite3.connect = counted
state.StateFile(Path(sys.argv[1])).close()
"""


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


def test_many_are_routed_and_proven_together_or_not_at_all(tmp_path: Path) -> None:
    state = StateFile(tmp_path / "state.db")
    both = revision(1), revision(7, "other")
    state.route(*both, proven_on="this")
    assert state.current() == [*both]
    assert state.proven(both[1].digest, "this")
    assert not state.proven(both[1].digest, "that")
    with pytest.raises(AttributeError):
        state.route(revision(2), None, proven_on="this")  # type: ignore[arg-type]
    assert state.current() == [*both]
    assert not state.proven(revision(2).digest, "this")
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


def test_every_earlier_version_is_brought_to_this_one(tmp_path: Path) -> None:
    for version in range(VERSION):
        path = tmp_path / f"{version}.db"
        old = sqlite3.connect(path, isolation_level=None)
        for number in range(version):
            old.executescript(f"{MIGRATIONS[number]} PRAGMA user_version={number + 1};")
        if version:
            old.execute("INSERT INTO revisions VALUES ('fraud', 1, 'd', 'fraud/1', '{}', 1.0)")
        old.close()
        state = StateFile(path)
        assert state.silences.of("fraud") == b""
        assert state.next_revision("fraud") == (2 if version else 1)
        state.close()
        with sqlite3.connect(path) as db:
            assert db.execute("PRAGMA user_version").fetchone() == (VERSION,)
        db.close()


def test_a_committed_file_of_version_1_keeps_all_it_held(tmp_path: Path) -> None:
    shutil.copy(FORMAT_1 / "state.db", tmp_path)
    state = StateFile(tmp_path / "state.db")
    assert [(r.function, r.revision) for r in state.revisions("times")] == [("times", 1), ("times", 2)]
    assert state.current() == state.revisions("times")[1:]
    assert state.silences.of("times") == b"learned"
    assert state.kept.digests() == {folder.name for folder in (FORMAT_1 / "bundles").iterdir()}
    state.close()


def test_a_migration_that_is_killed_leaves_the_old_version_or_the_new(tmp_path: Path) -> None:
    """The process is killed before its n-th statement, for every n there is."""
    seen = set()
    for statement in range(1, 100):
        path = tmp_path / f"{statement}.db"
        shutil.copy(FORMAT_1 / "state.db", path)
        killed = subprocess.run([sys.executable, "-c", KILLED, str(path), str(statement)], check=False).returncode
        with sqlite3.connect(path) as db:
            seen.add(db.execute("PRAGMA user_version").fetchone()[0])
            for name, since in (("revisions_by_digest", 2), ("follows", 3)):
                found = db.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (name,)).fetchone()
                assert (found is not None) == (db.execute("PRAGMA user_version").fetchone()[0] >= since)
        db.close()
        state = StateFile(path)
        assert [r.revision for r in state.revisions("times")] == [1, 2]
        state.close()
        if killed == 0:
            break
    assert seen == set(range(1, VERSION + 1))


def test_proofs_of_bundles_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    state = StateFile(tmp_path / "state.db")
    for digest in ("a", "b", "c"):
        state.note_proof(digest, "here")
    assert state.kept.proven() == {"a", "b", "c"}
    state.kept.forget(["a", "c", "d"])
    assert [state.proven(digest, "here") for digest in ("a", "b", "c")] == [False, True, False]
    state.close()
