"""A function's log on a cluster: the last lines of each of its pods, and those that come, from pods that come, too."""

import queue
import threading
import time
from collections.abc import Iterator
from typing import Final

from sunup.engine.kubernetes.cluster.cluster import Cluster, Object
from sunup.engine.kubernetes.rollout.objects import of
from sunup.engine.kubernetes.rollout.pods import ended
from sunup.errors import ClusterError
from sunup.limits import CLUSTER_LOG_LINES_QUEUED, CLUSTER_LOG_LOOK_SECONDS

_NOT_OURS: Final = ("queue-proxy",)  # Knative's, beside each worker

Lines = Iterator[str]


def last_lines(cluster: Cluster, function: str, lines: int) -> Lines:
    """The last lines of every pod, pods one after the other, the oldest first. Of a container that was started again
    after it ended badly, those of the one before come first."""
    for pod in _pods(cluster, function):
        container, name = _container(pod), pod["metadata"]["name"]
        found = ended(pod)
        if found is not None and found[1]:
            yield from cluster.logs(name, found[0], lines=lines, previous=True)
        yield from cluster.logs(name, container, lines=lines)


def follow(cluster: Cluster, function: str, lines: int) -> Lines:
    """The same, and what comes, until the caller has enough. A thread for each pod: their lines come when they will."""
    came: queue.Queue[str | ClusterError] = queue.Queue(CLUSTER_LOG_LINES_QUEUED)
    known: dict[tuple[str, int], None] = {}

    def read(pod: str, container: str, count: int) -> None:
        try:
            for line in cluster.logs(pod, container, lines=count, follow=True):
                came.put(line)
        except ClusterError as error:
            came.put(error)

    look_at, count = 0.0, lines
    while True:
        if time.monotonic() >= look_at:
            for pod in _pods(cluster, function):
                container = _container(pod)
                life = pod["metadata"]["name"], _restarts(pod)
                if life not in known and _started(pod, container):
                    known[life] = None
                    threading.Thread(target=read, args=(life[0], container, count), daemon=True).start()
            look_at = time.monotonic() + CLUSTER_LOG_LOOK_SECONDS
            count = CLUSTER_LOG_LINES_QUEUED  # of pods that come later, everything
        try:
            line = came.get(timeout=max(0.0, look_at - time.monotonic()))
        except queue.Empty:
            continue
        if isinstance(line, ClusterError):
            raise line
        yield line


def _pods(cluster: Cluster, function: str) -> list[Object]:
    found = cluster.select("Pod", of(function))
    return sorted(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))


def _container(pod: Object) -> str:
    names = [one["name"] for one in pod["spec"]["containers"]]
    return next((str(name) for name in names if name not in _NOT_OURS), str(names[0]))


def _restarts(pod: Object) -> int:
    return sum(one.get("restartCount", 0) for one in pod.get("status", {}).get("containerStatuses", ()))


def _started(pod: Object, container: str) -> bool:
    for one in pod.get("status", {}).get("containerStatuses", ()):
        if one["name"] == container:
            return "waiting" not in one.get("state", {})
    return False
