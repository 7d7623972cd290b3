"""The resident process behind `platform deploy`: it keeps MLflow and Feast imported and the packager's child warm.

Importing them costs 5 to 10 s, a build with them in memory about one. It runs as `python -m sunup.cli.resident PROJECT
READY_FD`, listens on .sunup/run/packager.sock (newline-terminated JSON, see client.py), works on one request at a time
and ends itself after PACKAGER_IDLE_SECONDS of silence. There is exactly one per project: it holds a lock on a file.
"""

import contextlib
import fcntl
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from sunup.bundle.packager import Packager
from sunup.cli import compose
from sunup.cli.client import Asker, identity, messages, send
from sunup.errors import CommandError, SunupError
from sunup.limits import PACKAGER_IDLE_SECONDS, PACKAGER_RESIDENT_BYTES_MAX
from sunup.settings import Project

_OPERATIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "build": compose.build,
    "derive": compose.derive,
    "settings": compose.settings,
    "features": compose.features,
    "version": compose.version,
    "keep": compose.keep,
}


class Desk:
    """Answers commands, one at a time, each in the environment of whoever asked."""

    def __init__(self, project: Project, packager: Packager) -> None:
        self._project = project
        self._packager = packager
        self._identity = identity(*Asker.here(project))
        self._turn = threading.Lock()
        self._count = threading.Lock()
        self._quiet, self._now_quiet = os.pipe()
        os.set_blocking(self._now_quiet, False)
        self._busy = 0
        self._last_used = time.monotonic()

    def __repr__(self) -> str:
        return f"Desk({self._project.root}, busy={self._busy})"

    def warm(self) -> None:
        """Import what builds will need; the packager's child does the same on another core meanwhile."""
        self._packager.start()
        try:
            compose.warm(self._project)
        except Exception:  # whoever needs it will meet the same failure, with someone there to read it
            traceback.print_exc()

    def serve_until_idle(self, listener: socket.socket) -> None:
        """Take connections, each in a thread of its own, until nobody has asked anything for a while."""
        while True:
            left = self._last_used + PACKAGER_IDLE_SECONDS - time.monotonic()
            if not self._busy and (left <= 0 or _is_big()):
                return
            watched = [listener.fileno(), self._quiet]
            ready, _, _ = select.select(watched, [], [], None if self._busy else left)
            if self._quiet in ready:
                os.read(self._quiet, 64)
            if listener.fileno() in ready:
                with self._count:
                    self._busy += 1
                threading.Thread(target=self._serve, args=(listener.accept()[0],), daemon=True).start()

    def heed_signals(self) -> None:
        """In the main thread: a signal ends the wait of `serve_until_idle`. Python looks for signals before
        it waits and after; one that came in between was not seen until the next request."""
        signal.set_wakeup_fd(self._now_quiet)

    def close(self) -> None:
        """Give back what it opened."""
        os.close(self._quiet)
        os.close(self._now_quiet)

    def _serve(self, sock: socket.socket) -> None:
        # Whoever asked may be gone: what they asked for is finished all the same, and the result kept in the store.
        with sock, contextlib.suppress(OSError):
            send(sock, {"identity": self._identity, "pid": os.getpid()})
            for request in messages(sock):
                if request["op"] == "stop":
                    self._end()
                self._answer(sock, request)
        with self._count:
            self._busy -= 1
            self._last_used = time.monotonic()
        os.write(self._now_quiet, b"1")

    def _end(self) -> NoReturn:
        """End the process once the work in hand is done. The connection closes with it, which tells who asked."""
        self._turn.acquire()
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait()
        raise AssertionError

    def _answer(self, sock: socket.socket, request: dict[str, Any]) -> None:
        def emit(event: dict[str, Any]) -> None:
            with contextlib.suppress(OSError):
                send(sock, event)

        if not self._turn.acquire(blocking=False):
            emit({"stage": "wait", "detail": "the packager is at work on another request"})
            self._turn.acquire()
        try:
            result = self._work(request, emit)
        except SunupError as error:
            emit({"error": _describe(error)})
        except Exception as error:  # unforeseen: the person gets one paragraph, the log and --debug the rest
            traceback.print_exc()
            emit({"error": _describe(CommandError(f"The packager failed: {type(error).__name__}: {error}"))})
        else:
            emit({"result": result})
        finally:
            self._turn.release()

    def _work(self, request: dict[str, Any], emit: Callable[[dict[str, Any]], None]) -> Any:
        for name in os.environ.keys() - request["env"].keys():
            del os.environ[name]
        os.environ.update(request["env"])
        return _OPERATIONS[request["op"]](
            self._project,
            packager=self._packager,
            on_stage=lambda stage, detail: emit({"stage": stage, "detail": detail}),
            **request["arguments"],
        )


def _describe(error: SunupError) -> dict[str, Any]:
    return {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "exit_code": getattr(error, "exit_code", 1),
        "traceback": "".join(traceback.format_exception(error)),
    }


def _is_big() -> bool:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > PACKAGER_RESIDENT_BYTES_MAX


def _raise_exit(*_: object) -> None:
    raise SystemExit


def main(root: str, ready: int) -> None:
    """Listen, tell whoever started us, warm up, serve; leave no socket and no child behind."""
    project = Project(Path(root))
    with (project.run / "packager.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # an older one that is ending still holds it
        signal.signal(signal.SIGTERM, _raise_exit)
        path = project.run / "packager.sock"
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(16)
        os.write(ready, b"1")
        os.close(ready)
        packager = Packager()
        try:
            desk = Desk(project, packager)
            desk.heed_signals()
            threading.Thread(target=desk.warm, daemon=True).start()
            with contextlib.suppress(SystemExit):
                desk.serve_until_idle(listener)
        finally:
            path.unlink(missing_ok=True)
            packager.close()
    # Threads of libraries are of no interest any more, and some do not end when asked.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
