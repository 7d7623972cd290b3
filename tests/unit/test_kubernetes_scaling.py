"""[scale] and [limits] in Knative's and KEDA's words, and what is told where they have none."""

import random
from dataclasses import replace
from typing import Literal

import pytest
from tests.kubernetes_objects import DIGEST, bare, fraud, manifest, one, stream

from sunup.bundle.manifest import Kubernetes, Limits, LogSpec, Manifest, Scale, Warm
from sunup.engine.kubernetes.check.check import check
from sunup.engine.kubernetes.check.facts import IMAGE_VOLUMES, ClusterFacts
from sunup.engine.kubernetes.render.objects import render
from sunup.engine.kubernetes.render.scaling import notes
from sunup.engine.kubernetes.render.target import Way
from sunup.limits import KUBERNETES_GRACE_SECONDS, KUBERNETES_TIMEOUT_SECONDS_MIN, POD_GRACE_SECONDS

KNATIVE = "autoscaling.knative.dev"


def scaling(made: Manifest) -> dict[str, str]:
    """Annotations of the autoscaler, without their domain."""
    said = one(render(made, DIGEST, bare().target), "Service")["spec"]["template"]["metadata"]["annotations"]
    return {key.partition("/")[2]: value for key, value in said.items() if key.startswith(KNATIVE)}


@pytest.mark.parametrize(
    ("idle", "window", "retention", "cooldown"),
    [
        (30.0, "30s", "0s", 30),
        (6.0, "6s", "0s", 6),
        (7.2, "8s", "0s", 8),
        (900.0, "30s", "870s", 900),
        (0.5, "6s", "0s", 6),
        (3630.0, "30s", "3600s", 3630),
        (86400.0, "30s", "3600s", 3630),
    ],
)
def test_idle_is_the_window_and_what_is_kept_behind_it(idle: float, window: str, retention: str, cooldown: int) -> None:
    made = manifest(scale=Scale(idle_s=idle), stream=stream())
    said = scaling(made)
    assert (said["window"], said["scale-to-zero-pod-retention-period"]) == (window, retention)
    objects = render(made, DIGEST, fraud().target)
    assert one(objects, "ScaledObject")["spec"]["cooldownPeriod"] == cooldown
    check(objects)


def test_what_kubernetes_does_otherwise_is_told_in_sentences() -> None:
    assert notes(manifest()) == []
    assert notes(manifest(scale=Scale(idle_s=2.0))) == [
        "[scale] idle is 2 s, and Knative looks over 6 s at least: the last pod ends after 6 s."
    ]
    assert notes(manifest(scale=Scale(idle_s=7200.0))) == [
        "[scale] idle is 7200 s, and Knative keeps a silent pod for an hour at most: the last pod ends after 3630 s; "
        "min = 1 keeps one for ever."
    ]
    assert notes(manifest(scale=Scale(idle_auto=True))) == [
        '[scale] idle = "auto" is learned by the local engine only: on Kubernetes the last pod ends after 30 s.'
    ]
    assert notes(manifest(scale=Scale(warm=(Warm("0 8 * * 1-5"), Warm("0 20 * * *"))))) == [
        "[scale] warm: Knative has no set times (0 8 * * 1-5, 0 20 * * *), so no pod is started before anybody calls; "
        "set min, or let a CronJob set autoscaling.knative.dev/min-scale."
    ]
    assert notes(manifest(log=LogSpec("served/"))) == [
        "[features] log: pods keep none; what a model saw is logged by the local engine only."
    ]
    assert notes(manifest(stream=stream(), aggregates=("shop/card_tx",))) == [
        "[stream] aggregate: a pod's tiles end with it, and the next one restores them from the changelog topic "
        "sunup-fraud-tiles."
    ]


@pytest.mark.parametrize(("timeout", "seconds"), [(2.0, 60), (60.0, 60), (60.1, 61), (599.5, 600)])
def test_a_call_may_wait_for_a_pod_and_a_pod_has_time_to_end(timeout: float, seconds: int) -> None:
    objects = render(manifest(limits=Limits(timeout_s=timeout)), DIGEST, bare().target)
    assert one(objects, "Service")["spec"]["template"]["spec"]["timeoutSeconds"] == seconds


@pytest.mark.parametrize(("partitions", "most"), [(None, 2), (1, 1), (8, 2), (0, 1)])
def test_no_more_readers_than_partitions(partitions: int | None, most: int) -> None:
    made = fraud()
    objects = render(made.manifest, DIGEST, replace(made.target, partitions=partitions))
    assert one(objects, "ScaledObject")["spec"]["maxReplicaCount"] == most


def test_pods_have_the_time_that_their_process_takes_to_end() -> None:
    drained = 30  # s Knative's proxy goes on after a pod is told to end: pkg/queue/sharedmain/main.go
    assert drained + POD_GRACE_SECONDS <= KUBERNETES_TIMEOUT_SECONDS_MIN
    assert KUBERNETES_GRACE_SECONDS > POD_GRACE_SECONDS


def test_whatever_function_toml_can_say_is_rendered_right() -> None:
    some = random.Random(20)
    for _ in range(200):
        least = some.choice([0, 0, 1, 7])
        scale = Scale(
            min=least,
            max=some.randint(max(least, 1), 1000),
            idle_s=some.choice([0.001, 2.5, 6, 29.9, 31, 600, 3629.5, 1e6]),
            target_concurrency=some.choice([1, 32, 10**6]),
            queue_max=some.choice([1, 10**6]),
            idle_auto=some.random() < 0.2,
        )
        declared = stream(max_workers=some.randint(1, 1000)) if some.random() < 0.5 else None
        visibility: Literal["public", "cluster"] = some.choice(["public", "cluster"])
        asked = Kubernetes(
            some.choice(["", "10m", "1.5", "64"]), some.choice(["", "128Mi", "1e9"]), visibility, some.randint(0, 16)
        )
        kubernetes = some.choice([None, asked])
        limits = Limits(timeout_s=some.choice([1e-6, 0.5, 60, 600]))
        made = manifest(scale=scale, stream=declared, kubernetes=kubernetes, limits=limits)
        chosen: Way = some.choice(["volume", "flat"])
        target = replace(
            fraud().target, way=chosen, partitions=some.choice([None, 1, 500]), revision=some.choice([None, 9])
        )
        check(render(made, DIGEST, target), ClusterFacts({IMAGE_VOLUMES: "enabled"}))
