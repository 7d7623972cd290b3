"""The supervisor process: its admin socket, its start and its end.

`run/admin.sock` takes one JSON object a line (`op` and its arguments) and answers lines: events, then one with `ok`.
The folder has mode 0700 (with --user, others may pass through it) and the socket 0600; and who connects is looked at.
Runs as `python -m sunup.engine.local.admin --project DIR --host H --port P --metrics-port M [RULES] [--ready-fd N]`.
"""

import argparse
import asyncio
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, TextIO

from sunup.access.rights import Rights
from sunup.engine.access import Rules
from sunup.engine.follow.following import Following
from sunup.engine.local.operations import Operations
from sunup.engine.local.supervisor import Supervisor
from sunup.errors import CommandError, EngineError, SunupError, UsageError
from sunup.limits import ACCESS_LOG_RATE_DEFAULT, ADMIN_LINE_BYTES_MAX
from sunup.link.process import become_subreaper, name_process, raise_nofile
from sunup.settings import Project

_PEER = struct.Struct("3i")  # struct ucred: pid, uid, gid


class Admin:
    """Answers the command line."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self.stopping = asyncio.Event()
        self.leaving = False  # it ends alone, for another supervisor to follow

    async def serve(self, path: Path) -> asyncio.Server:
        """Listen at `path`."""
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._client, path, limit=ADMIN_LINE_BYTES_MAX)
        path.chmod(0o600)
        return server

    def leave(self) -> None:
        """End this process alone."""
        self.leaving = True
        self.stopping.set()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(line: dict[str, Any]) -> None:
            writer.write(json.dumps(line).encode() + b"\n")

        try:
            self._check(writer.get_extra_info("socket"))
            line = await reader.readline()
            if line:
                say({"ok": True, "result": await self._do(json.loads(line), say)})
        except SunupError as error:
            code = error.exit_code if isinstance(error, CommandError) else 1
            say({"ok": False, "error": {"code": error.code, "message": error.message, "exit_code": code}})
        except Exception as error:  # the process must outlive any one command; the log has the traceback
            sys.excepthook(type(error), error, error.__traceback__)
            say({"ok": False, "error": {"code": "internal", "message": f"{error!r}; the engine's log says more."}})
        finally:
            writer.close()

    def _check(self, sock: socket.socket) -> None:
        """Refuse who is not the engine's user, nor root, and the engine's own processes: they answer strangers."""
        pid, uid, _ = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if uid not in (os.geteuid(), 0) or pid in self._operations.pids():
            raise EngineError("This engine does not take commands from you.")

    async def _do(self, request: dict[str, Any], emit: Any) -> dict[str, Any]:
        operations = self._operations
        match request.pop("op"):
            case "ping" | "down" | "leave" as asked:
                if asked != "ping":
                    self.leaving = asked == "leave"
                    self.stopping.set()
                result = operations.address()
            case "deploy":
                result = await operations.deploy(**request, emit=emit)
            case "deploy_many":
                result = await operations.deploy_many(request["bundles"], emit)
            case "rollback":
                result = await operations.rollback(request["function"], request.get("revision"))
            case "remove":
                result = await operations.remove(request["function"])
            case "pause":
                result = operations.pausing.pause(**request)
            case "resume":
                result = operations.pausing.resume(**request)
            case "status":
                result = operations.status(request.get("function"), latency=request.get("latency", False))
            case unknown:
                raise UsageError(f"The engine does not know the operation {unknown!r}.")
        return result


def lock(project: Project) -> TextIO:
    """Be the only supervisor of this project. Raises EngineError when another one lives."""
    for folder in (project.state, project.bundles, project.run, project.run / "counters", project.logs, project.spool):
        folder.mkdir(parents=True, exist_ok=True)
    project.aggregates.mkdir(exist_ok=True)
    for folder in (project.run, project.served, project.spool, project.aggregates):
        folder.chmod(0o700)
    file = (project.run / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise EngineError("An engine is running for this project already: see platform status.") from None
    return file


def open_folders(project: Project, rights: Rights) -> None:
    """Let the account that answers strangers reach what it needs, and try that it does. Raises EngineError."""
    if rights.account is None:
        return
    rights.pass_through(project.state, project.run, project.logs, project.bundles, project.served)
    for folder in (project.run / "counters", project.spool, project.aggregates):
        rights.share(folder)
    rights.read(project.bundles / ".checked")
    tried = [sys.executable, "-P", "-c", f"import os, sunup.serve.worker; os.stat({str(project.run / 'counters')!r})"]
    try:
        subprocess.run(tried, check=True, capture_output=True, text=True, cwd="/", **rights.process())
    except (OSError, subprocess.CalledProcessError) as error:
        said = error.stderr.strip().splitlines()[-1] if isinstance(error, subprocess.CalledProcessError) else str(error)
        raise EngineError(
            f"The user of --user cannot run Sunup: {said}. It must be able to read {sys.executable}, what it imports, "
            f"and {project.state}: no folder above them may be closed to it."
        ) from error


async def run(project: Project, host: str, port: int, metrics_port: int, *, rules: Rules, ready_fd: int | None) -> None:
    """Serve until SIGTERM, SIGINT or `platform down`; or leave door and workers to the next supervisor: SIGHUP."""
    supervisor = Supervisor(project, (host, port), ("127.0.0.1", metrics_port), rules)
    following = Following(project, supervisor.state.follows, supervisor.release)
    operations = Operations(supervisor, following)
    admin = Admin(operations)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, admin.stopping.set)
    loop.add_signal_handler(signal.SIGHUP, admin.leave)
    open_folders(project, supervisor.access.rights)
    await supervisor.start()
    operations.collector.soon()
    operations.renewal.begin()
    path = project.run / "admin.sock"
    server = await admin.serve(path)
    following.start()
    if ready_fd is not None:
        with os.fdopen(ready_fd, "w") as ready:
            ready.write(json.dumps(operations.address()))
    _tell_systemd()
    await admin.stopping.wait()
    path.unlink(missing_ok=True)
    server.close()
    await following.stop()  # before anything else: it deploys
    if admin.leaving:
        await operations.settle()
    await operations.renewal.close()
    await operations.collector.close()
    await supervisor.stop(leave=admin.leaving)


def _tell_systemd() -> None:
    """That this serves, where a unit of Type=notify started it (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"READY=1", "\0" + address[1:] if address.startswith("@") else address)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(prog="sunup-supervisor")
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--metrics-port", type=int, default=9464)
    parser.add_argument("--api-keys")
    parser.add_argument("--open", action="store_true")
    parser.add_argument("--allow-host", action="append", default=[])
    parser.add_argument("--user")
    parser.add_argument("--access-log", type=float, default=ACCESS_LOG_RATE_DEFAULT)
    parser.add_argument("--ready-fd", type=int)
    options = parser.parse_args(arguments)
    project = Project(options.project.resolve())
    name_process("sunup-superv")
    raise_nofile()
    become_subreaper()
    rules = Rules(options.api_keys, options.open, tuple(options.allow_host), options.user, options.access_log)
    try:
        rules.check(options.host)
        held = lock(project)
        asyncio.run(
            run(project, options.host, options.port, options.metrics_port, rules=rules, ready_fd=options.ready_fd)
        )
        held.close()
    except CommandError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
