"""`platform status --watch`: what goes on, once a second, until Ctrl-C."""

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.engine_fixture import PATIENCE_SECONDS, Engine
from tests.service.test_cli import PLATFORM


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """A shell that runs the tests in the background has Ctrl-C ignored, and whoever they start inherits that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def watching(root: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command under way; it must end with 0 when it is interrupted."""
    command = [str(PLATFORM), "status", "--watch", *arguments]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_SECONDS) == 0
            assert process.stderr is not None
            assert not process.stderr.read()
        finally:
            process.kill()


def lines(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)


def test_a_json_line_a_second_with_the_figures_of_that_second(engine: Engine) -> None:
    engine.serve("times", 2.0)
    with watching(engine.project.root, "--json") as process:
        said = lines(process)
        first = next(said)
        assert first["functions"][0]["requests"] == 0
        for _ in range(10):
            engine.call("times", 3.0)
        second = next(one for one in said if one["functions"][0]["requests"] == 10)
        found = second["functions"][0]
        assert 0 < found["rps"] <= 10 / 0.5
        assert 0 < found["p50_ms"] <= found["p99_ms"] < 1000
        assert "latency" not in found
        quiet = next(one for one in said if one["functions"][0]["rps"] == 0)
        assert quiet["functions"][0]["p50_ms"] is None
        assert quiet["functions"][0]["requests"] == 10
        times = [second["at"], quiet["at"], next(said)["at"]]
        assert times[2] - times[1] > 0.5


def test_tables_one_below_the_other_where_nobody_looks_on(engine: Engine) -> None:
    engine.serve("times", 2.0)
    with watching(engine.project.root, "times") as process:
        assert process.stdout is not None
        seen = 0
        for line in process.stdout:
            seen += line.startswith("times ")
            if seen == 2:
                break


def test_it_goes_on_without_an_engine(engine: Engine) -> None:
    engine.serve("times", 2.0)
    with watching(engine.project.root, "--json") as process:
        said = lines(process)
        assert "error" not in next(said)
        engine.down()
        assert "platform up" in next(one for one in said if "error" in one)["error"]
        engine.up()
        assert next(one for one in said if "error" not in one)["functions"][0]["name"] == "times"


def test_a_live_view_on_a_terminal_ends_with_ctrl_c(engine: Engine) -> None:
    for number in range(12):
        engine.serve(f"f{number:02}", 2.0)
    shown = on_terminal(engine.project.root, rows=16, columns=70)
    assert shown.count("f00") >= 2  # drawn again
    assert "and 4 more" in shown
    assert max(len(line) for line in shown.replace("\x1b", "\n").splitlines()) < 100


def on_terminal(root: Path, *, rows: int, columns: int) -> str:
    """What the live view writes on a terminal of this size in two seconds and a half."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(root)
        os.execve(PLATFORM, [str(PLATFORM), "status", "--watch"], {**os.environ, "TERM": "xterm", "COLUMNS": "70"})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
    shown = b""
    begun = time.monotonic()
    while time.monotonic() - begun < PATIENCE_SECONDS and shown.count(b"and 4 more") < 3:
        if select.select([terminal], [], [], 0.5)[0]:
            shown += os.read(terminal, 65536)
    os.write(terminal, b"\x03")
    with contextlib.suppress(OSError):  # the terminal is gone with its last process
        while data := os.read(terminal, 65536):
            shown += data
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(terminal)
    return shown.decode()
