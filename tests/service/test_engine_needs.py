"""A function whose idle time is learned, and one with set times, on the engine in its real processes."""

import sqlite3
import time
from datetime import datetime

from tests.engine_fixture import Engine, until

from sunup.bundle.manifest import Scale, Warm
from sunup.limits import WARM_LEAD_SECONDS
from sunup.scale.history import History

AUTO = Scale(idle_auto=True)


def idle(engine: Engine) -> dict[str, float]:
    """What the engine says of the idle time."""
    facts: dict[str, float] = engine.status("times")["functions"][0]["idle"]
    return facts


def test_an_idle_time_is_learned_from_calls_and_outlives_the_engine(engine: Engine) -> None:
    engine.serve("times", 2.0, scale=AUTO)
    until(lambda: "break_even_seconds" in idle(engine), "a cold start and a worker to be measured")
    assert not idle(engine)["learned"]
    connection = engine.open()
    for _ in range(10):
        assert engine.call("times", 2.0, connection).y == 4.0
        time.sleep(0.8)  # what is learned is silences of this length
    connection.close()
    known = idle(engine)
    assert known["learned"]
    assert 7 <= known["silences"] <= 10
    assert 0.8 < known["seconds"] <= known["break_even_seconds"]
    assert not engine.at_zero("times"), "silences so short are stayed through"
    engine.down()
    engine.up()
    assert abs(idle(engine)["silences"] - known["silences"]) <= 1
    assert engine.call("times", 3.0).y == 6.0
    until(lambda: bool(idle(engine)["learned"]), "costs to be measured again")


def test_a_function_known_for_long_silences_goes_to_zero_at_once(engine: Engine) -> None:
    engine.serve("times", 2.0, scale=AUTO)
    engine.down()
    history = History()
    for _ in range(20):
        history.note(3600.0, None)
    db = sqlite3.connect(engine.project.state / "state.db")
    with db:
        db.execute("INSERT OR REPLACE INTO silences VALUES ('times', ?)", (history.pack(),))
    db.close()
    engine.up()
    assert engine.call("times", 3.0).y == 6.0
    until(lambda: bool(idle(engine)["learned"]), "a cold start and a worker to be measured")
    until(lambda: engine.at_zero("times"), "the function to go to zero", 5.0)
    assert idle(engine)["break_even_seconds"] > 1.0, "it would have stayed longer without its history"


def test_a_worker_is_there_before_its_set_time_though_nobody_calls(engine: Engine) -> None:
    lasts = 3.0
    engine.serve("times", 2.0, scale=Scale(max=1, idle_s=0.3, warm=(Warm("* * * * *", 1, lasts),)))
    until(lambda: lasts < time.time() % 60 < 60 - WARM_LEAD_SECONDS - 1, "the middle of a minute")
    until(lambda: engine.at_zero("times"), "the function to go to zero", 5.0)
    until(lambda: not engine.at_zero("times"), "the worker for the full minute", 60.0)
    assert 60 - WARM_LEAD_SECONDS - 0.5 < time.time() % 60 < 60, datetime.now()
    until(lambda: engine.status("times")["functions"][0]["state"] == "ready", "the worker to be ready", 4.0)
    assert engine.status("times")["functions"][0]["cold_starts"]["count"] == 0
    until(lambda: engine.at_zero("times"), "the function to go to zero again", WARM_LEAD_SECONDS + lasts + 5.0)
