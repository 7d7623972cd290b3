"""The local engine as the command line sees it: requests over the admin socket, and starting it when it is away."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sunup.engine.access import Rules
from sunup.engine.engine import Event
from sunup.errors import CommandError, EngineError
from sunup.limits import PROOF_SECONDS_MAX
from sunup.settings import API_KEY, Project

START_SECONDS_MAX = 30.0
EVERYBODY_HERE = Rules()  # whoever is on this machine may call


class LocalEngine:
    """The engine of one project. Every method raises EngineError (or what the engine answered) with what to do."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def running(self) -> dict[str, Any] | None:
        """version, pid, url and metrics_url of the living engine; None when there is none."""
        try:
            return self._ask({"op": "ping"})
        except EngineError as error:
            if error.code == "engine_absent":
                return None
            raise

    def start(self, host: str, port: int, metrics_port: int, rules: Rules = EVERYBODY_HERE) -> dict[str, Any]:
        """Start (or adopt) the engine in the background, and wait until it listens. Returns what `running` would."""
        self._project.logs.mkdir(parents=True, exist_ok=True)
        log = self._project.logs / "engine.log"
        read, write = os.pipe()
        starting = [*command(self._project, host, port, metrics_port, rules), "--ready-fd", str(write)]
        with log.open("ab") as output:
            begun = output.tell()
            process = subprocess.Popen(
                starting,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[write],
                start_new_session=True,
            )
        os.close(write)
        with os.fdopen(read) as ready:
            came = select.select([ready], [], [], START_SECONDS_MAX)[0]
            told = ready.read() if came else ""
        if told:
            process.returncode = 0  # it goes on without us: not a child to wait for
            facts: dict[str, Any] = json.loads(told)
            return facts
        if not came:
            process.kill()
        process.wait()
        with log.open() as text:
            text.seek(begun)
            said = text.read().strip()
        raise EngineError(f"The engine did not start. {said[-2000:] or 'It said nothing.'} (log: {log})")

    def down(self, *, alone: bool = False) -> dict[str, Any]:
        """Stop the engine and everything it runs; returns when it has ended. `alone`: only the supervisor, when what it
        was asked for is done; the next one adopts everything else."""
        try:
            return self._end(self._ask({"op": "leave" if alone else "down"}))
        except CommandError as error:
            if not alone or error.code == "engine_absent":
                raise
        # One of a version that does not know the word. It may die at any time: what serves does without it.
        facts = self._ask({"op": "ping"})
        os.kill(facts["pid"], signal.SIGKILL)
        return self._end(facts)

    def _end(self, facts: dict[str, Any]) -> dict[str, Any]:
        pidfd = _open(facts["pid"])
        if pidfd is not None:
            ended = select.select([pidfd], [], [], PROOF_SECONDS_MAX)[0]
            os.close(pidfd)
            try:
                os.waitpid(facts["pid"], os.WNOHANG)
            except ChildProcessError:
                pass  # another process started it
            if not ended:
                raise EngineError(f"The engine (pid {facts['pid']}) is still stopping; its log says more.")
        return facts

    def deploy(
        self,
        function: str,
        digest: str,
        *,
        settings: Mapping[str, str],
        on_event: Event,
        follow: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Prove and route a bundle of the store."""
        request = {"op": "deploy", "function": function, "digest": digest, "settings": dict(settings), "follow": follow}
        return self._ask(request, on_event)

    def rollback(self, function: str, revision: int | None) -> dict[str, Any]:
        """Route an earlier revision again."""
        return self._ask({"op": "rollback", "function": function, "revision": revision})

    def remove(self, function: str) -> dict[str, Any]:
        """Stop serving a function."""
        return self._ask({"op": "remove", "function": function})

    def status(self, function: str | None, *, latency: bool = False) -> dict[str, Any]:
        """Facts about the engine and its functions."""
        return self._ask({"op": "status", "function": function, "latency": latency})

    def logs(self, function: str) -> Path:
        """Where the function's workers log."""
        return self._project.logs / f"{function}.log"

    def _ask(self, request: dict[str, Any], on_event: Event = lambda _: None) -> dict[str, Any]:
        return _ask(self._project, request, on_event)


def deploy_many(project: Project, bundles: Sequence[Mapping[str, Any]], on_event: Event) -> list[dict[str, Any]]:
    """Prove and route bundles of the store, each {"function", "digest", "settings"}; see Operations.deploy_many."""
    functions: list[dict[str, Any]] = _ask(project, {"op": "deploy_many", "bundles": bundles}, on_event)["functions"]
    return functions


def _ask(project: Project, request: dict[str, Any], on_event: Event) -> dict[str, Any]:
    path = project.run / "admin.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PROOF_SECONDS_MAX + START_SECONDS_MAX)
        try:
            sock.connect(str(path))
        except OSError:
            raise _Absent("No engine is running for this project. Start it: platform up --detach") from None
        try:
            sock.sendall(json.dumps(request).encode() + b"\n")
            with sock.makefile("rb") as lines:
                for line in lines:  # of any length: `platform status` says 0.4 KB of each function
                    said = json.loads(line)
                    if "ok" in said:
                        return _result(said)
                    on_event(said)
        except OSError:
            pass  # told below: a reset is an end, too
    raise _Absent("The engine ended before it answered. Start it again: platform up --detach")


def command(project: Project, host: str, port: int, metrics_port: int, rules: Rules) -> list[str]:
    """The command line of a supervisor process. -P: nothing in the folder it is started from shadows a module."""
    module = "sunup.engine.local.admin"
    options = ["--project", str(project.root), "--host", host, "--port", str(port)]
    return [sys.executable, "-P", "-m", module, *options, "--metrics-port", str(metrics_port), *rules.flags()]


def environment() -> dict[str, str]:
    """What a supervisor's environment is made of: the caller's, without the key that is for calls."""
    return {name: value for name, value in os.environ.items() if name != API_KEY}


class _Absent(EngineError):
    code = "engine_absent"


def _result(said: dict[str, Any]) -> dict[str, Any]:
    if not said["ok"]:
        raise _Answered(said["error"])
    result: dict[str, Any] = said["result"]
    return result


class _Answered(CommandError):
    """An error the engine answered with: its own code, message and exit code."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(error["message"])
        self.code = error["code"]
        self.exit_code = error["exit_code"]


def _open(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None
