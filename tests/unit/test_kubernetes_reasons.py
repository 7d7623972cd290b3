"""What clusters say of a rollout that does not get on, as it was recorded, and the sentence a person gets."""

from typing import Any, Final, NamedTuple

import pytest

from sunup.engine.kubernetes.rollout.pods import NEVER, Reason, state
from sunup.engine.kubernetes.rollout.reasons import Observed, explain, ready, waits_for

Object = dict[str, Any]

IMAGE: Final = "registry.example:5000/shop/fraud@sha256:aa"
SCHEDULED: Final = {"type": "PodScheduled", "status": "True"}


def pod(*conditions: Object, waiting: Object | None = None, ended: Object | None = None, **more: Any) -> Object:
    """A pod that is not ready. `waiting`, `ended`: the state of its worker; `more`: of the container's status."""
    now: Object = {"waiting": waiting} if waiting else {"terminated": ended} if ended else {}
    one = {"name": "worker", "image": IMAGE, "ready": False, "restartCount": 0, "state": now, **more}
    status = {"phase": "Pending", "conditions": list(conditions), "containerStatuses": [one]}
    return {"metadata": {"name": "fraud-00002-x", "labels": {}}, "status": status}


def event(reason: str, message: str, name: str = "fraud-00002-x") -> Object:
    return {"reason": reason, "message": message, "involvedObject": {"name": name}}


def of(*conditions: Object) -> Object:
    return {"metadata": {"generation": 2}, "status": {"observedGeneration": 2, "conditions": list(conditions)}}


class Situation(NamedTuple):
    """`seen`, and what comes of it: the code, words of the sentence, how long it may last."""

    seen: Observed
    code: str
    words: tuple[str, ...]
    patience_s: float


PROOF = '{"level": "info"}\n{"code": "proof_failed", "message": "score differs by 0.25 from 0.5 in row 3"}\n'
PULL = 'failed to pull and unpack image "registry.example:5000/shop/fraud@sha256:aa": failed to resolve reference: '
QUOTA = (
    'pods "fraud-00002-deployment-5c" is forbidden: exceeded quota: small, requested: requests.memory=576Mi, '
    "used: requests.memory=1Gi, limited: requests.memory=1Gi"
)
SECRET = 'MountVolume.SetUp failed for volume "settings" : secret "fraud-settings-1a2b3c4d" not found'
SITUATIONS: Final = {
    "image that is not there": Situation(
        Observed(pods=[pod(SCHEDULED, waiting={"reason": "ErrImagePull", "message": PULL + "not found"})]),
        "image_pull", (IMAGE, "not found", "pushed"), 2.0,
    ),
    "image in back-off": Situation(
        Observed(pods=[pod(SCHEDULED, waiting={"reason": "ImagePullBackOff", "message": "Back-off pulling image"})]),
        "image_pull", (IMAGE, "Back-off"), 20.0,
    ),
    "registry that wants a login": Situation(
        Observed(pods=[pod(waiting={"reason": "ErrImagePull", "message": PULL + "401 Unauthorized"})]),
        "image_pull", ("401", "imagePullSecrets"), 2.0,
    ),
    "registry that does not answer": Situation(
        Observed(pods=[pod(waiting={"reason": "ErrImagePull", "message": PULL + "dial tcp: i/o timeout"})]),
        "image_pull", ("i/o timeout", "nodes reach"), 20.0,
    ),
    "no name of an image": Situation(
        Observed(pods=[pod(waiting={"reason": "InvalidImageName", "message": "couldn't parse image name"})]),
        "image_name", ("no name of an image",), 0.0,
    ),
    "self-proof that fails": Situation(
        Observed(pods=[pod(ended={"exitCode": 4, "message": PROOF})]),
        "proof_failed", ("failed its self-proof", "differs by 0.25"), 0.0,
    ),
    "self-proof that failed before, now in back-off": Situation(
        Observed(
            pods=[
                pod(
                    waiting={"reason": "CrashLoopBackOff", "message": "back-off 10s"},
                    lastState={"terminated": {"exitCode": 4, "message": PROOF}},
                    restartCount=2,
                )
            ]
        ),
        "proof_failed", ("failed its self-proof", "differs by 0.25"), 0.0,
    ),
    "settings that are wrong": Situation(
        Observed(pods=[pod(ended={"exitCode": 2, "message": '{"code": "settings", "message": "it is embedded"}'})]),
        "settings", ("settings it cannot use", "embedded"), 0.0,
    ),
    "another bundle": Situation(
        Observed(pods=[pod(ended={"exitCode": 3, "message": '{"code": "bundle_damaged", "message": "model.onnx"}'})]),
        "bundle_damaged", ("another bundle", "model.onnx"), 0.0,
    ),
    "crash, the first time": Situation(
        Observed(pods=[pod(ended={"exitCode": 1, "message": "Traceback\nImportError: no module"})]),
        "crash", ("exit code 1", "ImportError"), 10.0,
    ),
    "crash loop, with its log": Situation(
        Observed(
            pods=[
                pod(
                    waiting={"reason": "CrashLoopBackOff", "message": "back-off"},
                    lastState={"terminated": {"exitCode": 1, "message": ""}},
                    restartCount=3,
                )
            ],
            logs={"fraud-00002-x": ["opening", "Segmentation fault"]},
        ),
        "crash", ("started again 3 times", "Segmentation fault"), 0.0,
    ),
    "killed for its memory": Situation(
        Observed(pods=[pod(ended={"exitCode": 137, "reason": "OOMKilled"})]),
        "memory", ("more memory", "[kubernetes] memory"), 0.0,
    ),
    "Secret that a variable wants": Situation(
        Observed(pods=[pod(waiting={"reason": "CreateContainerConfigError", "message": 'secret "keys" not found'})]),
        "secret_missing", ('secret "keys" not found',), 10.0,
    ),
    "Secret to be mounted": Situation(
        Observed(pods=[pod(SCHEDULED)], events=[event("FailedMount", SECRET)]),
        "secret_missing", ("fraud-settings-1a2b3c4d",), 10.0,
    ),
    "image volume that cannot be mounted": Situation(
        Observed(pods=[pod(SCHEDULED)], events=[event("FailedMount", "failed to mount image volume")]),
        "mount", ("cannot mount", "image volume"), 20.0,
    ),
    "image that runs as root": Situation(
        Observed(
            pods=[
                pod(waiting={
                    "reason": "CreateContainerConfigError",
                    "message": "container has runAsNonRoot and image will run as root",
                })
            ]
        ),
        "runs_as_root", ("runtime image",), 0.0,
    ),
    "no node with room": Situation(
        Observed(
            pods=[
                pod({
                    "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                    "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
                })
            ]
        ),
        "unschedulable", ("3 Insufficient nvidia.com/gpu", "gpu"), NEVER,
    ),
    "sandbox that cannot be made": Situation(
        Observed(pods=[pod(SCHEDULED)], events=[event("FailedCreatePodSandBox", "plugin type=bridge failed")]),
        "sandbox", ("bridge failed",), 30.0,
    ),
    "worker that runs and is not ready": Situation(
        Observed(
            pods=[pod(SCHEDULED)],
            events=[event("Unhealthy", "Readiness probe failed: HTTP probe failed: 503")],
            logs={"fraud-00002-x": ["opening", "no broker answers"]},
        ),
        "not_ready", ("503", "It said last: no broker answers"), NEVER,
    ),
    "quota, by the Deployment": Situation(
        Observed(deployment=of({"type": "ReplicaFailure", "status": "True", "message": QUOTA})),
        "quota", ("small", "ResourceQuota"), 10.0,
    ),
    "quota, by an event": Situation(
        Observed(events=[event("FailedCreate", QUOTA, "fraud-00002-deployment-5c")]), "quota", ("small",), 10.0
    ),
    "pod security admission": Situation(
        Observed(events=[event("FailedCreate", 'violates PodSecurity "restricted:latest": seccompProfile', "x")]),
        "pod_security", ("restricted",), 0.0,
    ),
    "no ServiceAccount": Situation(
        Observed(events=[event("FailedCreate", 'serviceaccount "sunup-worker" not found', "x")]),
        "service_account", ("sunup-worker",), 10.0,
    ),
    "Knative that cannot resolve a tag": Situation(
        Observed(
            revision=of({
                "type": "ContainerHealthy", "status": "False", "reason": "ContainerMissing",
                "message": "Unable to fetch image: failed to resolve image to digest",
            })
        ),
        "revision", ("cannot find its image", "resolve"), 0.0,
    ),
    "deadline of Knative": Situation(
        Observed(
            revision=of({
                "type": "ResourcesAvailable", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "m",
            })
        ),
        "revision", ("in the time Knative gives",), 5.0,
    ),
    "gateway that takes no route": Situation(
        Observed(service=of({"type": "RoutesReady", "status": "Unknown", "reason": "IngressNotConfigured"})),
        "ingress", ("Kourier",), NEVER,
    ),
    "route that fails": Situation(
        Observed(service=of({"type": "RoutesReady", "status": "False", "reason": "RevisionMissing", "message": "x"})),
        "route", ("RevisionMissing", "x"), 10.0,
    ),
    "KEDA that cannot reach Kafka": Situation(
        Observed(
            scaled=of({
                "type": "Ready", "status": "False", "reason": "ScaledObjectCheckFailed",
                "message": "error creating kafka client: dial tcp: lookup kafka: no such host",
            })
        ),
        "scaled_object", ("cannot scale", "no such host"), 10.0,
    ),
    "pod that was evicted": Situation(
        Observed(
            pods=[
                {
                    "metadata": {"name": "fraud-00002-x"},
                    "status": {"phase": "Failed", "reason": "Evicted", "message": "low on memory"},
                }
            ]
        ),
        "evicted", ("low on memory",), 30.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SITUATIONS)
def test_each_situation_has_its_sentence(name: str) -> None:
    seen, code, words, patience_s = SITUATIONS[name]
    found = explain(seen)
    assert found is not None
    assert (found.code, found.patience_s) == (code, patience_s)
    assert [word for word in words if word not in found.sentence] == []
    assert not found.sentence.endswith(".")  # sentences are put together of it


def test_nothing_is_wrong_with_what_only_takes_time() -> None:
    starting = pod(SCHEDULED, waiting={"reason": "ContainerCreating"})
    assert explain(Observed(service=of(), revision=of(), pods=[starting])) is None


def test_a_pod_that_leaves_or_recovered_explains_nothing() -> None:
    leaving = pod(ended={"exitCode": 1, "message": "x"})
    leaving["metadata"]["deletionTimestamp"] = "now"
    well = pod({"type": "Ready", "status": "True"}, lastState={"terminated": {"exitCode": 1}})
    assert explain(Observed(pods=[leaving, well])) is None
    assert [state(leaving), state(well)] == ["draining", "ready"]


def test_the_pod_speaks_before_knative_and_knative_before_the_route() -> None:
    broken = pod(ended={"exitCode": 4, "message": PROOF})
    revision = of({"type": "ContainerHealthy", "status": "False", "reason": "ExitCode4", "message": "Container failed"})
    found = explain(Observed(revision=revision, pods=[broken]))
    assert found == Reason("proof_failed", "its worker failed its self-proof: score differs by 0.25 from 0.5 in row 3")


def test_what_is_given_up_some_time_stands_before_what_may_last() -> None:
    waits = Observed(pods=[pod(SCHEDULED)], events=[event("Unhealthy", "Readiness probe failed: 503")])
    keda = of({"type": "Ready", "status": "False", "reason": "Failed", "message": "no broker"})
    found = explain(Observed(pods=waits.pods, events=waits.events, scaled=keda))
    assert found is not None
    assert found.code == "scaled_object"


def test_what_knative_repeats_of_a_pod_does_not_shorten_its_time() -> None:
    says = {"status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}
    waiting = pod({"type": "PodScheduled", **says})
    found = explain(Observed(revision=of({"type": "ResourcesAvailable", **says}), pods=[waiting]))
    assert found is not None
    assert (found.code, found.patience_s) == ("unschedulable", NEVER)


def test_a_message_that_is_no_json_is_quoted_as_it_is() -> None:
    found = explain(Observed(pods=[pod(ended={"exitCode": 4, "message": "one\n{broken\n"})]))
    assert found is not None
    assert found.sentence == "its worker failed its self-proof: one | {broken"


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (Observed(service=of()), "Knative to make the revision"),
        (Observed(service=of(), revision=of()), "a pod"),
        (Observed(revision=of(), pods=[pod()]), "a node"),
        (Observed(revision=of(), pods=[pod(SCHEDULED)]), "images and the container"),
        (Observed(revision=of(), pods=[pod(SCHEDULED, state={"running": {}})]), "the model to be loaded and proven"),
        (Observed(revision=of(), pods=[pod({"type": "Ready", "status": "True"})]), "the gateway"),
        (Observed(scaled=of()), "KEDA"),
    ],
)
def test_what_is_waited_for(seen: Observed, words: str) -> None:
    assert waits_for(seen) == words


def test_ready_is_said_of_what_was_asked_last() -> None:
    made = of({"type": "Ready", "status": "True"})
    assert ready(made)
    made["metadata"]["generation"] = 3
    assert not ready(made)
    assert not ready(None)
