"""Programs of the cluster, and workers on it, killed while functions are called and topics are read."""

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import pytest
from kafka import KafkaConsumer, TopicPartition
from tests.cluster.functions import Platform, bundle, platform, runtime
from tests.cluster.running import LOOK_SECONDS, Object, without
from tests.cluster.test_deploy_stream import WAIT, Stream, stream
from tests.cluster.test_deploys import Load
from tests.kafka_fixture import settled
from tests.topics import sources

from sunup.bundle.manifest import Scale
from sunup.limits import KUBERNETES_GRACE_SECONDS

__all__ = ["platform", "runtime", "stream"]

pytestmark = pytest.mark.timeout(600)

AWAY_SECONDS: Final = 10.0
QUIET_CALLS: Final = 100  # answered one after the other: then it is over
QUIET_SECONDS_MAX: Final = 45.0  # Kubernetes waits for 10 until it starts a container for the second time
RECORDS: Final = 2000  # their outputs are written for some milliseconds: long enough to be caught at it
TRIES_MAX: Final = 50


def workers(platform: Platform, role: str) -> list[int]:
    """The processes of the function's worker containers, by their numbers on this machine."""
    names = {f"HOSTNAME={pod['metadata']['name']}".encode() for pod in pods(platform)}
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            said = set(path.read_bytes().split(b"\0"))
        except OSError:  # ended meanwhile
            continue
        if names & said and f"SUNUP_ROLE={role}".encode() in said:
            found.append(int(path.parent.name))
    return found


def pods(platform: Platform) -> list[Object]:
    return platform.cluster.list("pod", platform.namespace)


def restarts(platform: Platform) -> dict[str, int]:
    """Of each pod's containers, together."""
    return {
        pod["metadata"]["name"]: sum(one["restartCount"] for one in pod["status"].get("containerStatuses", ()))
        for pod in pods(platform)
    }


# --- Programs ---------------------------------------------------------------------------------------------------------
def test_calls_go_on_while_the_nodes_kubelet_is_away(platform: Platform, tmp_path: Path) -> None:
    platform.deploy(bundle(tmp_path, 1, scale=Scale(min=1, max=2)))
    before = restarts(platform)
    with Load(platform) as load:
        platform.cluster.until("calls", lambda: load.answers.total() > 50)
        with without("kubelet"):
            called = load.answers.total()
            platform.cluster.until("more calls", lambda: load.answers.total() > called + 200)
        # The kubelet that came back takes the new revision's pod in hand, and leaves those that run alone.
        process = platform.start("deploy", str(bundle(tmp_path, 2, scale=Scale(min=1, max=2))))
        _, errors = process.communicate(timeout=WAIT)
        assert process.returncode == 0, errors
        assert set(load.since()) <= {"1", "2"}
    assert platform.cluster.condition("node", "node") == "True"
    assert {name: count for name, count in restarts(platform).items() if name in before} == before
    assert platform.call()["revision"] == 2


def test_an_api_that_is_killed_delays_a_deploy_and_no_call(platform: Platform, tmp_path: Path) -> None:
    platform.deploy(bundle(tmp_path, 1, scale=Scale(min=1, max=2)))
    with Load(platform) as load:
        process = platform.start("deploy", str(bundle(tmp_path, 2, scale=Scale(min=1, max=2))), "--json")
        platform.cluster.until("the new template is there", lambda: _generation(platform) > 2)
        with without("apiserver"), pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=AWAY_SECONDS)
        output, errors = process.communicate(timeout=WAIT)
        assert process.returncode == 0, errors
        assert set(load.since()) <= {"1", "2"}
    assert '"revision": 2' in output
    assert platform.call()["revision"] == 2


def _generation(platform: Platform) -> int:
    found = platform.cluster.read("ksvc", "score", platform.namespace)
    return 0 if found is None else int(found["metadata"]["generation"])


# --- Workers for calls ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("count", [1, 2])
def test_a_worker_that_is_killed_is_replaced_and_its_callers_are_told(
    platform: Platform, tmp_path: Path, count: int
) -> None:
    """And so is the one in its place, for which Kubernetes takes ten seconds: calls wait for it, or others answer."""
    platform.deploy(bundle(tmp_path, 1, scale=Scale(min=count, max=count)))
    seen: set[int] = set()
    with Load(platform) as load:
        for _ in range(2):
            platform.cluster.until("the workers", lambda: len(workers(platform, "calls")) == count)
            assert set(quiet(load)) == {"1"}
            found = set(workers(platform, "calls"))
            load.since()
            os.kill(min(found - seen), signal.SIGKILL)
            seen |= found
            # Knative's proxy in the pod says 502 until the kubelet has seen that the worker is gone.
            assert set(quiet(load)) <= {"1", "status 502", "status 503"}


@pytest.mark.parametrize("forced", [False, True])
def test_a_pod_that_is_deleted_costs_no_call(platform: Platform, tmp_path: Path, forced: bool) -> None:
    """Although it is the only one: calls wait for the next."""
    platform.deploy(bundle(tmp_path, 1, scale=Scale(min=1, max=1)))
    with Load(platform) as load:
        quiet(load)
        (before,) = restarts(platform)
        delete(platform, before, forced=forced)
        platform.cluster.until("another one", lambda: _is_replaced(platform, before))
        assert set(load.since() + quiet(load)) == {"1"}


def _is_replaced(platform: Platform, before: str) -> bool:
    names = list(restarts(platform))
    ready = [platform.cluster.condition("pod", name, platform.namespace) for name in names]
    return before not in names and ready == ["True"]


def delete(platform: Platform, *names: str, forced: bool) -> None:
    how = ("--force", "--grace-period=0") if forced else ("--wait=false",)
    platform.cluster.kubectl("delete", "pod", *names, "-n", platform.namespace, *how)


def quiet(load: Load) -> Counter[str]:
    """What was answered since then, until a hundred calls one after the other were."""
    said: Counter[str] = Counter()
    end = time.monotonic() + QUIET_SECONDS_MAX
    while load.answers.total() < QUIET_CALLS or set(load.answers) != {"1"}:
        assert time.monotonic() < end, said
        if load.answers.total() >= QUIET_CALLS:
            said += load.since()
        time.sleep(LOOK_SECONDS)
    return said + load.since()


# --- Workers for a topic ----------------------------------------------------------------------------------------------
@contextmanager
def writing(stream: Stream) -> Iterator[Callable[[], bool]]:
    """Whether anything was written to the outputs since then, committed or not; asked within a millisecond."""
    output, servers = f"{stream.name}-out", stream.topics.broker
    with closing(KafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False)) as consumer:
        places = [TopicPartition(output, number) for number in consumer.partitions_for_topic(output) or ()]
        before = consumer.end_offsets(places)
        yield lambda: bool(consumer.end_offsets(places) != before)


def is_open(stream: Stream) -> bool:
    """Whether a transaction on the outputs is open."""
    return any(stable < end for stable, end in settled(stream.topics.broker, f"{stream.name}-out").values())


def tell(processes: Sequence[int], number: signal.Signals) -> None:
    for process in processes:
        os.kill(process, number)


def stop_within_a_transaction(stream: Stream) -> list[int]:
    """Send until workers are stopped with a transaction open; their processes, stopped."""
    with writing(stream) as is_written:
        stream.send()
        stream.platform.cluster.until("the first outputs", is_written, WAIT)
    found = workers(stream.platform, "stream")
    tell(found, signal.SIGSTOP)
    for _ in range(TRIES_MAX):
        with writing(stream) as is_written:
            stream.send(RECORDS)
            tell(found, signal.SIGCONT)
            end = time.monotonic() + WAIT
            while not is_written():  # without a pause: a commit follows within milliseconds
                assert time.monotonic() < end
            tell(found, signal.SIGSTOP)
        if is_open(stream):
            return found
    pytest.fail("no transaction was caught open")


def test_the_pod_that_a_deployment_begins_with_ends_as_soon_as_it_is_told(stream: Stream) -> None:
    """Kubernetes makes one, and KEDA has it ended a moment later: it must not go on for the time it has."""
    stream.platform.deploy(stream.bundle(1))
    asked = ("get", "pod", "-n", stream.platform.namespace, "-l", "app.kubernetes.io/component=stream", "-o", "name")
    ask = stream.platform.cluster.kubectl
    # Also of those that are being deleted.
    stream.platform.cluster.until("no pod is left", lambda: not ask(*asked), KUBERNETES_GRACE_SECONDS / 2)


@pytest.mark.parametrize("what", ["worker", "pod"])
def test_killed_within_a_transaction_each_record_is_scored_once(stream: Stream, what: str) -> None:
    """A worker comes back by its name and at once; for a pod that is gone for good the group waits 30 s."""
    platform = stream.platform
    platform.deploy(stream.bundle(1))
    stopped = stop_within_a_transaction(stream)
    if what == "pod":
        delete(platform, *(name for name in restarts(platform) if name.startswith("score-stream")), forced=True)
    tell(stopped, signal.SIGKILL)
    stream.until_scored()
    seen = Counter(sources(stream.topics.read(f"{stream.name}-out")))
    assert (len(seen), set(seen.values())) == (stream.sent, {1})
    assert not is_open(stream)
    assert stream.topics.read(f"{stream.name}-dead") == []
