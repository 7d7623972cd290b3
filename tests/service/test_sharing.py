"""Several workers of a function share its connections; one function's calls and clients do not keep another's out."""

import http.client
import os
import resource
import signal
import socket
import threading
import time

from tests.engine_fixture import Engine, until

from sunup.bundle.manifest import Limits, Scale
from sunup.link.counters import Segment, counters_path

ASK = b'POST /functions/times HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{"x": 1.0}'


def held(engine: Engine, name: str, workers: int) -> list[int]:
    """How many connections each worker of a function holds."""
    counts = []
    for slot in range(workers):
        segment = Segment.open(counters_path(engine.project.run, name, slot))
        counts.append(int(segment.values[segment.slot("sunup_connections", function=name)]))
        segment.close()
    return counts


def ready(engine: Engine, name: str) -> list[int]:
    """The process ids of the ready workers of a function."""
    workers = engine.status(name)["functions"][0]["workers"]
    return [worker["pid"] for worker in workers if worker["state"] == "ready"]


def opened(engine: Engine, count: int) -> list[http.client.HTTPConnection]:
    connections = [engine.open() for _ in range(count)]
    for connection in connections:
        assert engine.call("times", 1.0, connection).y == 2.0
    return connections


def test_connections_opened_before_a_worker_was_born_are_shared_with_it(engine: Engine) -> None:
    engine.serve("times", 2.0, scale=Scale(min=2, max=2))
    until(lambda: len(ready(engine, "times")) == 2, "two workers")
    connections = opened(engine, 12)
    assert min(held(engine, "times", 2)) >= 2  # 6 and 6, unless the door heard of the second one later than we did
    os.kill(ready(engine, "times")[0], signal.SIGKILL)
    for connection in connections:  # those of the dead one come back to the door, and go to the other one
        assert engine.call("times", 1.0, connection).y == 2.0
    until(lambda: len(ready(engine, "times")) == 2, "a second worker again")

    def shared() -> bool:
        for connection in connections:
            assert engine.call("times", 1.0, connection).y == 2.0
        return min(held(engine, "times", 2)) >= 4

    until(shared, "both workers to hold connections")
    for connection in connections:
        connection.close()


def test_one_functions_idle_clients_do_not_keep_another_ones_out(engine: Engine) -> None:
    engine.serve("times", 2.0, scale=Scale(min=1, max=1))
    engine.serve("other", 3.0, scale=Scale(min=1, max=1))
    door = engine.pids()["door"]
    used = len(os.listdir(f"/proc/{door}/fd"))
    soft, hard = resource.prlimit(door, resource.RLIMIT_NOFILE)
    resource.prlimit(door, resource.RLIMIT_NOFILE, (used + 40, hard))
    idle = []
    try:
        for _ in range(35):
            client = socket.create_connection(("127.0.0.1", engine.port), timeout=20)
            client.sendall(ASK)
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
            idle.append(client)
        time.sleep(1.2)  # silent for long enough to be closed
        more = [engine.open() for _ in range(30)]
        for connection in more:
            assert engine.call("other", 1.0, connection).y == 3.0
        ended = 0
        for client in idle:
            client.setblocking(False)
            try:
                ended += client.recv(1) == b""
            except BlockingIOError:
                pass
        assert ended > 0
        for connection in more:
            connection.close()
    finally:
        for client in idle:
            client.close()
        resource.prlimit(door, resource.RLIMIT_NOFILE, (soft, hard))


def test_a_hot_function_leaves_another_one_its_calls_and_its_cold_start(engine: Engine) -> None:
    """Eight connections call one function as fast as they can, which is more than its worker answers."""
    engine.serve("times", 2.0, scale=Scale(min=1, max=1))
    engine.serve("other", 3.0, scale=Scale(min=1, max=1))
    engine.serve("cold", 4.0, scale=Scale(min=0, max=1, idle_s=0.5))
    until(lambda: engine.at_zero("cold"), "zero")
    stop = threading.Event()
    answered = [0]

    def hammer() -> None:
        with socket.create_connection(("127.0.0.1", engine.port), timeout=20) as client:
            while not stop.is_set():
                client.sendall(ASK * 8)
                answered[0] += client.recv(65536).count(b"HTTP/1.1 200 ")

    threads = [threading.Thread(target=hammer) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        waits = []
        for n in range(60):
            asked = time.monotonic()
            connection = engine.open()
            assert engine.call("other", float(n), connection).y == 3.0 * n
            connection.close()
            waits.append(time.monotonic() - asked)
        asked = time.monotonic()
        assert engine.call("cold", 1.0).y == 4.0
        woken = time.monotonic() - asked
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    print(f"beside {answered[0]} hot calls: p99 {1000 * sorted(waits)[-1]:.1f} ms, cold start {1000 * woken:.0f} ms")
    assert answered[0] > 100
    assert sorted(waits)[57] < 0.5
    assert woken < 2.0


def test_a_call_that_a_birth_cannot_answer_in_time_is_refused_at_once_and_wakes_all_the_same(engine: Engine) -> None:
    engine.serve("times", 2.0, scale=Scale(min=0, max=1, idle_s=0.5), limits=Limits(timeout_s=0.002))
    for code in ("deadline_exceeded", "overloaded"):  # the first time nobody knows what a birth takes
        until(lambda: engine.at_zero("times"), "zero")
        refused = engine.call("times", 1.0)
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert refused.json["error"]["code"] == code
        until(lambda: len(ready(engine, "times")) == 1, "the worker that it woke")
