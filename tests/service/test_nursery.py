"""The nursery at fork: no thread that could hold a lock, and no child that hangs or is left unreaped."""

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest
from tests.engine_fixture import Engine, times_model, until

from sunup.link.channel import receive, send
from sunup.link.peer import prepare

FORKS = 1000
CHILD_SECONDS_MAX = 10.0


def test_threads_at_fork_are_idle_ones_of_the_runtime(engine: Engine) -> None:
    pid = engine.pids()["nursery"]
    threads = [Path(f"/proc/{pid}/task/{name}/stat").read_text() for name in os.listdir(f"/proc/{pid}/task")]
    states = [text.rpartition(")")[2].split()[0] for text in threads]
    assert len(states) <= 2, "importing ONNX Runtime leaves at most one thread behind"
    assert set(states) == {"S"}


@pytest.mark.timeout(300)
def test_a_thousand_children_in_a_row_open_a_model_and_none_hangs(tmp_path: Path) -> None:
    own, peer = prepare(tmp_path / "nursery.sock")
    command = [sys.executable, "-m", "tests.nursery_program", str(tmp_path), str(own.fileno())]
    model = times_model(2.0).hex()
    with subprocess.Popen(command, pass_fds=[own.fileno()]) as nursery:
        own.close()
        peer.settimeout(60)
        hello = receive(peer)
        assert hello is not None
        assert hello.head["op"] == "hello"
        for number in range(FORKS):
            read, write = os.pipe()
            send(peer, {"op": "fork", "id": str(number), "x": float(number), "model": model}, fds=[write])
            os.close(write)
            born = receive(peer)
            assert born is not None
            assert select.select([read], [], [], CHILD_SECONDS_MAX)[0], f"child {number} hangs"
            assert float(os.read(read, 64)) == 2.0 * number
            assert select.select(born.fds, [], [], CHILD_SECONDS_MAX)[0], f"child {number} does not end"
            os.close(read)
            os.close(born.fds[0])
        until(lambda: not children(nursery.pid), "the children to be reaped")
        send(peer, {"op": "stop"})
        assert nursery.wait(10) == 0
    peer.close()


def children(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()
