"""The durable record of what is paused."""

from pathlib import Path

from tests.unit.test_state import revision

from sunup.engine.local.state import StateFile
from sunup.engine.local.streaming.record import WHOLE


def test_what_is_paused_survives_reopening_and_redeploys_and_is_forgotten_with_its_function(tmp_path: Path) -> None:
    state = StateFile(tmp_path / "state.db")
    state.route(revision(1), revision(1, "other"))
    state.pauses.note("fraud", [3, 1], "eva")
    state.pauses.note("fraud", [WHOLE, 3], "adam")
    state.pauses.note("other", [0], "eva")
    state.close()
    state = StateFile(tmp_path / "state.db")
    state.route(revision(2))
    paused = state.pauses.of("fraud")
    assert {number: pause.by for number, pause in paused.items()} == {WHOLE: "adam", 1: "eva", 3: "eva"}
    state.pauses.forget("fraud", [1, 2])
    assert list(state.pauses.of("fraud")) == [WHOLE, 3]
    state.pauses.forget("fraud")
    assert state.pauses.of("fraud") == {}
    state.forget("other")
    assert state.pauses.of("other") == {}
    state.close()
