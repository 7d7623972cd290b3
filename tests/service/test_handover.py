"""What a door holds while the supervisor, or the door itself, is on its way to another one."""

import os
import signal
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.engine_fixture import Engine, until

from sunup.bundle.manifest import Limits, Scale
from sunup.link import channel as link


def test_cold_calls_wait_for_the_supervisor_that_follows(engine: Engine) -> None:
    engine.serve("cold", 2.0, scale=Scale(idle_s=0.3), limits=Limits(timeout_s=20.0))
    until(lambda: engine.at_zero("cold"), "a function at zero")
    os.kill(engine.pids()["supervisor"], signal.SIGHUP)
    until(lambda: engine.running() is None, "the supervisor to leave")
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(engine.call, "cold", float(n)) for n in range(4)]
        engine.up()
        assert [call.result().y for call in calls] == [0.0, 2.0, 4.0, 6.0]


def test_a_door_that_was_to_be_replaced_serves_on_when_nobody_comes(engine: Engine) -> None:
    engine.serve("times", 2.0)
    idle = engine.open()
    assert engine.call("times", 1.0, idle).y == 2.0
    unasked = socket.create_connection(("127.0.0.1", engine.port))
    os.kill(engine.pids()["supervisor"], signal.SIGKILL)
    until(lambda: engine.running() is None, "the supervisor to be gone")
    with link.connect(engine.project.run / "door.sock") as ours:
        link.send(ours, {"op": "hello", "role": "supervisor"})
        link.send(ours, {"op": "retire"})
        said = []
        while "retired" not in said:
            message = link.receive(ours)
            assert message is not None
            said.append(message.head["op"])
            for fd in message.fds:
                os.close(fd)
        assert engine.call("times", 2.0, idle).y == 4.0  # its worker has it
        with socket.create_connection(("127.0.0.1", engine.port)) as late:
            late.sendall(b"GET /v2 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            late.settimeout(0.3)
            with pytest.raises(TimeoutError):
                late.recv(1)  # nobody accepts it
            ours.close()
            late.settimeout(10)
            assert late.recv(4096).startswith(b"HTTP/1.1 200 ")
    unasked.sendall(b"GET /v2 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    unasked.settimeout(10)
    assert unasked.recv(4096).startswith(b"HTTP/1.1 200 ")
    unasked.close()
    idle.close()


def test_a_door_whose_place_is_taken_when_the_supervisor_dies_gives_all_it_has(engine: Engine) -> None:
    engine.serve("times", 2.0)
    pids = engine.pids()
    unasked = socket.create_connection(("127.0.0.1", engine.port))
    assert engine.call("times", 1.0).y == 2.0  # by now the door has accepted the one before
    os.kill(pids["supervisor"], signal.SIGKILL)
    until(lambda: engine.running() is None, "the supervisor to be gone")
    place = engine.project.run / "door.sock"
    with link.connect(place) as ours, link.listen(engine.project.run / "door.next") as other:
        link.send(ours, {"op": "hello", "role": "supervisor"})
        link.send(ours, {"op": "retire"})
        while (message := link.receive(ours)) is not None and message.head["op"] != "retired":
            for fd in message.fds:
                os.close(fd)
        (engine.project.run / "door.next").replace(place)
        ours.close()
        other.settimeout(10)
        sock, _ = other.accept()
        with sock:
            hello, have = link.receive(sock), link.receive(sock)
            assert hello is not None
            assert have is not None
            assert (hello.head, have.head) == ({"op": "hello", "role": "door"}, {"op": "have"})
            with socket.socket(fileno=have.fds[0]) as handed:
                assert handed.getpeername() == unasked.getsockname()
    unasked.close()
    os.kill(pids["door"], signal.SIGKILL)  # it waits for its workers to meet a door that is none
    until(lambda: not alive([pids["door"]]), "its end")


def alive(pids: Iterable[int]) -> list[int]:
    """Those of the processes that have not ended."""
    return [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()]
