"""Ten thousand connections that say nothing: what they cost, and that nobody else notices them."""

import resource
import socket
import time
from collections.abc import Iterator

import pytest
from tests.engine_fixture import Engine

from sunup.bundle.manifest import Scale
from sunup.link.process import pss_bytes

WANTED = 10_000
SPARE = 1_000  # descriptors this process and the door need for everything else
ENOUGH = 25_000  # descriptors with which nothing bounds the test but WANTED
BYTES_MAX = 24_000  # per idle connection, in the door and the worker together
ASK = b'POST /functions/double HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{"x": 2.0}'


@pytest.fixture
def most() -> Iterator[int]:
    """How many connections this machine lets one process have, of those wanted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield min(WANTED, hard - SPARE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_idle_connections_are_cheap_and_harmless(engine: Engine, most: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < ENOUGH:
        print(f"the hard limit of open files is {hard:,}: {most:,} connections are held")
    engine.serve("double", 2.0, scale=Scale(min=1, max=1))
    for _ in range(50):
        assert engine.call("double", 2.0).status == 200
    pids = engine.pids()
    before = pss_bytes(pids["double"]) + pss_bytes(pids["door"])
    idle: list[socket.socket] = []
    try:
        began = time.monotonic()
        for _ in range(most):
            client = socket.create_connection(("127.0.0.1", engine.port), timeout=20)
            idle.append(client)
            client.sendall(ASK)
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
        opened = time.monotonic() - began
        each = (pss_bytes(pids["double"]) + pss_bytes(pids["door"]) - before) / most
        waits = []
        for _ in range(200):
            asked = time.monotonic()
            assert engine.call("double", 2.0).y == 4.0
            waits.append(time.monotonic() - asked)
        print(
            f"{most:,} idle connections, opened in {opened:.1f} s: {each:,.0f} bytes each; "
            f"a call beside them on a new connection takes {1000 * sorted(waits)[100]:.2f} ms (p50)"
        )
        assert each < BYTES_MAX
        for client in idle[::100]:  # they live
            client.sendall(ASK)
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
    finally:
        for client in idle:
            client.close()
    assert engine.call("double", 2.0).y == 4.0
