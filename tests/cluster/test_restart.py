"""Clusters that end badly: killed half-way, or with a dead program. It is a second one, beside the one of the tests."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.running import INFRA, Cluster, script

NAME = "sunup-restart"
STATE = Path("/var/lib") / NAME
TRACES = ("/var/lib", "/run", "/run/netns", "/sys/fs/cgroup/*", "/sys/fs/cgroup")
SECONDS_MAX = 120.0

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture
def second() -> Iterator[str]:
    """A name for a cluster beside the one that runs. What is left of it is taken away."""
    yield NAME
    down = script("down.sh", CLUSTER_NAME=NAME)
    assert down.returncode == 0, down.stderr


def traces(name: str) -> list[str]:
    """What there is of a cluster: folders, namespace, control groups, mounts, links."""
    places = [str(found) for folder in TRACES for found in Path("/").glob(f"{folder[1:]}/{name}")]
    mounts = [line for line in Path("/proc/self/mounts").read_text("utf-8").splitlines() if name in line]
    links = [str(link) for link in Path("/var/log/containers").glob("*") if name in os.readlink(link)]
    return places + mounts + links


def processes(name: str) -> list[str]:
    """Command lines that name the cluster's folders. A kubelet, containerd, its shims and the rest all do."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if f"/{name}/" in words:
            found.append(words)
    return found


def kill(program: str) -> None:
    """End a program of the second cluster at once."""
    pid = int((STATE / "processes" / program).read_text("utf-8").split()[0])
    os.kill(pid, signal.SIGKILL)


@pytest.mark.timeout(400)
def test_whatever_is_killed_the_next_up_comes_up_and_down_leaves_nothing(second: str) -> None:
    half = subprocess.Popen(
        [INFRA / "up.sh"],
        env={**os.environ, "CLUSTER_NAME": second},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + SECONDS_MAX
    while not (STATE / "processes" / "kubelet").exists():
        assert half.poll() is None, "up.sh ended early"
        assert time.monotonic() < end
        time.sleep(0.05)  # the only sign of how far a script has come is what it has done
    half.kill()
    half.wait()
    kill("apiserver")

    up = script("up.sh", CLUSTER_NAME=second)
    assert up.returncode == 0, up.stderr
    assert Cluster.of(up.stdout, "").started

    for program in ("kubelet", "containerd", "etcd"):
        kill(program)
    down = script("down.sh", CLUSTER_NAME=second)
    assert down.returncode == 0, down.stderr
    assert traces(second) == []
    assert processes(second) == []


def test_a_cluster_of_somebody_else_is_left_alone(second: str) -> None:
    subprocess.run(["ip", "netns", "add", second], check=True)
    try:
        for name in ("down.sh", "up.sh"):
            said = script(name, CLUSTER_NAME=second)
            assert said.returncode == 5
            assert f"ip netns delete {second}" in said.stderr
        assert Path("/run/netns", second).exists()
    finally:
        subprocess.run(["ip", "netns", "delete", second], check=True)


def test_only_a_process_that_was_started_here_is_ended(second: str) -> None:
    """A process id is given to another process in time: the time of its start says whose it is."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
    (STATE / "processes").mkdir(parents=True)
    (STATE / "owner").write_text(f"TOKEN={second}-1\nBOOT={boot}", "utf-8")
    with subprocess.Popen(["sleep", "600"]) as ours, subprocess.Popen(["sleep", "600"]) as other:
        for process, name, late in ((ours, "kubelet", 0), (other, "etcd", 1)):
            started = int(Path(f"/proc/{process.pid}/stat").read_text("ascii").rpartition(")")[2].split()[19]) + late
            (STATE / "processes" / name).write_text(f"{process.pid} {started}\n", "utf-8")
        down = script("down.sh", CLUSTER_NAME=second)
        assert down.returncode == 0, down.stderr
        assert ours.wait(10) == -signal.SIGKILL
        assert other.poll() is None
        other.kill()
    assert not STATE.exists()
