"""A real PostgreSQL server for tests: a free port of 127.0.0.1, a temporary folder, a user that is not root."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import psycopg
import pytest
from tests.ports import free_port

USER, PASSWORD, DATABASE = "sünup", "p@ss/w:rd", "postgres"
START_SECONDS_MAX = 30.0


class PostgresServer:
    """One server and its data, which outlive `kill` and `stop`. `settings` are given to it as they are: `name=value`.

    PostgreSQL refuses to run as root: where the tests are root it runs as another user, in a folder of that user's.
    """

    def __init__(self, *settings: str) -> None:
        self._programs = programs()
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="sunup-postgres-"))
        self._rights: dict[str, Any] = {"cwd": self.folder, "stdin": subprocess.DEVNULL}
        if os.geteuid() == 0:
            self._rights |= {"user": "nobody", "group": "nogroup", "extra_groups": []}
            shutil.chown(self.folder, "nobody", "nogroup")

    @property
    def url(self) -> str:
        return f"postgresql://{quote(USER)}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def pid(self) -> int:
        """Of the running server; it starts a process for each connection."""
        assert self._process is not None
        return self._process.pid

    def create(self) -> None:
        """Make the data folder. No other than this user may come in, and that one only with the password."""
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)  # below a folder that is 0700
        options = ["--no-sync", "--no-locale", "-E", "UTF8", "-A", "scram-sha-256", "-U", USER, f"--pwfile={secret}"]
        command = [f"{self._programs}/initdb", "-D", f"{self.folder}/data", *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **self._rights)

    def start(self, *settings: str) -> None:
        """Start on the same port and data as before, and wait until it answers."""
        given = ["listen_addresses=127.0.0.1", f"port={self.port}", "unix_socket_directories=", "fsync=off"]
        given += ["shared_buffers=16MB", "max_connections=40", "timezone=UTC", *self._settings, *settings]
        command = [f"{self._programs}/postgres", "-D", f"{self.folder}/data", *(w for s in given for w in ("-c", s))]
        with (self.folder / "log").open("ab") as log:
            process = self._process = subprocess.Popen(command, stdout=log, stderr=log, **self._rights)
        deadline = time.monotonic() + START_SECONDS_MAX
        while True:
            try:
                self.client().close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.02)  # the only sign that a server takes connections is that it does
            else:
                return

    def signal(self, number: signal.Signals) -> None:
        """To the server and the process of each connection. SIGSTOP: connections stand, nothing answers."""
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def kill(self) -> None:
        """kill -9 of all there is. The data stay."""
        if self._process is not None:
            everything = self._processes()
            self.signal(signal.SIGKILL)
            self._process.wait()
            psutil.wait_procs(everything, 10)
            self._process = None

    def stop(self) -> None:
        """An end in which the server removes its shared memory; then its folder goes."""
        if self._process is not None:
            self.signal(signal.SIGCONT)
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
            self._process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def running(self) -> bool:
        return self._process is not None

    def client(self, **more: Any) -> "psycopg.Connection[tuple[Any, ...]]":
        return psycopg.connect(self.url, autocommit=True, connect_timeout=10, **more)

    def _processes(self) -> list[psutil.Process]:
        assert self._process is not None
        server = psutil.Process(self._process.pid)
        return [server, *server.children()]


def programs() -> Path:
    """The folder of initdb and postgres; without one the test is skipped at home and fails in CI."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders or not (folders[-1] / "initdb").exists():
        says = "PostgreSQL is not installed: infra/postgres.sh gets it, or apt-get install postgresql"
        if os.environ.get("CI") == "true":
            pytest.fail(says)
        pytest.skip(says)
    return folders[-1]


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server of the session."""
    server = PostgresServer()
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def postgres_server(postgres: PostgresServer) -> PostgresServer:
    """The session's server, running and with an empty database, whatever the test before did to it."""
    if postgres.running:
        postgres.signal(signal.SIGCONT)
    else:
        postgres.start()
    with postgres.client() as client:
        client.execute("DROP SCHEMA public CASCADE")
        client.execute("CREATE SCHEMA public")
    return postgres
