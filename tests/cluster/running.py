"""The test cluster of infra/cluster, as tests use it. Everything here runs inside the cluster's network namespace."""

import ctypes
import http.client
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

INFRA: Final = Path(__file__).resolve().parents[2] / "infra" / "cluster"
REPLY_SECONDS_MAX: Final = 90.0  # a call that wakes a function waits for its pod
COMMAND_SECONDS_MAX: Final = 120.0
WAIT_SECONDS: Final = 90.0  # on a machine that is busy; a pod takes one, scaling to zero up to thirty
LOOK_SECONDS: Final = 0.1
CLONE_NEWNET: Final = 0x40000000  # linux/sched.h

Found = TypeVar("Found")
Object = dict[str, Any]


def script(name: str, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a script of infra/cluster to its end, however it ends."""
    command = [str(INFRA / name), *words]
    # Files, not pipes: what a script leaves running would hold a pipe open.
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


@contextmanager
def network(namespace: Path) -> Iterator[None]:
    """Be in another network namespace: this thread, and the processes and threads it starts from now on."""
    with Path("/proc/thread-self/ns/net").open("rb") as home, namespace.open("rb") as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns comes with Python 3.12
    if libc.setns(namespace, CLONE_NEWNET):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


@dataclass(frozen=True)
class Cluster:
    """One that runs. `address` is this machine as pods reach it: what a test starts listens there for them."""

    kubeconfig: str
    netns: str
    address: str
    gateway: str  # Kourier: http://ADDRESS, to be asked with the Host header of a function
    registry: str  # HOST:PORT, plain HTTP
    logs: str
    started: bool  # here, and not by somebody before
    story: str  # what up.sh said of the time it took

    @classmethod
    def of(cls, said: str, story: str) -> "Cluster":
        """From the lines that up.sh prints."""
        places = dict(line.split("=", 1) for line in said.splitlines())
        started = places.pop("STARTED") == "yes"
        return cls(**{name.lower(): place for name, place in places.items()}, started=started, story=story)

    def kubectl(self, *words: str, given: str | None = None) -> str:
        """What kubectl prints. CalledProcessError if it fails, with its words in the notes."""
        done = subprocess.run(
            [str(INFRA / "enter.sh"), "kubectl", *words],
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS_MAX,
        )
        if done.returncode:
            error = subprocess.CalledProcessError(done.returncode, ["kubectl", *words], done.stdout, done.stderr)
            error.add_note(done.stderr)
            raise error
        return done.stdout

    def apply(self, *objects: Object) -> None:
        """Make them, or change them into this."""
        given = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.kubectl("apply", "--server-side", "--force-conflicts", "--field-manager=tests", "-f", "-", given=given)

    def read(self, kind: str, name: str, namespace: str = "default") -> Object | None:
        """One object, or None if there is none of this name."""
        found = self.kubectl("get", kind, name, "-n", namespace, "--ignore-not-found", "-o", "json")
        return json.loads(found) if found else None

    def list(self, kind: str, namespace: str = "default", **labels: str) -> list[Object]:
        """Those that are not being deleted. A label's dots and slashes are written _ and __."""
        wanted = {name.replace("__", "/").replace("_", "."): value for name, value in labels.items()}
        selector = ",".join(f"{name}={value}" for name, value in wanted.items())
        found = json.loads(self.kubectl("get", kind, "-n", namespace, "-l", selector, "-o", "json"))
        return [each for each in found["items"] if "deletionTimestamp" not in each["metadata"]]

    def until(self, what: str, look: Callable[[], Found | None], seconds: float = WAIT_SECONDS) -> Found:
        """The first thing found that is true. A cluster tells nobody when it is done: it is asked."""
        end = time.monotonic() + seconds
        while not (found := look()):
            assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
            time.sleep(LOOK_SECONDS)
        return found

    def condition(self, kind: str, name: str, namespace: str = "default", condition: str = "Ready") -> str | None:
        """True, False or Unknown of the object as it is declared now; None before it is looked at."""
        found = self.read(kind, name, namespace) or {"metadata": {}}
        status = found.get("status", {})
        declared = found["metadata"].get("generation")  # not every kind counts how often it was declared
        if status.get("observedGeneration", declared) != declared:
            return None
        states = {each["type"]: each["status"] for each in status.get("conditions", [])}
        return states.get(condition)

    def ask(self, host: str, path: str = "/", body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        """Status and body of a call through Kourier to the function of this host name."""
        there = http.client.HTTPConnection(self.gateway.removeprefix("http://"), timeout=REPLY_SECONDS_MAX)
        try:
            there.request("GET" if body is None else "POST", path, body, {"Host": host, **headers})
            reply = there.getresponse()
            return reply.status, reply.read()
        finally:
            there.close()


@contextmanager
def without(program: str) -> Iterator[None]:
    """The cluster without its `apiserver`, `kubelet` or another program, ended as kill -9 does; it is started again."""
    assert script("program.sh", "stop", program).returncode == 0
    try:
        yield
    finally:
        assert script("program.sh", "start", program).returncode == 0


@contextmanager
def features(cluster: Cluster, **changed: str) -> Iterator[None]:
    """Other features of Knative for a while: `features(cluster, **{"kubernetes.podspec-volumes-image": "enabled"})`.

    What was there comes back, a key that was not there goes. Knative's webhook hears of it a moment later.
    """
    found = cluster.read("configmap", "config-features", "knative-serving")
    assert found is not None
    before = {name: found.get("data", {}).get(name) for name in changed}
    _patch_features(cluster, changed)
    try:
        yield
    finally:
        _patch_features(cluster, before)


def _patch_features(cluster: Cluster, data: Mapping[str, str | None]) -> None:
    patch = json.dumps({"data": data})
    cluster.kubectl("patch", "configmap", "config-features", "-n", "knative-serving", "--type=merge", "-p", patch)
