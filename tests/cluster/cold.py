"""Cold starts on the test cluster, in stages: who waits for whom between a call at zero and its answer."""

import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from kubernetes.client import CoreV1Api
from kubernetes.config import new_client_from_config
from tests.cluster.functions import Platform
from urllib3.exceptions import HTTPError

STAGES: Final = ("activator", "node", "worker", "answer")
ZERO_SECONDS_MAX: Final = 180.0
WATCH_SECONDS: Final = 120


@dataclass(frozen=True)
class Cold:
    """One call at zero. `seconds`: until its answer; `stages`: of STAGES, in seconds, which add up to it:
    activator (until Knative has a pod made), node (until its worker's process is started: scheduler, kubelet,
    containerd), worker (until it is ready), answer (probed, called, answered). `pod`: what the worker says of its
    start, in milliseconds."""

    seconds: float
    stages: dict[str, float]
    pod: dict[str, float]


@contextmanager
def watching(platform: Platform) -> Iterator[dict[str, float]]:
    """When pods of the namespace were made from now on, as its API tells: name -> Unix seconds."""
    made: dict[str, float] = {}
    api = CoreV1Api(new_client_from_config(platform.cluster.kubeconfig))
    now = api.list_namespaced_pod(platform.namespace, limit=1).metadata.resource_version
    # Returns with the head of the answer: the API watches from then on.
    watch = api.list_namespaced_pod(
        platform.namespace, watch=True, resource_version=now, timeout_seconds=WATCH_SECONDS, _preload_content=False
    )

    def read() -> None:
        with suppress(HTTPError):  # ended from this side, in the middle of an answer that has no end
            for line in watch:
                at, event = time.time(), json.loads(line)
                if event["type"] == "ADDED":
                    made.setdefault(event["object"]["metadata"]["name"], at)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield made
    finally:
        watch.shutdown()
        thread.join()


def until_zero(platform: Platform, function: str = "score") -> None:
    """Wait until nothing of the function runs, and nothing of it ends any more."""

    def none() -> bool:
        words = ("get", "pods", "-n", platform.namespace, "-l", f"serving.knative.dev/service={function}", "-o", "name")
        return not platform.cluster.kubectl(*words).strip()

    platform.cluster.until("the function at zero", none, ZERO_SECONDS_MAX)


def call_at_zero(platform: Platform, function: str = "score") -> Cold:
    """Wait for zero, call, and say where the time went. A call that fails is an AssertionError."""
    until_zero(platform, function)
    with watching(platform) as born:
        called = time.time()
        platform.call(function)
        answered = time.time()
        ((pod, made),) = born.items()
    line = _ready(platform, pod)
    ready = datetime.fromisoformat(line["time"]).timestamp()
    started = ready - line["ms"]["total"] / 1000
    marks = (called, made, started, ready, answered)
    spans = (later - earlier for earlier, later in itertools.pairwise(marks))
    return Cold(answered - called, dict(zip(STAGES, spans, strict=True)), line["ms"])


def _ready(platform: Platform, pod: str) -> dict[str, Any]:
    """The line in which a worker says that it is ready."""
    words = ("logs", pod, "-n", platform.namespace, "-c", "worker")
    lines = platform.cluster.kubectl(*words).splitlines()
    found: dict[str, Any] = next(
        line for text in lines if text.startswith("{") and (line := json.loads(text)).get("message") == "ready"
    )
    return found
