"""A real Redis server for tests, on a free port, with its data in a temporary folder."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from tests.ports import free_port


class RedisServer:
    """One server process. `arguments` are given to redis-server as they are."""

    def __init__(self, folder: Path, *arguments: str, tls: bool = False) -> None:
        self._folder = folder
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self.tls = tls
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"{'rediss' if self.tls else 'redis'}://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start on the same port as before, with an empty database, and wait until the port answers."""
        self._process = subprocess.Popen(self.command(), stdout=subprocess.DEVNULL, cwd=self._folder)
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.01)  # the only sign that a server listens is that it does
            else:
                return

    def command(self) -> list[str]:
        """The command line of the process."""
        port = ["--port", "0", "--tls-port", str(self.port)] if self.tls else ["--port", str(self.port)]
        return [binary(), *port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", *self._arguments]

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP stalls the server: connections stand, nothing answers. SIGCONT lets it go on."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client(self) -> "redis.Redis":
        return redis.Redis(port=self.port)


def binary() -> str:
    """The path of redis-server; without one the test is skipped at home and fails in CI."""
    found = shutil.which("redis-server")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("redis-server is not installed")
        pytest.skip("redis-server is not installed")
    return found


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`redis://127.0.0.1:port/0` of a server shared by the session: use keys (a Feast project) of your own."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of the test's own, to stall and kill."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()
