"""The access log of a real engine, and the flag that says how much is in it."""

import json
from pathlib import Path

from tests.engine_fixture import Engine, left, until

from sunup.engine.access import Rules


def test_calls_are_logged_at_the_share_that_was_said(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "p")
    log = engine.project.logs / "double.access.log"
    engine.up(Rules(access_log=1.0))
    engine.serve("double", 2.0)
    assert [engine.call("double", x).y for x in (1.0, 2.0, 3.0)] == [2.0, 4.0, 6.0]
    until(lambda: log.exists() and len(log.read_text().splitlines()) == 3, "the lines to be written")
    line = json.loads(log.read_text().splitlines()[0])
    assert (line["function"], line["status"], line["path"]) == ("double", 200, "/functions/double")
    assert engine.call("double", 4.0).y == 8.0
    engine.down()  # writes what was gathered
    assert len(log.read_text().splitlines()) == 4
    assert left(engine) == []
    engine.up(Rules(access_log=0.0))
    assert engine.call("double", 5.0).y == 10.0
    engine.down()
    assert len(log.read_text().splitlines()) == 4
