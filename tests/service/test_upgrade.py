"""Engines of earlier versions are taken over: their state, their bundles, their living processes."""

import shutil
import sqlite3
from pathlib import Path
from typing import Final

from tests.engine_fixture import Engine

from sunup.engine.local.state import VERSION

FORMAT_1: Final = Path(__file__).resolve().parents[1] / "data" / "state-format-1"


def test_a_committed_state_folder_of_version_1_serves_and_rolls_back(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "p")
    shutil.copytree(FORMAT_1, engine.project.state, ignore=shutil.ignore_patterns("README.md"))
    engine.up()
    try:
        assert engine.call("times", 7.0).y == 21.0
        assert engine.rollback("times", None)["revision"] == 1
        assert engine.call("times", 7.0).y == 14.0
        assert engine.serve("times", 5.0)["revision"] == 3
    finally:
        engine.down()
    with sqlite3.connect(engine.project.state / "state.db") as db:
        assert db.execute("PRAGMA user_version").fetchone() == (VERSION,)
    db.close()
