"""The proof of stream feature views can fail: aggregation that is broken on purpose is found out by the same ledger."""

import os
import signal
import time
from pathlib import Path

import pytest
from tests.engine_fixture import Engine, until
from tests.streaming import broken
from tests.streaming.differences import Differences, Expected
from tests.streaming.events import Events
from tests.streaming.function import Streaming
from tests.streaming.stores import SqliteStore
from tests.topics import EmbeddedTopics

pytestmark = pytest.mark.timeout(120)

BROKEN = str(Path(broken.__path__[0]))
KILLS, PORTION = 5, 400
CARDS = 60  # so few that every one comes again and again
ONLINE_SECONDS = 5.0


def killed(engine: Engine, folder: Path) -> Differences:
    """What differs after workers were killed behind their last commit, before they kept what it did."""
    streaming = Streaming(engine, EmbeddedTopics(engine.project.embedded_log), SqliteStore(folder / "online.db"))
    streaming.create()
    streaming.deploy(1.0)
    now, count = time.time(), (KILLS + 1) * PORTION
    events = Events(count, CARDS, now - 300, now, late_s=(20.0, 60.0), odd=0.0)
    for number in range(KILLS + 1):
        streaming.send_entries(events.entries(range(number * PORTION, (number + 1) * PORTION)))
        until(streaming.is_read, f"all to be read, not {streaming.facts}")
        if number < KILLS:
            os.kill(streaming.workers[0], signal.SIGKILL)
    found, expected = Differences(), Expected(streaming)
    expected.judge_scores({1: 1.0}, found)
    expected.judge_online(found, ONLINE_SECONDS)
    print(found)
    return found


@pytest.fixture
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Before the engine is started, whose processes inherit it."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([BROKEN, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("SUNUP_TEST_BROKEN", request.param)
    return str(request.param)


@pytest.mark.parametrize("way", ["", "own", "tail", "tiles"], indirect=True)
def test_what_is_broken_is_found(way: str, tmp_path: Path) -> None:
    engine = Engine(tmp_path / "p")
    engine.up()
    try:
        found = killed(engine, tmp_path)
    finally:
        engine.down()
    assert not (found.lost + found.doubled), found
    assert bool(found.scores) == (way != ""), found
    assert bool(found.online) == (way in ("tail", "tiles")), found
