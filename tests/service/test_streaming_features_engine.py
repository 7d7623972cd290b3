"""What the engine does for stream feature views: nobody at zero until a value changes by itself, what is shown, and
features made again of the topic."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.engine_fixture import Engine, until
from tests.kafka_fixture import KafkaServer
from tests.service.test_cli import PLATFORM, platform
from tests.streaming import views
from tests.streaming.function import Streaming
from tests.streaming.stores import SqliteStore
from tests.topics import EmbeddedTopics, Entry, KafkaTopics, Scored, Topics

from sunup.settings import CONFLUENT, KAFKA_PYTHON, STREAM_CLIENT

pytestmark = pytest.mark.timeout(300)

IDLE_SECONDS = 6.0
HOP_SECONDS = 5
SHORT_SECONDS = 25  # a change that is nearer than 5 s when a worker has been idle for long enough is waited for


def entry(number: int, card: int, at: float) -> Entry:
    record = {
        "n": number,
        "card_id": card,
        "transaction_id": f"t-{number}",
        "event_time": datetime.fromtimestamp(at, UTC).isoformat(),
        "amount": 2.5,
        "fee": 1.0,
    }
    return b"%d" % card, json.dumps(record).encode(), []


def made(engine: Engine, folder: Path, kinds: dict[str, Any], topics: Topics | None = None, **more: Any) -> Streaming:
    store = SqliteStore(folder / "online.db")
    streaming = Streaming(engine, topics or EmbeddedTopics(engine.project.embedded_log), store, kinds, **more)
    streaming.create()
    streaming.deploy()
    return streaming


@pytest.fixture
def fading(engine: Engine, tmp_path: Path) -> Streaming:
    """Its counts are of the last SHORT_SECONDS."""

    def recent(topic: str) -> Any:
        return views.recent(topic, hop_s=HOP_SECONDS, late_s=1.0, windows=(SHORT_SECONDS, SHORT_SECONDS))

    streaming = made(engine, tmp_path, {"recent": recent}, idle_s=IDLE_SECONDS)
    until(lambda: shown(streaming)["state"] == "idle", "somebody to have looked whether anything is to be done")
    # Records that come while it ends would be read by it, and have another one born that finds none.
    wait_for_nobody(streaming)
    return streaming


@pytest.fixture
def steady(engine: Engine, tmp_path: Path) -> Streaming:
    """Its values are of an hour."""
    return made(engine, tmp_path, {"hour": views.hour}, idle_s=0.5)


def count(streaming: Streaming, card: int, view: str = "recent", feature: str = "count_short") -> float | None:
    found = streaming.online(view, [card])
    return found[card].values[feature] if card in found else None


def shown(streaming: Streaming) -> dict[str, Any]:
    (view,) = streaming.facts["features"]
    return dict(view)


def pay(streaming: Streaming, numbers: Sequence[int], cards: int = 10, at: float | None = None) -> None:
    now = time.time() if at is None else at
    streaming.send_entries([entry(number, number % cards, now) for number in numbers])


def wait_for_nobody(streaming: Streaming, seconds: float = 30.0) -> None:
    until(lambda: not streaming.facts["workers"], f"nobody to work, not {streaming.facts}", seconds)


def test_at_zero_somebody_comes_when_a_value_changes_and_goes_at_once(fading: Streaming) -> None:
    assert fading.facts["next_change"] is None
    began = time.time()
    pay(fading, range(20))
    until(lambda: count(fading, 7) == 2, "the values to be written")
    until(lambda: fading.facts["next_change"] is not None, "it to be told when they change")
    wait_for_nobody(fading)
    due = fading.facts["next_change"]
    assert due is not None
    assert began + SHORT_SECONDS - HOP_SECONDS < due <= time.time() + SHORT_SECONDS + HOP_SECONDS
    assert count(fading, 7) == 2
    until(lambda: count(fading, 7) == 0, "somebody to come, and the values to fall", 2 * SHORT_SECONDS)
    here = time.time()
    assert -0.5 < here - due < 5.0
    wait_for_nobody(fading)
    assert time.time() - here < IDLE_SECONDS / 2, "it had nothing to wait for"
    assert {card: count(fading, card) for card in range(10)} == dict.fromkeys(range(10), 0)
    assert fading.facts["next_change"] is None
    assert len(fading.outputs()) == 20


def test_a_supervisor_that_knows_nothing_has_somebody_look_once(fading: Streaming) -> None:
    pay(fading, range(10))
    until(lambda: count(fading, 3) == 1, "the values to be written")
    wait_for_nobody(fading)
    due = fading.facts["next_change"]
    assert due is not None
    engine = fading.engine
    running = engine.running()
    assert running is not None
    os.kill(running["pid"], signal.SIGKILL)
    until(lambda: engine.running() is None, "the supervisor to be gone")
    engine.up()
    until(lambda: fading.facts["next_change"] == due or count(fading, 3) == 0, f"it to know of {due} again")
    until(lambda: count(fading, 3) == 0, "the values to fall", 2 * SHORT_SECONDS)
    wait_for_nobody(fading)
    assert shown(fading)["state"] == "idle"


def test_a_paused_stream_wakes_nobody_and_a_resumed_one_at_once(fading: Streaming) -> None:
    pay(fading, range(10))
    until(lambda: count(fading, 3) == 1, "the values to be written")
    fading.engine.pause(fading.name, None)
    wait_for_nobody(fading)
    due = fading.facts["next_change"]
    assert due is not None
    until(lambda: time.time() > due + 1.5, "the value to be due", 2 * SHORT_SECONDS)
    assert (count(fading, 3), fading.facts["workers"]) == (1, 0)
    fading.engine.resume(fading.name, None)
    until(lambda: count(fading, 3) == 0, "the values to fall", 10)


def test_a_status_says_how_the_views_stand(steady: Streaming) -> None:
    pay(steady, range(40))
    pay(steady, range(35, 45))  # five of them again
    odd = json.dumps({"n": 1.0, "card_id": 1, "amount": 1.0}).encode()
    steady.send_entries([(b"1", odd, [])])
    until(lambda: shown(steady)["duplicates"] == 5 and steady.is_read(), f"all to be seen, not {steady.facts}")
    until(lambda: shown(steady)["entities"] == 10, f"ten cards, not {steady.facts}")
    facts = shown(steady)
    assert (facts["view"], facts["late"], facts["invalid"], facts["behind"]) == ("hour", 0, 1, 0)
    assert "transaction_id" in facts["reason"] or "event_time" in facts["reason"]
    assert 0 < facts["freshness_ms"] < 20_000
    wait_for_nobody(steady)
    out = platform(steady.engine.project.root, "stream", "status", steady.name).out
    assert f"{steady.name}: features of hour idle, 10 entities" in out
    assert "invalid in hour" in out
    (listed,) = platform(steady.engine.project.root, "stream", "status", "--json").json
    assert listed["features"][0]["entities"] == 10
    assert listed["next_change"] > time.time()


def online(streaming: Streaming) -> dict[int, Any]:
    """By card, without the version that another count of the same has."""
    found = streaming.online("hour", range(10)).items()
    return {card: {name: one for name, one in stored.values.items() if name != "_sunup"} for card, stored in found}


def again(streaming: Streaming, *arguments: str) -> dict[str, Any]:
    command = ("stream", "replay", streaming.name, "--features", "--yes", "--json", *arguments)
    done: dict[str, Any] = platform(streaming.engine.project.root, *command).json
    return done


def test_features_made_again_are_the_same(steady: Streaming) -> None:
    pay(steady, range(200))
    steady.wait_for_zero()
    before = online(steady)
    assert before[3]["fee_count_hour"] == 20
    for folder in (steady.engine.project.aggregates / steady.name).glob("*.db*"):
        folder.unlink()  # a lost disk, where no changelog is
    done = again(steady)
    assert (done["records"], done["late"], done["duplicates"], done["missing"], done["unwritten"]) == (200, 0, 0, 0, "")
    assert online(steady) == before
    pay(steady, range(200, 300))
    steady.wait_for_zero()
    assert online(steady)[3]["fee_count_hour"] == 30
    assert again(steady, "--from-offset", "0")["records"] == 300
    steady.engine.down()
    assert again(steady)["records"] == 300
    steady.engine.up()
    assert online(steady)[3]["fee_count_hour"] == 30
    assert len(steady.outputs()) == 300


@pytest.mark.parametrize("client", [CONFLUENT, KAFKA_PYTHON])
def test_features_made_again_on_kafka_are_in_the_changelog_too(
    engine: Engine, kafka: KafkaServer, tmp_path: Path, client: str
) -> None:
    settings = {STREAM_CLIENT: client}
    steady = made(engine, tmp_path, {"hour": views.hour}, KafkaTopics(kafka), idle_s=0.5, settings=settings)
    files = engine.project.aggregates / steady.name
    pay(steady, range(200))
    steady.wait_for_zero()
    before = online(steady)
    assert before[3]["fee_count_hour"] == 20
    done = again(steady)
    assert (done["records"], done["late"], done["duplicates"], done["missing"], done["unwritten"]) == (200, 0, 0, 0, "")
    assert online(steady) == before
    shutil.rmtree(files)  # another machine's worker has the tiles that were made again
    pay(steady, range(200, 300))
    steady.wait_for_zero()
    assert online(steady)[3]["fee_count_hour"] == 30
    shutil.rmtree(files)
    assert again(steady, "--from-offset", "0")["records"] == 300
    engine.down()
    assert again(steady)["records"] == 300
    engine.up()
    pay(steady, range(300, 310))
    steady.wait_for_zero()
    assert online(steady)[3]["fee_count_hour"] == 31
    assert len(steady.outputs()) == 310


def test_made_again_since_a_moment_they_are_of_what_was_written_since(steady: Streaming) -> None:
    pay(steady, range(100))
    steady.wait_for_zero()
    last = max(record.timestamp for record in steady.topics.read(steady.stream.input))
    until(lambda: time.time() > last + 0.01, "the clock to go on")
    moment = datetime.fromtimestamp(last + 0.005, UTC).isoformat()
    pay(steady, range(100, 150))
    steady.wait_for_zero()
    assert again(steady, "--since", moment)["records"] == 50
    until(lambda: online(steady)[3]["fee_count_hour"] == 5, "what is written since then")
    # Of a score that is made again the tiles are what they are.
    seek = platform(steady.engine.project.root, "stream", "seek", steady.name, "--to", "earliest", "--yes")
    assert "not aggregated again" in seek.err
    until(lambda: len(steady.outputs()) == 300, "everything to be scored again")
    steady.wait_for_zero()
    assert online(steady)[3]["fee_count_hour"] == 5
    again(steady)
    until(lambda: online(steady)[3]["fee_count_hour"] == 15, "all of the hour")


def test_killed_in_the_middle_the_rest_is_aggregated_by_who_reads_next(steady: Streaming) -> None:
    pay(steady, range(60_000))
    steady.wait_for_zero()
    before = online(steady)
    command = [str(PLATFORM), "stream", "replay", steady.name, "--features", "--yes"]
    root = steady.engine.project.root
    for seconds in (0.1, 0.3):
        with subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            until(lambda: steady.facts["paused"] == "all", "it to begin")
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(seconds)
            process.kill()
        assert "paused by" in steady.facts["reason"]
        steady.engine.resume(steady.name, None)
        until(lambda: shown(steady)["state"] == "idle", f"all to be aggregated, not {steady.facts}")
        assert online(steady) == before
    assert len(steady.outputs()) == 60_000


def test_what_cannot_be_is_refused(steady: Streaming) -> None:
    root = steady.engine.project.root

    def refused(*arguments: str) -> str:
        return platform(root, "stream", "replay", steady.name, *arguments).refused(2)

    assert "Add --yes" in refused("--features")
    assert "--features sends none" in refused("--features", "--code", "wrong_type")
    assert "not both" in refused("--features", "--since", "1h", "--from-offset", "3")
    assert "are for --features" in refused("--since", "1h")
    assert "'soon' is not an age" in refused("--features", "--since", "soon")
    plain = Scored(steady.engine, steady.topics)
    plain.create()
    plain.deploy()
    said = platform(root, "stream", "replay", plain.name, "--features").refused(2)
    assert f"{plain.name} aggregates nothing" in said
