"""Dead letters as people see them, and their way back: on the embedded log and on a real Kafka broker."""

import base64
import json
import subprocess
import time
from collections import Counter
from typing import Any

import msgspec
import pytest
from tests.engine_fixture import Engine, until
from tests.service.test_cli import PLATFORM, platform
from tests.topics import Scored, entry, malformed, sources

from sunup.types import Field

RECORDS = 4950
FIXED = [Field("z", "float64")]  # what makes {"x": 1, "z": 2} no mistake
pytestmark = pytest.mark.timeout(300)


def dead(scored: Scored, *arguments: str) -> dict[str, Any]:
    command = ("stream", "dead", scored.name, "--json", *arguments)
    found: dict[str, Any] = platform(scored.engine.project.root, *command).json
    return found


def replay(scored: Scored, *arguments: str) -> dict[str, Any]:
    """Of everything that is dead; it is scored when this returns."""
    command = ("stream", "replay", scored.name, "--yes", "--json", *arguments)
    done: dict[str, Any] = platform(scored.engine.project.root, *command).json
    scored.sent += done["sent"]
    until(lambda: len(scored.topics.read(scored.stream.input)) == scored.sent, "what was sent again")
    until(lambda: is_read(scored), "all of it to be read", 60)
    return done


def is_read(scored: Scored) -> bool:
    """Whether everything sent was read; offsets count the markers of transactions, too."""
    facts = scored.facts
    return not facts["lag"] and sum(one["position"] for one in facts["partitions"]) >= scored.sent


def test_bad_records_are_dead_letters_once_and_scored_once_after_the_fix(scored: Scored) -> None:
    bad = malformed()
    entries = [entry(number) for number in range(RECORDS)]
    for place, (_, one) in enumerate(bad):
        entries.insert(place * 97, one)
    scored.send_entries(entries)
    scored.wait_for_zero()
    wanted = Counter(code for code, _ in bad)
    found = dead(scored, "--limit", "1000")
    assert Counter(found["codes"]) == wanted
    assert (found["total"], found["not_replayed"], found["cut"]) == (len(bad), len(bad), 0)
    assert len({(one["partition"], one["offset"]) for one in found["letters"]}) == len(bad)
    assert {one["attempt"] for one in found["letters"]} == {1}

    scored.deploy(unused=FIXED)
    done = replay(scored, "--code", "unknown_field")
    assert (done["sent"], done["codes"]) == (5, {"unknown_field": 5})
    outputs = scored.outputs()
    assert len(outputs) == len(set(sources(outputs))) == RECORDS + 5
    assert Counter(json.loads(record.value or b"")["y"] for record in outputs if record.key[:3] == b"bad") == {2.0: 5}  # type: ignore[index]
    left = dead(scored)
    assert left["not_replayed"] == len(bad) - 5
    again = replay(scored)
    assert again["sent"] == len(bad) - 5
    assert len(scored.outputs()) == RECORDS + 5
    assert Counter(again["codes"]) == wanted - Counter(unknown_field=5)
    found = dead(scored)
    assert found["not_replayed"] == len(bad) - 5  # they failed once more
    assert replay(scored, "--limit", "7")["sent"] == 7
    assert dead(scored)["not_replayed"] == len(bad) - 5


def test_letters_are_shown_newest_last_with_their_reasons(scored: Scored) -> None:
    root = scored.engine.project.root
    assert "No dead letters" in platform(root, "stream", "dead", scored.name).err
    scored.send_entries([(b"first", b'{"x": "one"}', [])])
    scored.wait_for_zero()
    scored.send_entries([(b"\x1b[31mred", b'{"x": \xff\x1b]0;title\x07', [])])
    scored.wait_for_zero()
    found = dead(scored, "--value")
    first, second = found["letters"]
    assert (first["code"], first["field"], first["key"]) == ("wrong_type", "x", "first")
    assert first["topic"] == scored.stream.input
    assert first["at"] <= second["at"] <= time.time()
    assert (first["size"], first["state"]) == (12, "waits")
    assert base64.b64decode(second["value_base64"]) == b'{"x": \xff\x1b]0;title\x07'
    shown = platform(root, "stream", "dead", scored.name, "--value", COLUMNS="300").out
    assert "\x1b" not in shown
    assert "\\x1b[31mred" in shown
    assert shown.index("wrong_type") < shown.index("invalid_json")
    assert f"2 were not sent again yet: platform stream replay {scored.name}" in shown
    assert [one["key"] for one in dead(scored, "--limit", "1")["letters"]] == [second["key"]]
    assert dead(scored, "--code", "wrong_type")["total"] == 1
    assert dead(scored, "--since", "1h")["total"] == 2
    time.sleep(max(0.0, second["at"] + 1.2 - time.time()))  # the age is what is tested
    assert dead(scored, "--since", "1s")["total"] == 0


def test_letters_are_seen_and_sent_while_the_engine_is_down(scored: Scored) -> None:
    scored.send_entries([(b"bad", b"[]", [])])
    scored.wait_for_zero()
    scored.engine.down()
    assert dead(scored)["total"] == 1
    root = scored.engine.project.root
    assert platform(root, "stream", "replay", scored.name, "--yes", "--json").json["sent"] == 1
    assert dead(scored)["not_replayed"] == 0
    scored.engine.up()
    until(lambda: dead(scored)["not_replayed"] == 1, "the record to fail again", 60)


def test_a_replay_asks_first(scored: Scored) -> None:
    root = scored.engine.project.root
    scored.send_entries([(b"bad", b"[]", [])])
    scored.wait_for_zero()
    refused = platform(root, "stream", "replay", scored.name)
    assert "Add --yes" in refused.refused(2)
    assert dead(scored)["not_replayed"] == 1
    answered = subprocess.run(
        [str(PLATFORM), "stream", "replay", scored.name],
        cwd=root, input="y\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answered.returncode == 0, answered
    assert "1 dead letters" in answered.stdout


def test_the_environment_of_whoever_deployed_is_not_needed(scored: Scored) -> None:
    broker, scored.stream = (
        scored.topics.broker,
        msgspec.structs.replace(scored.stream, broker="env:SOME_KAFKA or embedded"),
    )
    digest = scored.engine.bundle(scored.name, 2.0, stream=scored.stream, scale=scored.scale)
    scored.engine.deploy(scored.name, digest, settings={"stream_broker": broker}, on_event=lambda _: None)
    scored.send_entries([(b"bad", b"[]", [])])
    scored.wait_for_zero()
    root = scored.engine.project.root
    for environment in ({}, {"SOME_KAFKA": "127.0.0.1:1"}):
        ran = platform(root, "stream", "dead", scored.name, "--json", **environment)
        assert ran.json["total"] == 1


def test_what_has_no_letters_is_said(engine: Engine) -> None:
    engine.serve("plain", 2.0)
    root = engine.project.root
    for command in ("dead", "replay", "seek"):
        more = ["--to", "latest"] if command == "seek" else []
        assert "has no [stream]" in platform(root, "stream", command, "plain", *more).refused(2)
    assert "nobody" in platform(root, "stream", "dead", "nobody").refused(1)


def test_killed_replays_send_every_letter_once(scored: Scored) -> None:
    count = 3000
    scored.send_entries([(b"bad-%d" % number, b"[]", []) for number in range(count)])
    scored.wait_for_zero()
    scored.deploy()
    platform(scored.engine.project.root, "stream", "pause", scored.name)
    command = [str(PLATFORM), "stream", "replay", scored.name, "--yes"]
    for seconds in (0.6, 0.75, 0.9):
        with subprocess.Popen(command, cwd=scored.engine.project.root, stdout=subprocess.DEVNULL) as process:
            time.sleep(seconds)  # into the middle of it, if it is not through
            process.kill()
    platform(scored.engine.project.root, "stream", "replay", scored.name, "--yes", "--json")
    keys = [record.key for record in scored.topics.read(scored.stream.input)]
    times = Counter(keys)
    wrong = {number: found for number in range(count) if (found := times[b"bad-%d" % number]) != 2}
    assert not wrong, f"{len(wrong)} of {count}: {dict(list(wrong.items())[:5])}"
