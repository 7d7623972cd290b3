"""The local engine as the command line sees it: what is asked of it, and starting and ending it."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from sunup.engine.access import Rules
from sunup.engine.engine import Event
from sunup.engine.local.requests import START_SECONDS_MAX, Requests, ask
from sunup.errors import CommandError, EngineError
from sunup.limits import PROOF_SECONDS_MAX
from sunup.settings import API_KEY, Project

EVERYBODY_HERE = Rules()  # whoever is on this machine may call


class LocalEngine(Requests):
    """The engine of one project. Every method raises EngineError (or what the engine answered) with what to do."""

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


def deploy_many(project: Project, bundles: Sequence[Mapping[str, Any]], on_event: Event) -> list[dict[str, Any]]:
    """Prove and route bundles of the store, each {"function", "digest", "settings"}; see Operations.deploy_many."""
    functions: list[dict[str, Any]] = ask(project, {"op": "deploy_many", "bundles": bundles}, on_event)["functions"]
    return functions


def command(project: Project, host: str, port: int, metrics_port: int, rules: Rules) -> list[str]:
    """The command line of a supervisor process. -P: nothing in the folder it is started from shadows a module."""
    module = "sunup.engine.local.admin"
    options = ["--project", str(project.root), "--host", host, "--port", str(port)]
    return [sys.executable, "-P", "-m", module, *options, "--metrics-port", str(metrics_port), *rules.flags()]


def environment() -> dict[str, str]:
    """What a supervisor's environment is made of: the caller's, without the key that is for calls."""
    return {name: value for name, value in os.environ.items() if name != API_KEY}


def _open(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None
