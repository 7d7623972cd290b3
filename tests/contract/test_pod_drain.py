"""A pod that is told to end loses no call: what it has accepted it answers, what comes later is refused, not reset."""

import asyncio
import json
import socket
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from tests.engine_fixture import Engine, until
from tests.pod_fixture import Pod, Start, line, pods

from sunup.bundle.manifest import Limits, Scale
from sunup.limits import POD_GRACE_SECONDS, POD_INTAKE_SECONDS_MAX

__all__ = ["pods"]

CLIENTS = 200
SLOW = """
import time


def preprocess(rows):
    time.sleep(0.05)
    return {"x": rows["x"]}
"""
CALL = (
    b'POST /functions/double HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n{"x": 2}'
)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose model runs take 50 ms, in a thread, and whose calls wait for them as long as it takes."""
    engine = Engine(tmp_path_factory.mktemp("slow") / "p")
    scale, limits = Scale(queue_max=10_000), Limits(timeout_s=60.0)
    return engine.project.bundles / engine.bundle("double", 2.0, handler=SLOW, scale=scale, limits=limits)


class Clients:
    """Callers on kept connections, each with its next call as soon as it has an answer; one that is told that its
    connection ends opens another one. `lost`: what became of calls that got no answer."""

    def __init__(self, pod: Pod) -> None:
        self._pod = pod
        self.answers: Counter[int] = Counter()
        self.lost: Counter[str] = Counter()
        self.refused = 0
        self.goodbyes = 0
        self.stop = False

    async def run(self, clients: int, told_after: int) -> None:
        """Until every one of them was refused, or `stop`. SIGTERM is sent after so many answers."""
        callers = [asyncio.ensure_future(self._call()) for _ in range(clients)]
        while sum(self.answers.values()) < told_after:
            await asyncio.sleep(0.01)
        self._pod.tell()
        await asyncio.gather(*callers)

    async def _call(self) -> None:
        while not self.stop:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._pod.port)
            except ConnectionRefusedError:
                self.refused += 1
                return
            try:
                while not self.stop:
                    writer.write(CALL)
                    if await self._is_last(reader):
                        break
            except (OSError, EOFError) as error:
                self.lost[repr(error)] += 1
            finally:
                writer.close()

    async def _is_last(self, reader: asyncio.StreamReader) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        assert json.loads(await reader.readexactly(length))["predictions"] == [{"y": 4.0}]
        self.answers[int(head[9:12])] += 1
        last = b"connection: close" in lines
        self.goodbyes += last
        return last


def test_under_load_no_call_is_lost(slow: Path, pods: Start) -> None:
    pod = pods(slow).wait_ready()
    clients = Clients(pod)
    began = time.monotonic()
    asyncio.run(clients.run(CLIENTS, 3 * CLIENTS))
    assert pod.end() == 0
    print(f"{sum(clients.answers.values())} answers, {clients.goodbyes} of them the last of a connection")
    assert (set(clients.answers), clients.lost) == ({200}, Counter())
    assert clients.refused == CLIENTS, "each of them was refused in the end, by nobody who had taken its call"
    assert clients.goodbyes >= CLIENTS
    assert time.monotonic() - began < POD_GRACE_SECONDS + POD_INTAKE_SECONDS_MAX
    assert line(pod, "ended")


def test_calls_in_hand_are_answered_and_no_time_is_wasted(slow: Path, pods: Start) -> None:
    pod = pods(slow).wait_ready()
    with closing(socket.create_connection(("127.0.0.1", pod.port))) as waiting:
        waiting.sendall(CALL)
        pod.tell()
        began = time.monotonic()
        assert waiting.recv(65536).startswith(b"HTTP/1.1 200 OK")
        assert waiting.recv(1) == b""
    assert pod.end() == 0
    assert time.monotonic() - began < POD_INTAKE_SECONDS_MAX


def test_what_a_leaving_pod_says(slow: Path, pods: Start) -> None:
    pod = pods(slow).wait_ready()
    with closing(pod.open()) as kept, closing(socket.create_connection(("127.0.0.1", pod.port))) as silent:
        kept.request("GET", "/functions")
        kept.getresponse().read()
        pod.tell()
        until(lambda: pod.probe("/ready").status == 503, "its readiness to end")
        assert pod.probe("/ready").json == {"ready": False, "reason": "leaving"}
        assert pod.probe("/live").status == 200
        for target in ("/v2/health/ready", "/v2/models/double/ready", "/v1/models/double", "/functions/double/ready"):
            assert pod.ask("GET", target).status == 503, target
        assert pod.ask("GET", "/v2/health/live").status == 200
        assert pod.ask("GET", "/functions").json["functions"][0]["state"] == "leaving"
        kept.request("POST", "/functions/double", b'{"x": 3}', {"content-type": "application/json"})
        answer = kept.getresponse()
        assert (answer.status, answer.getheader("connection")) == (200, "close")
        assert json.loads(answer.read())["predictions"] == [{"y": 6.0}]
        assert silent.recv(1) == b"", "a connection nobody uses ends"
    assert pod.end() == 0


def test_requests_sent_together_are_all_answered(slow: Path, pods: Start) -> None:
    """Pipelined: the last of them ends the connection, not the first."""
    pod = pods(slow).wait_ready()
    with closing(socket.create_connection(("127.0.0.1", pod.port))) as client:
        client.sendall(5 * CALL)
        received = client.recv(65536)
        pod.tell()
        while more := client.recv(65536):
            received += more
    assert received.count(b"HTTP/1.1 200 OK") == 5
    assert received.count(b"connection: close") <= 1
    assert pod.end() == 0
