"""What is asked of a running engine: one request a connection, over its admin socket."""

import json
import os
import pwd
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sunup.engine.engine import Event
from sunup.errors import CommandError, EngineError
from sunup.limits import PROOF_SECONDS_MAX
from sunup.settings import Project

START_SECONDS_MAX: Final = 30.0


class Requests:
    """What is asked of a running engine over its admin socket. Every method raises EngineError (or what the engine
    answered) with what to do."""

    def __init__(self, project: Project) -> None:
        self._project = project

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

    def pause(self, function: str, partitions: Sequence[int] | None) -> dict[str, Any]:
        """Read nothing of the function's topic, or of these partitions."""
        by = _user()
        return self._ask({"op": "pause", "function": function, "partitions": partitions, "by": by})

    def resume(self, function: str, partitions: Sequence[int] | None) -> dict[str, Any]:
        """Read on."""
        return self._ask({"op": "resume", "function": function, "partitions": partitions})

    def logs(self, function: str) -> Path:
        """Where the function's workers log."""
        return self._project.logs / f"{function}.log"

    def _ask(self, request: dict[str, Any], on_event: Event = lambda _: None) -> dict[str, Any]:
        return ask(self._project, request, on_event)


def ask(project: Project, request: dict[str, Any], on_event: Event) -> dict[str, Any]:
    """The result of one request; `on_event` gets what comes before it. Raises what the engine answered, or that none is
    running."""
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


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # many containers run as a number that has no name
        return f"user {os.getuid()}"
