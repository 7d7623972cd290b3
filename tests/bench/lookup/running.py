"""Starting the subjects of the bench of lookups, and what they ask: each once, before anything is measured."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench import harness
from tests.bench.peers.peers import end
from tests.ports import free_port


class Subject:
    """A program of subject.py on one core. It sleeps unless it is asked."""

    def __init__(self, module: str, *arguments: object, core: int = harness.SERVER_CORE) -> None:
        command = ["taskset", "-c", str(core), sys.executable, "-m", f"tests.bench.{module}", *map(str, arguments)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=harness.ROOT, text=True
        )
        self.services: list[str] = self._said()

    def rows(self, service: str, count: int) -> list[list[list[Any]]]:
        """Its answers to the first `count` questions: rows of values in the order of data.columns."""
        rows: list[list[list[Any]]] = self._ordered({"service": service, "count": count})
        return rows

    def timed(self, service: str, seconds: float) -> dict[str, float]:
        """Questions one after the other for so long: `us` of the median, `p99_us`, `calls`."""
        took: dict[str, float] = self._ordered({"service": service, "seconds": seconds})
        return took

    def close(self) -> None:
        """It ends when there are no more orders."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)

    def _ordered(self, order: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._said()

    def _said(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended")
        return json.loads(line)


@contextmanager
def feast_serve(repository: Path) -> Iterator[str]:
    """`feast serve` as its documentation tunes it, on the server core: the URL of its online features.

    One worker as there is one core, no access log, the registry kept, and not the restart after 1,000 requests that is
    its default. What it logs is in serve.log beside the repository's files.
    """
    port = free_port()
    serve = ["serve", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--no-access-log"]
    kept = ["--registry_ttl_sec", "3600", "--max-requests", "0", "--keep-alive-timeout", "3600"]
    feast = [str(Path(sys.executable).with_name("feast")), "--chdir", str(repository)]
    with (repository / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            ["taskset", "-c", str(harness.SERVER_CORE), *feast, *serve, *kept],
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        harness.wait_for(port, process)
        yield f"http://127.0.0.1:{port}/get-online-features"
    finally:
        end(process)
