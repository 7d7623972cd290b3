"""A real MLflow server for tests, on a free port, with its database and artifacts in a temporary folder."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from tests.ports import free_port

START_SECONDS_MAX = 90


class MlflowServer:
    """One `mlflow server`, with its workers in a process group of its own. `start` returns before it answers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{free_port()}"

    def start(self) -> None:
        arguments = ["--host", "127.0.0.1", "--port", self.url.rpartition(":")[2], "--workers", "1"]
        stores = ["--backend-store-uri", f"sqlite:///{self._folder}/server.db"]
        stores += ["--artifacts-destination", str(self._folder / "artifacts")]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        with (self._folder / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *arguments, *stores],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=environment,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Return when the server answers. Raises with its log when it does not."""
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS_MAX
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return
            except OSError as error:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise AssertionError((self._folder / "server.log").read_text()[-4000:]) from error
                time.sleep(0.1)  # the only sign that a server listens is that it does

    def stop(self) -> None:
        """End the server and its workers."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
