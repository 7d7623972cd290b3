"""infra/sunup.service as shipped: what it runs exists, says that it is ready, is reloaded and stopped as it says."""

import configparser
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import click
import pytest
from tests.engine_fixture import Engine, left, until

from sunup.cli.main import platform

UNIT: Final = Path(__file__).resolve().parents[2] / "infra" / "sunup.service"
COMMAND: Final = Path(sys.executable).with_name("platform")


def service() -> configparser.SectionProxy:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[method-assign,assignment]
    unit.read(UNIT)
    return unit["Service"]


def here(line: str, engine: Engine) -> list[str]:
    """A command of the unit in this test's place."""
    program, *words = shlex.split(line)
    assert program == "/srv/sunup/.venv/bin/platform"
    return [str(COMMAND), *(word.replace("/srv/sunup", str(engine.project.root)) for word in words)]


def test_every_flag_is_one_of_the_command() -> None:
    for key in ("ExecStart", "ExecStop"):
        _, name, *words = shlex.split(service()[key])
        command = platform.get_command(click.Context(platform), name)
        assert command is not None
        flags = {flag for option in command.params for flag in option.opts}
        assert [word for word in words if word.startswith("--") and word not in flags] == []


def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        how = "systemd-analyze is missing: infra/systemd.sh (Debian: apt-get install systemd)"
        if os.environ.get("CI") == "true":
            pytest.fail(how)
        pytest.skip(how)
    text = UNIT.read_text("utf-8").replace("/srv/sunup/.venv/bin/platform", str(COMMAND))
    unit = tmp_path / "sunup.service"
    unit.write_text(re.sub("User=.*", "User=root", text.replace("/srv/sunup", str(tmp_path))))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if str(unit) in line or "sunup.service" in line]
    assert (done.returncode, said) == (0, [])


def test_it_starts_is_reloaded_and_stops_as_the_unit_says(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "p")
    ports = ["--port", str(engine.port), "--metrics-port", str(engine.metrics_port)]  # the unit's are the usual ones
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(30)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}

        def start() -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                [*here(service()["ExecStart"], engine), *ports],
                env=environment,
                stderr=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
            assert notified.recv(100) == b"READY=1"
            return process

        with start() as process:
            assert engine.running() is not None
            assert engine.pids()["supervisor"] == process.pid, "systemd would take another process for the main one"
            engine.serve("times", 2.0)
            before = engine.pids()
            assert service()["ExecReload"] == "/bin/kill -HUP $MAINPID"
            process.send_signal(signal.SIGHUP)
            assert process.wait(10) == 0
        assert engine.call("times", 3.0).y == 6.0
        with start() as process:
            after = engine.pids()
            assert {role: after[role] for role in ("door", "nursery", "front", "times")} == {
                role: before[role] for role in ("door", "nursery", "front", "times")
            }
            subprocess.run(here(service()["ExecStop"], engine), check=True, capture_output=True)
            assert process.wait(10) == 0
    until(lambda: left(engine) == [], "everything to end")
