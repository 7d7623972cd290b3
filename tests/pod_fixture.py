"""Worker pods as processes: `python -m sunup.serve.pod` with the environment a container gives it, and nothing else."""

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.engine_fixture import PATIENCE_SECONDS, Answer, until
from tests.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
END_SECONDS_MAX = 60.0  # s; a pod itself takes 30 at most
READY_SECONDS_MAX = 60.0  # s; a start takes 0.3 where nothing else runs


class Pod:
    """One pod, started. `more`: variables of its container beside those of its ports; `user`: whose process it is, by
    number, where it is not this one's; `python`: its interpreter."""

    def __init__(
        self, folder: Path, more: Mapping[str, str], user: int | None = None, python: str = sys.executable
    ) -> None:
        self.folder = folder
        self._user = user
        self._python = python
        self.port, self.metrics_port = free_port(), free_port()
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT / "platform"),
            "SUNUP_STATE": str(folder / "state"),
            "PORT": str(self.port),
            "METRICS_PORT": str(self.metrics_port),
            **more,
        }
        self.log = folder / "pod.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, again too: as the kubelet restarts a container, with the same name, variables and emptyDir."""
        with self.log.open("wb") as output:
            command = [self._python, "-m", "sunup.serve.pod"]
            of = self._user
            whose: dict[str, Any] = {} if of is None else {"user": of, "group": of, "extra_groups": []}
            streams: dict[str, Any] = {"stdout": output, "stderr": output}
            self._process = subprocess.Popen(command, env=self.environment, cwd="/", **streams, **whose)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def wait_ready(self, seconds: float = READY_SECONDS_MAX) -> "Pod":
        """Until its probe says so."""
        until(self._is_ready, f"a ready pod, which said {self.said}", seconds)
        return self

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.said
        try:
            return self.probe("/ready").status == 200
        except OSError:
            return False

    def probe(self, target: str) -> Answer:
        """One request to the metrics port."""
        return self._ask(http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=10), "GET", target, b"", {})

    def ask(self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """One request to the port of predictions, on a connection of its own."""
        return self._ask(self.open(), method, target, body, headers or {})

    def open(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)

    def tell(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Wait for its end; the exit code."""
        return self.process.wait(END_SECONDS_MAX)

    def stop(self) -> int:
        """As the kubelet does it."""
        self.tell()
        return self.end()

    @property
    def said(self) -> list[dict[str, Any]]:
        """The lines of its log, the last words too."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def _ask(
        self, connection: http.client.HTTPConnection, method: str, target: str, body: bytes, headers: Mapping[str, str]
    ) -> Answer:
        try:
            kind = {"content-type": "application/json"} if body else {}
            connection.request(method, target, body or None, {**kind, **headers})
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()


Start = Callable[..., Pod]


def line(pod: Pod, message: str) -> dict[str, Any]:
    """The one line of a pod's log that says this."""
    (found,) = [said for said in pod.said if said["message"] == message]
    return found


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Start]:
    """Starts pods: `pods(bundle, NAME=value, ...)`, with a state folder each. What still runs at the end is killed."""
    started: list[Pod] = []

    def start(bundle: Path, **more: str) -> Pod:
        folder = tmp_path / f"pod{len(started)}"
        folder.mkdir()
        started.append(Pod(folder, {"SUNUP_BUNDLE": str(bundle), **more}))
        return started[-1]

    yield start
    for pod in started:
        if pod.process.poll() is None:
            pod.process.kill()
        pod.process.wait()


def settings_file(folder: Path, settings: Mapping[str, str]) -> str:
    """The file that SUNUP_SETTINGS names."""
    path = folder / "settings.json"
    path.write_text(json.dumps(settings))
    return str(path)
