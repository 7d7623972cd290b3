"""The served-feature log on a real engine: its rows are what was answered, exactly, whatever is killed."""

import json
import math
import os
import pwd
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engine_fixture import Engine, until
from tests.served_fixture import AGE_S, REQUEST, Logged, score
from tests.service.test_rights import USER, dropped  # noqa: F401  # a fixture
from tests.topics import EmbeddedTopics

from sunup.bundle.manifest import LogSpec, Scale, StreamSpec
from sunup.engine.access import Rules
from sunup.errors import CommandError
from sunup.settings import EMBEDDED
from sunup.types import Field

QUICK = LogSpec("served", rotate_s=1.0, size=1 << 20)


@pytest.fixture
def logged(engine: Engine) -> Iterator[Logged]:
    yield Logged(engine, time.time())
    for pid in recorders(engine):
        os.kill(pid, signal.SIGCONT)


def recorders(engine: Engine) -> list[int]:
    """The recorders there are, whether or not the engine knows of them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if b"sunup.serve.recording.recorder" in command and str(engine.project.run).encode() in command:
            found.append(int(path.parent.name))
    return found


def recorder(engine: Engine) -> int:
    """The recorder's pid, when there is one."""
    until(lambda: "recorder" in engine.pids(), "a recorder")
    return engine.pids()["recorder"]


def test_rows_are_the_replies(logged: Logged) -> None:
    revision = logged.deploy()
    began = time.time()
    answers = {f"r{n}": logged.call(*users, id=f"r{n}") for n, users in enumerate([(1,), (2, 3, 77, 5), (5,), (88,)])}
    logged.remove()
    rows = logged.rows
    assert Counter(row["request_id"] for row in rows) == {"r0": 1, "r1": 4, "r2": 1, "r3": 1}
    for row in rows:
        answer = answers[row["request_id"]][row["record"]]
        user, known = row["user_id"], row["user_id"] < 10
        assert row["f0"] == user / 4
        assert row["decision"] == answer["decision"]
        assert row["score"] == answer["score"] or (answer["score"] is None and math.isnan(row["score"]))
        assert row["defaulted"] == answer.get("defaulted", [])
        assert row["stale"] == answer.get("stale", [])
        assert (row["model_version"], row["revision"]) == ("3", revision)
        assert began - 1 <= row["event_timestamp"].timestamp() <= time.time()
        if known:
            assert (row["f1"], row["f2"], row["count"]) == (user / 8, user / 16, user if user != 5 else 0)
            assert row["score"] == pytest.approx(score(row["f0"], row["f1"], row["f2"]), abs=1e-12)
            assert AGE_S - 1 <= row["stats__age_s"] < AGE_S + 60
            assert row["stale"] == (["count"] if user == 5 else [])
        else:
            assert math.isnan(row["f1"]), "as the model saw it"
            assert (row["f2"], row["count"], row["defaulted"]) == (0.5, 0, ["f1", "f2", "count"])
            assert (row["stats__age_s"], row["seen__age_s"]) == (None, None)
    assert logged.dropped == 0


def test_the_files_are_the_owners_alone(logged: Logged) -> None:
    logged.deploy()
    logged.call(1, id="a")
    assert {path.stat().st_mode & 0o777 for path in logged.engine.project.spool.iterdir()} <= {0o600}
    assert logged.engine.project.served.stat().st_mode & 0o777 == 0o700
    logged.remove()
    (path,) = logged.files
    root = logged.engine.project.root
    assert path.parent == root / "served" / "score" / "1"
    assert path.stat().st_mode & 0o777 == 0o600
    assert {(root / "served" / part).stat().st_mode & 0o777 for part in ("", "score", "score/1")} == {0o700}


def test_a_function_without_a_log_has_none(logged: Logged) -> None:
    logged.deploy(None)
    logged.call(1, id="a")
    assert logged.spooled() == []
    assert "recorder" not in logged.engine.pids()
    assert logged.files == []


def test_rows_are_written_at_scale_to_zero_and_the_recorder_goes(logged: Logged) -> None:
    logged.deploy(scale=Scale(idle_s=0.5))
    logged.call(1, id="a")
    recorder(logged.engine)
    until(lambda: logged.ids == ["a"], "the row in a file")
    until(lambda: not recorders(logged.engine), "the recorder to go")
    logged.call(2, id="b")
    until(lambda: logged.ids == ["a", "b"], "the other row in another file")


def test_files_end_in_time_while_calls_go_on(logged: Logged) -> None:
    logged.deploy(QUICK)
    number = 0
    while len(logged.files) < 3:
        number += 1
        logged.call(1 + number % 9, id=f"r{number}")
        time.sleep(0.02)  # a caller's pace
        assert number < 1500
    assert "score" in logged.engine.pids(), "its worker lives all the while"
    logged.remove()
    assert logged.ids == sorted(f"r{n + 1}" for n in range(number))


def test_redeployed_and_rolled_back_each_revision_has_its_own_files(logged: Logged) -> None:
    assert logged.deploy() == 1
    logged.call(1, id="a")
    assert logged.deploy(bias=0.5) == 2
    until(lambda: logged.ids == ["a"], "what the first revision served")
    logged.call(2, id="b")
    logged.engine.rollback("score", None)
    logged.call(3, id="c")
    logged.engine.down()
    assert [(row["request_id"], row["revision"]) for row in logged.rows] == [("a", 1), ("b", 2), ("c", 1)]
    assert {path.parent.name for path in logged.files} == {"1", "2"}


def test_down_writes_everything(logged: Logged) -> None:
    logged.deploy()
    logged.call(1, id="a")
    logged.engine.down()
    assert logged.ids == ["a"]
    assert logged.spooled() == []


def test_two_workers_at_once(logged: Logged) -> None:
    logged.deploy(QUICK, scale=Scale(min=2, max=2))
    until(lambda: len(logged.engine.status("score")["functions"][0]["workers"]) == 2, "two workers")

    def calls(name: str) -> None:
        connection = logged.engine.open()
        for number in range(200):
            logged.call(1 + number % 9, id=f"{name}-{number}", connection=connection)
        connection.close()

    threads = [threading.Thread(target=calls, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    logged.remove()
    assert logged.ids == sorted(f"{name}-{number}" for name in "abcd" for number in range(200))
    assert logged.dropped == 0


@pytest.mark.parametrize("role", ["score", "recorder", "supervisor"])
def test_a_kill_loses_nothing_that_was_spooled(logged: Logged, role: str) -> None:
    logged.deploy(QUICK)
    sent = []
    for number in range(60):
        sent.append(f"r{number}")
        logged.call(1 + number % 9, id=sent[-1])
        if number % 20 == 19:
            size = spooled_bytes(logged)
            until(lambda size=size: spooled_bytes(logged) != size or time.time() % 1 > 0.5, "it to be spooled")  # type: ignore[misc]
            time.sleep(0.3)  # more than SERVED_FLUSH_SECONDS: what a worker has not spooled goes with it
            pids = logged.engine.pids() if role != "recorder" else {"recorder": recorder(logged.engine)}
            os.kill(pids[role], signal.SIGKILL)
            if role == "supervisor":
                until(lambda: logged.engine.running() is None, "the supervisor to be gone")
                logged.engine.up()
    logged.remove()
    assert logged.ids == sorted(sent)


def spooled_bytes(logged: Logged) -> int:
    return sum(path.stat().st_size for path in logged.engine.project.spool.glob("*.open"))


def test_kills_at_any_moment_double_no_row(logged: Logged) -> None:
    logged.deploy(QUICK)
    sent: list[str] = []
    end = time.monotonic() + 6
    while time.monotonic() < end:
        sent.append(f"r{len(sent)}")
        logged.call(1, id=sent[-1])
        if len(sent) % 40 == 0:
            for pid in recorders(logged.engine):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)  # a caller's pace
    logged.remove()
    assert logged.ids == sorted(sent)


def test_without_a_recorder_the_spool_is_bounded_and_what_is_dropped_counted(logged: Logged) -> None:
    logged.deploy(LogSpec("served", rotate_s=3600.0, size=64 * 1024), scale=Scale(idle_s=2.0))
    logged.call(1, id="first")
    pid = recorder(logged.engine)
    os.kill(pid, signal.SIGSTOP)
    rows = 1
    while logged.dropped == 0:
        logged.call(*[1 + n % 9 for n in range(200)], id=f"r{rows}")
        rows += 200
        assert rows < 100_000
    until(lambda: not logged.engine.status("score")["functions"][0]["workers"], "its worker to end, with all it counts")
    lost = logged.dropped
    total = sum(path.stat().st_size for path in logged.engine.project.spool.iterdir())
    assert total <= 4 * 64 * 1024
    assert lost % 200 == 0
    os.kill(pid, signal.SIGCONT)
    logged.remove()
    assert len(logged.rows) == rows - lost


def test_records_of_a_topic_are_logged_under_their_ids(logged: Logged) -> None:
    topics = EmbeddedTopics(logged.engine.project.embedded_log)
    for topic in ("in", "out", "dead"):
        topics.create(topic)
    logged.deploy(scale=Scale(idle_s=0.5), stream=StreamSpec(EMBEDDED, "in", "out", "dead", "g"))
    topics.send("in", [(b"k", json.dumps({"user_id": n, "f0": n / 4}).encode(), []) for n in range(1, 6)])
    until(lambda: len(logged.rows) == 5, "five rows")
    outputs = {dict(record.headers)["ce_id"].decode(): json.loads(record.value or b"") for record in topics.read("out")}
    assert {row["request_id"]: row["score"] for row in logged.rows} == {id: o["score"] for id, o in outputs.items()}
    assert {row["record"] for row in logged.rows} == {0}
    assert sorted(row["user_id"] for row in logged.rows) == [1, 2, 3, 4, 5]


def test_a_log_that_cannot_be_is_refused_when_it_is_deployed(logged: Logged) -> None:
    with pytest.raises(CommandError, match="'seen__age_s'"):
        logged.deploy(request=(*REQUEST, Field("seen__age_s", "float64")))
    assert logged.spooled() == []


def test_with_another_user_rows_come_from_it_and_files_are_the_engines(dropped: Engine) -> None:  # noqa: F811
    dropped.up(Rules(user=USER))
    logged = Logged(dropped, time.time())
    logged.deploy()
    logged.call(1, id="a")
    spool = dropped.project.spool
    until(lambda: any(spool.glob("*.open")), "the row in the spool")
    assert {path.stat().st_uid for path in spool.iterdir()} == {pwd.getpwnam(USER).pw_uid}
    assert spool.stat().st_mode & 0o7777 == 0o1770
    assert dropped.project.served.stat().st_mode & 0o777 == 0o710
    (live,) = spool.glob("*.live")
    forged = live.with_suffix(".1.rows")  # what somebody who got hold of a worker might leave there
    forged.symlink_to(dropped.project.state / "state.db")
    dropped.remove("score")
    until(lambda: logged.ids == ["a"], "the row in a file")
    (path,) = logged.files
    assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (0, 0o600)
    assert (dropped.project.state / "state.db").exists()
    forged.unlink()
    until(lambda: not logged.spooled(), "the spool to be empty")
