"""kill -9 of each process of the local engine, alone and together: the promises hold, and nothing is half written."""

import os
import signal
import socket
import threading
import time

import pytest
from tests.engine_fixture import Answer, Engine, left, until

from sunup.bundle.manifest import Scale
from sunup.link import channel as link

PROCESSES = ("times", "front", "nursery", "door")


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def serves(engine: Engine, expected: float) -> bool:
    """Whether a call is answered; a wrong answer fails the test, a refused or broken one does not."""
    try:
        answer = engine.call("times", 1.0)
    except OSError:
        return False
    if answer.status == 200:
        assert answer.y == expected
        return True
    assert answer.status == 503, answer
    return False


@pytest.mark.parametrize("role", PROCESSES)
def test_each_process_is_replaced(engine: Engine, role: str) -> None:
    engine.serve("times", 2.0)
    pid = engine.pids()[role]
    kill(pid)
    took = until(lambda: serves(engine, 2.0) and engine.ask("GET", "/v2").status == 200, f"life after the {role}")
    until(lambda: engine.pids().get(role, pid) != pid, f"a new {role}")
    assert engine.status("times")["functions"][0]["revision"] == 1
    print(f"{role}: serving again after {took * 1000:.0f} ms")


def test_without_supervisor_warm_functions_serve_and_cold_ones_say_when_to_retry(engine: Engine) -> None:
    engine.serve("times", 2.0)
    engine.serve("cold", 3.0, scale=Scale(idle_s=0.3))
    until(lambda: engine.at_zero("cold"), "a cold function")
    before = engine.pids()
    kill(before["supervisor"])
    until(lambda: engine.running() is None, "the supervisor to be gone")
    assert engine.call("times", 4.0).y == 8.0
    refused = engine.call("cold", 1.0)
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    engine.up()
    after = engine.pids()
    assert {r: after[r] for r in PROCESSES} == {r: before[r] for r in PROCESSES}, "living processes are adopted"
    assert engine.call("times", 4.0).y == 8.0
    assert engine.call("cold", 1.0).y == 3.0


def test_all_at_once(engine: Engine) -> None:
    engine.serve("times", 2.0)
    engine.serve("times", 3.0)
    for pid in engine.pids().values():
        kill(pid)
    engine.up()
    assert engine.call("times", 2.0).y == 6.0
    status = engine.status("times")["functions"][0]
    assert (status["revision"], [r["revision"] for r in status["revisions"]]) == (2, [1, 2])


def test_supervisor_and_door_together(engine: Engine) -> None:
    engine.serve("times", 2.0)
    pids = engine.pids()
    for role in ("supervisor", "door"):
        kill(pids[role])
    engine.up()
    assert engine.call("times", 2.0).y == 4.0
    assert engine.pids()["times"] == pids["times"], "the worker is adopted"


def test_idle_connections_outlive_worker_and_door(engine: Engine) -> None:
    engine.serve("times", 2.0)
    connections = [engine.open() for _ in range(10)]
    for connection in connections:
        assert engine.call("times", 1.0, connection).y == 2.0
    for role in ("times", "door", "times"):
        kill(engine.pids()[role])
        until(lambda: serves(engine, 2.0), "service")
        for connection in connections:
            assert engine.call("times", 1.0, connection).y == 2.0
    for connection in connections:
        connection.close()


def test_a_request_that_had_reached_the_killed_worker_gets_503(engine: Engine) -> None:
    engine.serve("times", 2.0)
    with socket.create_connection(("127.0.0.1", engine.port)) as client:
        # The worker has the head and waits for the body.
        client.sendall(b"POST /functions/times HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n")
        connection = engine.open()
        assert engine.call("times", 1.0, connection).y == 2.0  # by now the worker has taken the first one, too
        connection.close()
        kill(engine.pids()["times"])
        client.settimeout(10)
        answer = client.recv(4096)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in answer


def test_random_kills_under_load_never_give_a_wrong_answer(engine: Engine) -> None:
    engine.serve("times", 2.0)
    stop = threading.Event()
    answers: list[Answer] = []
    broken: list[OSError] = []
    wrong: list[Answer] = []

    def load() -> None:
        x = 1.0
        while not stop.is_set():
            x += 1.0
            try:
                answer = engine.call("times", x)
            except OSError as error:
                broken.append(error)
                continue
            answers.append(answer)
            if answer.status != 503 and answer.y != 2.0 * x:
                wrong.append(answer)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for role in ("times", "nursery", "times", "door", "front", "times", "door"):
        time.sleep(0.7)  # load in between
        pid = engine.pids().get(role)
        if pid is not None:
            kill(pid)
    time.sleep(0.7)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    good = sum(a.status == 200 for a in answers)
    print(f"{good} answered, {len(answers) - good} refused with 503, {len(broken)} reset")
    assert good > 100
    until(lambda: serves(engine, 2.0), "service")


def test_a_kill_during_deploy_leaves_the_old_or_the_new_revision_whole(engine: Engine) -> None:
    engine.serve("times", 2.0)
    digest = engine.bundle("times", 3.0)
    for delay in (0.0, 0.005, 0.02, 0.05, 0.1):
        result: list[object] = []
        supervisor = engine.pids()["supervisor"]

        def deploy(result: list[object] = result) -> None:
            try:
                result.append(engine.deploy("times", digest, settings={}, on_event=lambda _: None))
            except Exception as error:
                result.append(error)

        thread = threading.Thread(target=deploy)
        thread.start()
        time.sleep(delay)
        kill(supervisor)
        thread.join()
        engine.up()
        revision = engine.status("times")["functions"][0]["revision"]
        assert engine.call("times", 1.0).y == (2.0 if revision == 1 else 3.0)
        if isinstance(result[0], dict):
            assert revision == result[0]["revision"], "an acknowledged deploy was lost"
            engine.rollback("times", 1)


@pytest.mark.parametrize("role", ["nursery", "door"])
def test_an_engine_that_ends_while_a_process_starts_leaves_nothing(engine: Engine, role: str) -> None:
    kill(engine.pids()[role])
    until(lambda: role not in engine.pids(), "the end to be noticed")  # another one starts now, and is not up yet
    engine.down()
    assert left(engine) == []


def test_a_new_door_knows_what_a_worker_holds_before_it_passes_more(engine: Engine) -> None:
    engine.serve("times", 2.0)
    kept = engine.open()
    assert engine.call("times", 1.0, kept).y == 2.0
    pids = engine.pids()
    os.kill(pids["supervisor"], signal.SIGSTOP)  # no other door comes now
    try:
        kill(pids["door"])
        with link.connect(max(engine.project.run.glob("worker-*.sock"))) as door:  # the front was born before
            door.settimeout(10)
            link.send(door, {"op": "hello", "role": "door"})
            said = [message for message in (link.receive(door), link.receive(door)) if message is not None]
            for fd in said[0].fds:
                os.close(fd)
        assert [message.head["op"] for message in said] == ["mine", "ready"]
    finally:
        os.kill(pids["supervisor"], signal.SIGCONT)
        kept.close()
    until(lambda: serves(engine, 2.0), "life after the door")


def test_a_deploy_waits_for_a_nursery_that_ended(engine: Engine) -> None:
    engine.serve("times", 2.0)
    deployed = threading.Thread(target=engine.serve, args=("other", 3.0))
    kill(engine.pids()["nursery"])
    deployed.start()
    deployed.join(30)
    assert engine.call("other", 1.0).y == 3.0
