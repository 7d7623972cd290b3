"""Engines of earlier versions are taken over: their state, their bundles, their living processes."""

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any, Final

import pytest
from tests.engine_fixture import Engine, until
from tests.service.test_handover import alive
from tests.service.test_switch import Load
from tests.test_docs import blocks
from tests.topics import EmbeddedTopics, Scored, sources

from sunup import __version__
from sunup.bundle.manifest import Scale
from sunup.engine.local.state import VERSION

ROOT: Final = Path(__file__).resolve().parents[2]
FORMAT_1: Final = ROOT / "tests" / "data" / "state-format-1"


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


class Newer:
    """A copy of this Sunup with another version, and its command line."""

    def __init__(self, folder: Path, **changes: tuple[str, str]) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "platform" / "sunup", folder / "sunup", ignore=shutil.ignore_patterns("__pycache__"))
        for name, (pattern, new) in {"__init__.py": (__version__, "99.0.0"), **changes}.items():
            path = folder / "sunup" / name
            path.write_text(re.sub(pattern, new, path.read_text("utf-8")), "utf-8")

    def up(self, engine: Engine) -> dict[str, Any]:
        """`platform up` of it, over an engine that runs. Without rules and ports: those of the running one hold."""
        command = [sys.executable, "-P", "-c", "from sunup.cli.main import main; main()", "up", "--detach", "--json"]
        environment = {**os.environ, "PYTHONPATH": f"{self.folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
        done = subprocess.run(
            [*command, "--project", str(engine.project.root)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        facts: dict[str, Any] = json.loads(done.stdout)
        return facts


def test_a_newer_sunup_takes_over_under_load_and_no_call_is_lost(engine: Engine, tmp_path: Path) -> None:
    newer = Newer(tmp_path / "newer")
    factors = {1: 2.0, 2: 3.0}
    for factor in factors.values():
        engine.serve("times", factor)
    engine.serve("cold", 5.0, scale=Scale(idle_s=0.3))
    idle = [engine.open() for _ in range(20)]
    for connection in idle:
        assert engine.call("times", 1.0, connection).y == 3.0
    unasked = [socket.create_connection(("127.0.0.1", engine.port)) for _ in range(20)]  # the door's: nothing was asked
    until(lambda: engine.at_zero("cold"), "a function at zero")
    before = engine.pids()
    with Load(engine, callers=3) as load:
        until(lambda: len(load.answers) > 20, "load")
        began = time.monotonic()
        facts = newer.up(engine)
        assert (facts["version"], facts["url"]) == ("99.0.0", f"http://127.0.0.1:{engine.port}")
        assert engine.call("cold", 1.0).y == 5.0
        until(lambda: not alive(before.values()), "everything to be replaced")
        took = time.monotonic() - began
        more = len(load.answers)
        until(lambda: len(load.answers) > more + 20, "load")
    load.check(factors)
    assert load.revisions() == {2}
    after = engine.pids()
    assert not set(after.values()) & set(before.values())
    assert counted(engine, "times") == len(load.answers) + len(idle), "a call is missing from the counters"
    for connection in idle:
        assert engine.call("times", 4.0, connection).y == 12.0, "a kept connection was lost"
        connection.close()
    for sock in unasked:
        sock.sendall(b"GET /v2 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        sock.settimeout(10)
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
        sock.close()
    status = engine.status("times")
    assert "renewing" not in status["engine"]
    assert [r["revision"] for r in status["functions"][0]["revisions"]] == [1, 2]
    assert engine.rollback("times", None)["revision"] == 1
    assert engine.call("times", 2.0).y == 4.0
    print(f"{len(load.answers)} calls answered during the upgrade; everything was replaced {took:.1f} s after `up`")


@pytest.mark.parametrize("seconds", [0.0, 0.3, 0.6, 0.9])
def test_a_supervisor_that_is_killed_while_it_takes_over_loses_nothing(
    engine: Engine, tmp_path: Path, seconds: float
) -> None:
    newer = Newer(tmp_path / "newer")
    engine.serve("times", 2.0)
    before = engine.pids()
    with Load(engine, callers=2) as load:
        until(lambda: len(load.answers) > 20, "load")
        pid = newer.up(engine)["pid"]
        time.sleep(seconds)  # later each time
        os.kill(pid, signal.SIGKILL)
        until(lambda: engine.running() is None, "the supervisor to be gone")
        newer.up(engine)
        until(lambda: not alive(before.values()), "everything to be replaced")
        more = len(load.answers)
        until(lambda: len(load.answers) > more + 20, "load")
    load.check({1: 2.0})
    assert not [path.name for path in engine.project.run.glob("*.next")]


def test_a_backup_is_restored(engine: Engine, tmp_path: Path) -> None:
    backup, restore = blocks(ROOT / "platform" / "docs" / "upgrade.md", "sh")[-2:]
    engine.serve("times", 2.0)
    engine.serve("times", 3.0)
    with Load(engine, callers=1) as load:
        bash(backup, engine.project.root)
        until(lambda: len(load.answers) > 20, "load")
    load.check({2: 3.0}, at_least=20)
    other = Engine(tmp_path / "o")
    shutil.copytree(engine.project.root / "backup", other.project.root / "backup")
    other.up()
    other.serve("times", 9.0)  # what is there is replaced
    other.down()
    ports = f"--port {other.port} --metrics-port {other.metrics_port}"
    bash(restore.replace("platform up", f"platform up {ports}"), other.project.root)
    assert other.call("times", 2.0).y == 6.0
    assert other.rollback("times", None)["revision"] == 1
    assert other.call("times", 2.0).y == 4.0
    other.down()


def bash(script: str, folder: Path) -> None:
    """Run commands of the documentation."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_processes_that_speak_another_protocol_are_ended_in_order(engine: Engine, tmp_path: Path) -> None:
    """Their listening sockets are kept, so that every call is answered, or refused with 503; kept connections end."""
    newer = Newer(tmp_path / "newer", **{"link/process.py": (r"PROTOCOL: Final = \d+", "PROTOCOL: Final = 1000")})
    engine.serve("times", 2.0)
    before = engine.pids()
    with Load(engine, callers=1) as load:
        until(lambda: len(load.answers) > 20, "load")
    kept = engine.open()
    assert engine.call("times", 1.0, kept).y == 2.0
    answers: list[int] = []
    stop = threading.Event()

    def fresh() -> None:
        while not stop.is_set():
            answers.append(engine.call("times", 3.0).status)

    caller = threading.Thread(target=fresh)
    caller.start()
    newer.up(engine)
    until(lambda: not alive(before.values()), "the old processes to end")
    until(lambda: answers[-20:] == [200] * 20, "service")
    stop.set()
    caller.join()
    assert set(answers) <= {200, 503}
    assert engine.call("times", 2.0).y == 4.0
    assert not set(engine.pids().values()) & set(before.values())
    kept.close()
    print(f"{answers.count(503)} of {len(answers)} calls were refused with 503")


def test_a_topic_is_scored_on_and_nothing_twice(engine: Engine, tmp_path: Path) -> None:
    scored = Scored(engine, EmbeddedTopics(engine.project.embedded_log))
    scored.create()
    scored.deploy()
    scored.send(range(5000))
    until(lambda: bool(scored.workers), "a stream worker")
    before = engine.pids()
    Newer(tmp_path / "newer").up(engine)
    scored.send(range(5000, 10_000))
    until(lambda: not alive(before.values()), "everything to be replaced")
    scored.send(range(10_000, 12_000))
    scored.wait_for_zero()
    assert len(scored.outputs()) == len(set(sources(scored.outputs()))) == 12_000


def counted(engine: Engine, function: str) -> int:
    """The calls of a function that its metrics tell of."""
    with urllib.request.urlopen(f"http://127.0.0.1:{engine.metrics_port}/metrics") as response:
        lines = response.read().decode().splitlines()
    mine = [line for line in lines if line.startswith(f'sunup_requests_total{{code="200",function="{function}"')]
    return sum(int(float(line.split()[-1])) for line in mine)
