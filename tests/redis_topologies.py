"""Real Redis in the ways it is run: behind Sentinels, as a cluster, with TLS and a password."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.cluster import ClusterNode, RedisCluster
from tests.redis_fixture import RedisServer, binary

PATIENCE_SECONDS = 20.0
PASSWORD = "p@ss,wörd/1"  # of servers that live as long as a test
QUOTED = "p%40ss%2Cw%C3%B6rd%2F1"
SLOTS = 16384
AT_ONCE = ("--repl-diskless-sync-delay", "0")  # s a master waits for further replicas


def until(holds: Callable[[], Any], what: str) -> Any:
    """What `holds` gives once that is something, asked again and again: other processes say no more."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            found = holds()
        except redis.RedisError:
            found = None
        if found:
            return found
        assert time.monotonic() < deadline, f"never {what}"
        time.sleep(0.01)


class SentinelSet:
    """A master and its replica, watched by one Sentinel that notices a dead master after `down_ms`."""

    NAME = "fraud-master"

    def __init__(self, folder: Path, down_ms: int = 300) -> None:
        self._servers = [RedisServer(_made(folder / f"server{n}"), *AT_ONCE) for n in range(2)]
        self._config = _made(folder / "sentinel") / "sentinel.conf"
        self._down_ms = down_ms
        self.sentinel = SentinelServer(self._config)

    @property
    def url(self) -> str:
        return f"redis-sentinel://127.0.0.1:{self.sentinel.port}/0?master={self.NAME}"

    def start(self) -> None:
        first, second = self._servers
        for server in self._servers:
            server.start()
        with second.client() as client:
            client.replicaof("127.0.0.1", str(first.port))
            until(lambda: client.info("replication")["master_link_status"] == "up", "replicated")
        self._config.write_text(
            f"port {self.sentinel.port}\nbind 127.0.0.1\ndir {self._config.parent}\n"
            f"sentinel monitor {self.NAME} 127.0.0.1 {first.port} 1\n"
            f"sentinel down-after-milliseconds {self.NAME} {self._down_ms}\n"
            f"sentinel failover-timeout {self.NAME} 2000\n"
        )
        self.sentinel.start()
        until(lambda: self._state()["num-slaves"] == 1, "a Sentinel that knows the replica")

    def stop(self) -> None:
        for server in (self.sentinel, *self._servers):
            server.stop()

    def master(self) -> RedisServer:
        """Who the Sentinel says it is."""
        with self.sentinel.client() as client:
            _host, port = client.execute_command("SENTINEL", "get-master-addr-by-name", self.NAME)
        return next(server for server in self._servers if server.port == int(port))

    def replica(self) -> RedisServer:
        """The other one."""
        master = self.master()
        return next(server for server in self._servers if server is not master)

    def client(self) -> "redis.Redis":
        """The master's, which waits with every write until the replica has it, as far as one is there."""
        return self.master().client()

    def copied(self) -> None:
        """Wait until the replica has what the master has."""
        with self.client() as client:
            assert client.wait(1, int(1000 * PATIENCE_SECONDS)) == 1

    def promoted(self, old: RedisServer) -> RedisServer:
        """The master, once it is another than `old` and knows that it is one."""

        def another() -> RedisServer | None:
            now = self.master()
            if now is old:
                return None
            with now.client() as client:
                return now if client.execute_command("ROLE")[0] == b"master" else None

        found: RedisServer = until(another, "another master")
        return found

    def _state(self) -> dict[str, Any]:
        with self.sentinel.client() as client:
            state: dict[str, Any] = client.sentinel_master(self.NAME)
            return state


class SentinelServer(RedisServer):
    """redis-server in its other role, which rewrites its configuration file."""

    def __init__(self, config: Path) -> None:
        super().__init__(config.parent)
        self._config = config

    def command(self) -> list[str]:
        """See RedisServer."""
        return [binary(), str(self._config), "--sentinel"]


class RedisClusterOfThree:
    """Three masters that share the slots out evenly; `replicas` adds one of the first master."""

    def __init__(self, folder: Path, *, replicas: int = 0, timeout_ms: int = 500) -> None:
        arguments = (*AT_ONCE, "--cluster-enabled", "yes", "--cluster-node-timeout", str(timeout_ms))
        more = ("--cluster-replica-validity-factor", "0", "--cluster-require-full-coverage", "no")
        self.servers = [RedisServer(_made(folder / f"node{n}"), *arguments, *more) for n in range(3 + replicas)]

    @property
    def url(self) -> str:
        return f"redis-cluster://{','.join(f'127.0.0.1:{server.port}' for server in self.servers[:2])}"

    def start(self) -> None:
        for server in self.servers:
            server.start()
        masters = self.servers[:3]
        bounds = [0, SLOTS // 3, 2 * SLOTS // 3, SLOTS]
        for server, first, end in zip(masters, bounds, bounds[1:], strict=False):
            with server.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
                for other in self.servers:
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port)
        for server in self.servers:
            self._agreed(server)
        for server in self.servers[3:]:
            self._replicate(server, masters[0])

    def stop(self) -> None:
        for server in self.servers:
            server.stop()

    def client(self) -> Any:
        """One of redis-py's for the whole cluster."""
        return RedisCluster(startup_nodes=[ClusterNode("127.0.0.1", port) for port in self._ports()])  # type: ignore[no-untyped-call]

    def id_of(self, server: RedisServer) -> str:
        with server.client() as client:
            found: bytes = client.execute_command("CLUSTER", "MYID")
            return found.decode() if isinstance(found, bytes) else str(found)

    def _ports(self) -> list[int]:
        return [server.port for server in self.servers[1:]]

    def _replicate(self, server: RedisServer, master: RedisServer) -> None:
        with server.client() as client:
            name = self.id_of(master)
            until(lambda: client.execute_command("CLUSTER", "REPLICATE", name), "a replica")
            until(lambda: client.info("replication")["master_link_status"] == "up", "replicated")

    def _agreed(self, server: RedisServer) -> None:
        def agreed() -> bool:
            with server.client() as client:
                info = client.execute_command("CLUSTER", "INFO")
            text = info.decode() if isinstance(info, bytes) else str(info)
            return "cluster_state:ok" in text and f"cluster_known_nodes:{len(self.servers)}" in text

        until(agreed, "a cluster")


class Certificates:
    """A certificate for 127.0.0.1 that signs itself."""

    def __init__(self, folder: Path) -> None:
        self.key, self.certificate = folder / "key.pem", folder / "cert.pem"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
                *("-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
                *("-keyout", self.key, "-out", self.certificate),
            ],
            check=True,
            capture_output=True,
        )

    def arguments(self) -> tuple[str, ...]:
        """What redis-server is told."""
        mine = ("--tls-cert-file", str(self.certificate), "--tls-key-file", str(self.key))
        return *mine, "--tls-ca-cert-file", str(self.certificate), "--tls-auth-clients", "no"


class SecuredServer(RedisServer):
    """One server with TLS and a password."""

    def __init__(self, folder: Path) -> None:
        self._certificates = Certificates(folder)
        super().__init__(folder, *self._certificates.arguments(), "--requirepass", PASSWORD, tls=True)

    @property
    def url(self) -> str:
        return f"rediss://:{QUOTED}@127.0.0.1:{self.port}/0?ssl_ca_certs={self._certificates.certificate}"

    def client(self) -> "redis.Redis":
        trusted = str(self._certificates.certificate)
        return redis.Redis("127.0.0.1", self.port, ssl=True, ssl_ca_certs=trusted, password=PASSWORD)


@contextmanager
def running(server: Any) -> Iterator[Any]:
    """`server` started; ended behind the block whatever happens."""
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def redis_sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelSet]:
    """Shared by the session, and not to be broken."""
    with running(SentinelSet(tmp_path_factory.mktemp("sentinels"))) as found:
        yield found


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisClusterOfThree]:
    """Shared by the session, and not to be broken."""
    with running(RedisClusterOfThree(tmp_path_factory.mktemp("cluster"))) as found:
        yield found


@pytest.fixture(scope="session")
def redis_secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredServer]:
    """Shared by the session, and not to be broken."""
    with running(SecuredServer(tmp_path_factory.mktemp("secured"))) as found:
        yield found


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
