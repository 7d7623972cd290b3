"""Asking the resident process that keeps MLflow and Feast imported; starting it when it is not there."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import sunup
from sunup import __version__
from sunup.engine.local.client import environment
from sunup.errors import CommandError
from sunup.limits import PACKAGER_START_SECONDS_MAX
from sunup.settings import Project

Event = Callable[[dict[str, Any]], None]

# What a process reads once, when it starts: with another value the resident process is replaced. Every other variable
# travels with each request.
_AT_START: Final = re.compile(r"PYTHON.*|LD_.*|PATH|HOME|VIRTUAL_ENV|OMP_.*|OPENBLAS_.*")
# SQLite and folder addresses that mean another place in another working folder.
SQLITE: Final = "sqlite:///"
_RELATIVE: Final = re.compile(r"sqlite:///(?!/)|(?![a-z+]+:|/)", re.IGNORECASE)


class Asker(NamedTuple):
    """Whoever asks: their environment, and the working folder a resident process for them has."""

    environment: Mapping[str, str]
    folder: str

    @classmethod
    def here(cls, project: Project) -> Self:
        """This process, with the project's folder unless the registry's address is relative to where it was typed."""
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        return cls(environment(), str(Path.cwd()) if uri and _RELATIVE.match(uri) else str(project.root))

    def registry(self, project: Project) -> str:
        """The registry's address, with nothing relative in it."""
        uri = self.environment.get("MLFLOW_TRACKING_URI")
        if not uri:
            return project.own_registry
        if not _RELATIVE.match(uri):
            return uri
        scheme, path = (SQLITE, uri[len(SQLITE) :]) if uri.lower().startswith(SQLITE) else ("", uri)
        return f"{scheme}{Path(self.folder, path)}"


class Resident:
    """The resident process of one project, seen from a command. `asker`: for whom (default: this process)."""

    def __init__(self, project: Project, asker: Asker | None = None) -> None:
        self._project = project
        self._asker = asker or Asker.here(project)
        self._socket = project.run / "packager.sock"

    def ask(self, op: str, arguments: dict[str, Any], on_event: Event) -> dict[str, Any]:
        """The result of one operation; `on_event` gets what it says on the way.

        Raises the CommandError it raised, or one that names its log when it ended without an answer.
        """
        request = {"op": op, "arguments": arguments, "env": dict(self._asker.environment)}
        with self._connected(on_event) as stream:
            send(stream, request)
            for message in messages(stream):
                if "result" in message:
                    result: dict[str, Any] = message["result"]
                    return result
                if "error" in message:
                    raise _revive(message["error"])
                on_event(message)
        raise CommandError(
            f"The packager ended while it worked on this. Its last words are in {self._project.logs / 'packager.log'}; "
            "the same command starts a new one."
        )

    def stop(self) -> bool:
        """End it if it runs; whether it did."""
        sock = _connect(self._socket)
        if sock is None:
            return False
        with sock:
            _dismiss(sock)
        return True

    @contextlib.contextmanager
    def _connected(self, on_event: Event) -> Iterator[socket.socket]:
        """A connection to a resident process of this very code, python and working folder."""
        self._project.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._project.logs.mkdir(parents=True, exist_ok=True)
        wanted = identity(*self._asker)
        # One command at a time looks and starts, so there is never a second resident process.
        with (self._project.run / "packager.start").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            sock = self._living(wanted)
            if sock is None:
                on_event({"note": "starting the packager"})
                self._start()
                sock = self._living(wanted)
        if sock is None:
            raise CommandError(f"The packager did not start. See {self._project.logs / 'packager.log'}.")
        with sock:
            yield sock

    def _living(self, wanted: str) -> socket.socket | None:
        sock = _connect(self._socket)
        if sock is None:
            return None
        try:
            greeting = next(messages(sock), {})
        except OSError:  # it ended between our connecting and its greeting: as good as not there
            greeting = {}
        if greeting.get("identity") == wanted:
            return sock
        if greeting:
            _dismiss(sock)
        sock.close()
        return None

    def _start(self) -> None:
        """Start it detached and wait until it listens (it writes one byte) or has ended (the pipe closes)."""
        ready, theirs = os.pipe()
        # -O: with asserts on, Feast wraps its functions in run-time type checks as it is imported: 4 s instead of 1.5.
        command = [sys.executable, "-O", "-P", "-m", "sunup.cli.resident", str(self._project.root), str(theirs)]
        with (self._project.logs / "packager.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                env=self._asker.environment,
                pass_fds=[theirs],
                cwd=self._asker.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        process.returncode = 0  # it goes on without us: not a child to wait for
        os.close(theirs)
        with os.fdopen(ready, "rb") as pipe:
            readable, _, _ = select.select([pipe], [], [], PACKAGER_START_SECONDS_MAX)
            if not readable or not pipe.read(1):
                raise CommandError(f"The packager did not start. See {self._project.logs / 'packager.log'}.")


def identity(environment: Mapping[str, str], folder: str) -> str:
    """What makes a resident process the right one: Sunup's code, the interpreter, and what is read only at start."""
    package = Path(sunup.__file__).parent
    parts = [__version__, sys.executable, folder]
    parts += [f"{name}={value}" for name, value in sorted(environment.items()) if _AT_START.fullmatch(name)]
    for path in sorted(package.rglob("*.py")):
        stat = path.stat()
        parts.append(f"{path}:{stat.st_mtime_ns}:{stat.st_size}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def send(sock: socket.socket, message: dict[str, Any]) -> None:
    """One message: a line of JSON."""
    sock.sendall(json.dumps(message, default=str).encode() + b"\n")


def messages(sock: socket.socket) -> Iterator[dict[str, Any]]:
    """The messages that come, until the other side closes."""
    rest = b""
    while True:
        while b"\n" in rest:
            line, _, rest = rest.partition(b"\n")
            yield json.loads(line)
        try:
            more = sock.recv(65536)
        except ConnectionResetError:  # it was killed
            return
        if not more:
            return
        rest += more


def _connect(path: Path) -> socket.socket | None:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(str(path))
    except OSError:
        sock.close()
        return None
    return sock


def _dismiss(sock: socket.socket) -> None:
    """Ask it to end, and wait until it has (it finishes what it is doing first)."""
    with contextlib.suppress(OSError):
        send(sock, {"op": "stop"})
        for _ in messages(sock):
            pass


def _revive(error: dict[str, Any]) -> CommandError:
    revived = CommandError(error["message"], hint=error["hint"])
    revived.code = error["code"]
    revived.exit_code = error["exit_code"]
    if error["traceback"]:
        revived.add_note(error["traceback"])
    return revived
