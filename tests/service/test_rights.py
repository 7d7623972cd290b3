"""What the processes that answer strangers may do: descriptors, limits, the admin socket, and --user."""

import asyncio
import json
import os
import pwd
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engine_fixture import Engine, until

from sunup.access.rights import Rights
from sunup.bundle.manifest import Scale
from sunup.engine.access import Rules
from sunup.engine.local.admin import Admin
from sunup.engine.local.services import rotate
from sunup.errors import EngineError
from sunup.limits import CONNECTIONS_MAX, LOG_BYTES_MAX, SPARE_DESCRIPTORS

ANSWERING = ("double", "front", "door", "nursery")
USER = "nobody"
CAP_SYS_PTRACE = 1 << 19
PATHS = os.pathsep.join(path for path in sys.path if path and not path.startswith(sys.base_prefix))
CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
WRITABLE = "import os, sys; print(*(line for line in sys.stdin.read().splitlines() if os.access(line, os.W_OK)))"


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def held(pid: int) -> set[str]:
    """What a process has open: files, and the names of Unix sockets."""
    names = {}
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        names[fields[6]] = fields[7] if len(fields) > 7 else ""
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        target = os.readlink(link)
        inode = re.fullmatch(r"socket:\[(\d+)\]", target)
        found.add(names.get(inode[1], "") if inode else target)
    return {Path(name).name for name in found if name.startswith("/")}


def test_they_hold_only_what_is_theirs(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hush")
    engine.down()
    engine.up()
    engine.serve("double", 2.0)
    engine.serve("other", 2.0)
    assert engine.call("double", 2.0).y == 4.0
    pids = engine.pids()
    open_in = {role: held(pids[role]) for role in ANSWERING}
    for role, names in open_in.items():
        foreign = {"admin.sock", "lock", "state.db", "state.db-wal", "rules.json", "engine.log", "other.log"} & names
        assert not foreign, (role, names)
    (own,) = (name for name in open_in["double"] if name.endswith(".sock"))
    assert own.startswith("worker-")
    assert open_in["door"] - {"door.log", "null"} <= {"door.sock", "door.seg"} | {
        name for name in open_in["door"] if name.startswith("worker-")
    }
    for role in ANSWERING:
        assert b"hush" not in Path(f"/proc/{pids[role]}/environ").read_bytes(), role


def test_they_have_given_up_what_they_do_not_need(engine: Engine) -> None:
    engine.serve("double", 2.0)
    pids = engine.pids()
    for role in ANSWERING:
        assert status_of(pids[role])["NoNewPrivs"] == "1"
        limits = Path(f"/proc/{pids[role]}/limits").read_text()
        assert re.search(r"^Max core file size +0 +0", limits, re.MULTILINE), role
        if role != "door":
            (most,) = re.findall(r"^Max open files +\d+ +(\d+)", limits, re.MULTILINE)
            assert int(most) <= CONNECTIONS_MAX + SPARE_DESCRIPTORS
    (worker,) = engine.status("double")["functions"][0]["workers"]
    assert worker["memory_bytes"] > 1_000_000


def test_the_admin_socket_is_for_the_engines_user(engine: Engine) -> None:
    run = engine.project.run
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    assert stat.S_IMODE((run / "admin.sock").stat().st_mode) == 0o600
    with socket.socket(socket.AF_UNIX) as admin:  # we are its user, and none of its processes
        admin.connect(str(run / "admin.sock"))
        admin.sendall(b'{"op": "ping"}\n')
        assert json.loads(admin.makefile().readline())["ok"] is True


class Workers:
    """Operations of an engine whose only worker is this process."""

    def pids(self) -> set[int]:
        return {os.getpid()}

    def address(self) -> dict[str, str]:
        return {}


def test_a_worker_that_gets_at_the_socket_is_refused(tmp_path: Path) -> None:
    async def ask() -> bytes:
        server = await Admin(Workers()).serve(tmp_path / "admin.sock")  # type: ignore[arg-type]
        reader, writer = await asyncio.open_unix_connection(tmp_path / "admin.sock")
        writer.write(b'{"op": "ping"}\n')
        line = await reader.readline()
        writer.close()
        server.close()
        return line

    assert json.loads(asyncio.run(ask()))["error"]["message"] == "This engine does not take commands from you."


# --- as another user --------------------------------------------------------------------------------------------------


def reachable() -> str | None:
    """An interpreter that the other user can run Sunup with: this one, or the system's of the same version."""
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        try:
            if as_user(python, "-P", "-c", "import sunup.serve.worker, sunup.engine.door.__main__").returncode == 0:
                return python
        except OSError:
            continue
    return None


def as_user(*command: str, said: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, input=said, capture_output=True, text=True, check=False, cwd="/",
        env={**os.environ, "PYTHONPATH": PATHS}, user=USER, group="nogroup", extra_groups=[],
    )  # fmt: skip


@pytest.fixture
def dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine to be started by root, in a folder that --user nobody can reach."""
    if os.geteuid() != 0:
        pytest.skip("only root may change the user of processes")
    python = reachable()
    if python is None:
        pytest.skip(f"{USER} cannot read {sys.executable}, or what it imports, and there is no other of that version")
    monkeypatch.setattr(sys, "executable", python)
    monkeypatch.setenv("PYTHONPATH", PATHS)
    for folder in (tmp_path, *tmp_path.parents[:4]):
        if folder.name.startswith(("pytest-", "test_")) or folder.name.isdigit():  # see conftest.py
            folder.chmod(0o755)
    engine = Engine(tmp_path / "p")
    yield engine
    if engine.running() is not None:
        engine.down()


def test_another_user_answers(dropped: Engine) -> None:
    engine = dropped
    engine.up(Rules(user=USER))
    engine.serve("double", 2.0, scale=Scale(idle_s=3.0))
    assert engine.call("double", 2.0).y == 4.0
    pids = engine.pids()
    uid = str(pwd.getpwnam(USER).pw_uid)
    for role in ANSWERING:
        status = status_of(pids[role])
        assert status["Uid"].split() == [uid] * 4, role
        assert status["Groups"] == ""
        assert int(status["CapEff"], 16) == 0
    assert status_of(pids["supervisor"])["Uid"].split() == ["0"] * 4
    assert engine.status(None)["engine"]["access"]["user"] == USER
    assert engine.status("double")["functions"][0]["workers"][0]["memory_bytes"] > 1_000_000
    until(lambda: engine.at_zero("double"), "the function to go to zero")
    assert engine.call("double", 2.0).y == 4.0
    assert engine.ask("GET", "/functions").json["functions"][0]["name"] == "double"
    for role in ("front", "door", "nursery"):
        os.kill(engine.pids()[role], signal.SIGKILL)
        until(lambda role=role: engine.pids().get(role, pids[role]) != pids[role], f"a new {role}")  # type: ignore[misc]
    until(lambda: engine.call("double", 3.0).status == 200, "service")
    assert writable(engine.project.state) == {"counters", "spool", "aggregates"}, "the only folders for it"
    connected = as_user("/usr/bin/env", "python3", "-c", CONNECT, str(engine.project.run / "admin.sock"))
    assert "PermissionError" in connected.stderr
    if int(status_of(os.getpid())["CapEff"], 16) & CAP_SYS_PTRACE:  # then they cannot be read by their own user
        read = as_user("cat", f"/proc/{engine.pids()['nursery']}/environ")
        assert "Permission denied" in read.stderr
    engine.down()
    engine.up()  # and back: what the other user wrote does not stand in the way
    assert engine.call("double", 2.0).y == 4.0
    assert status_of(engine.pids()["double"])["Uid"].split() == ["0"] * 4


def writable(root: Path) -> set[str]:
    """Folders that the user can make files in, and files of bundles that it can change."""
    asked = [folder for folder, _, _ in os.walk(root)] + [str(path) for path in (root / "bundles").rglob("*")]
    ran = as_user("/usr/bin/env", "python3", "-c", WRITABLE, said="\n".join(asked))
    return {Path(name).name for name in ran.stdout.split()}


def test_a_user_who_cannot_get_there_is_told_so(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may change the user of processes")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    engine = Engine(closed / "p")
    with pytest.raises(EngineError, match="cannot run Sunup"):
        engine.up(Rules(user=USER))
    assert engine.running() is None


def test_a_log_makes_way_for_one_of_the_same_user(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    found = pwd.getpwnam(USER)
    rights = Rights.of(USER)
    rights.log(tmp_path / "fraud.log")
    with (tmp_path / "fraud.log").open("ab") as log:
        log.truncate(LOG_BYTES_MAX + 1)
    rotate(tmp_path, rights)
    fresh = (tmp_path / "fraud.log").stat()
    assert (fresh.st_uid, fresh.st_gid, fresh.st_size) == (found.pw_uid, found.pw_gid, 0)
    assert (tmp_path / "fraud.log.1").stat().st_size == LOG_BYTES_MAX + 1
