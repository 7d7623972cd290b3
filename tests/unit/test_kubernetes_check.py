"""Mistakes in objects are told before anything is applied: all of them at once, each in one exact sentence."""

import json
from base64 import b64encode
from dataclasses import replace
from typing import Any

import pytest
from tests.kubernetes_cases import CASES, GONE, POD, SCALE, STOCK, TRIGGER, Case, edited
from tests.kubernetes_objects import ALL, DIGEST, IMAGES, OPEN, bare, flat, fraud, manifest, private, secured, stream

from sunup.engine.kubernetes.check.check import check, findings
from sunup.engine.kubernetes.check.facts import ClusterFacts, way, why
from sunup.engine.kubernetes.check.leaves import go_seconds
from sunup.engine.kubernetes.render.objects import render
from sunup.engine.kubernetes.render.target import Target
from sunup.errors import CommandError, ObjectsRefused

KNOWN = frozenset({"shop-keys", "registry-login"})
MOUNTS = replace(STOCK, features={"kubernetes.podspec-volumes-image": "enabled"}, secrets=KNOWN)


def named(case: Case) -> str:
    """The sentence, with the name the Secret has."""
    secret = next((one["metadata"]["name"] for one in case.objects if one["kind"] == "Secret"), "-")
    return case.sentence.replace("{hash}", secret.rpartition("-")[2])


@pytest.mark.parametrize("name", ALL)
def test_what_is_rendered_is_right(name: str) -> None:
    check(ALL[name]().objects)
    check(ALL[name]().objects, MOUNTS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_mistake_has_its_sentence(case: Case) -> None:
    found = findings(case.objects, replace(STOCK, secrets=KNOWN))
    assert named(case) in found
    for sentence in found:
        assert sentence.endswith((".", "?"))
        assert "\n" not in sentence


def test_there_are_enough_and_no_two_of_a_name() -> None:
    assert len(CASES) >= 80
    assert len({case.name for case in CASES}) == len(CASES)


def test_all_is_said_at_once() -> None:
    objects = flat().objects
    objects = edited(objects, "Service", (*SCALE, "autoscaling.knative.dev/window"), "3s")
    objects = edited(objects, "Service", (*POD, "nodeSelector"), {"disk": "ssd"})
    objects = edited(objects, "ScaledObject", (*TRIGGER, "metadata", "topic"), GONE)
    with pytest.raises(ObjectsRefused) as caught:
        check(objects, STOCK)
    assert isinstance(caught.value, CommandError)
    assert caught.value.exit_code == 1
    assert len(caught.value.findings) == 3
    assert caught.value.message == " ".join(caught.value.findings)


@pytest.mark.parametrize(
    ("name", "changed", "sentence"),
    [
        (
            "fraud",
            {"features": {}, "kubernetes": (1, 35)},
            "Service fraud, spec.template.spec.volumes[2].image: image volumes need kubernetes.podspec-volumes-image="
            "enabled in config-features, namespace knative-serving; set it there, or use the way flat.",
        ),
        (
            "fraud",
            {"kubernetes": (1, 34)},
            "Deployment fraud-stream, spec.template.spec.volumes[2].image: image volumes need Kubernetes 1.35, and "
            "this is 1.34; use the way flat.",
        ),
        (
            "bare",
            {"features": {"kubernetes.podspec-volumes-emptydir": "Disabled"}},
            "Service churn, spec.template.spec.volumes[0].emptyDir: emptyDir needs kubernetes.podspec-volumes-emptydir="
            "enabled in config-features, namespace knative-serving; set it there, or leave it out.",
        ),
        (
            "bare",
            {"autoscaler": {"max-scale-limit": "3"}},
            'Service churn, spec.template.metadata.annotations["autoscaling.knative.dev/max-scale"]: 4 is more than '
            "this cluster's max-scale-limit, 3; write [scale] max = 3 at most, or raise it in config-autoscaler.",
        ),
        (
            "bare",
            {"autoscaler": {"enable-scale-to-zero": "false"}},
            'Service churn, spec.template.metadata.annotations["autoscaling.knative.dev/min-scale"]: 0 is never '
            "reached here: enable-scale-to-zero is false in config-autoscaler; set it to true, or write [scale] "
            "min = 1.",
        ),
        (
            "bare",
            {"defaults": {"max-revision-timeout-seconds": "30"}},
            "Service churn, spec.template.spec.timeoutSeconds: 60 is more than this cluster's "
            "max-revision-timeout-seconds, 30; lower [limits] timeout, or raise it in config-defaults.",
        ),
        (
            "bare",
            {"defaults": {"allow-container-concurrency-zero": "false"}},
            "Service churn, spec.template.spec.containerConcurrency: 0 needs allow-container-concurrency-zero=true in "
            "config-defaults, namespace knative-serving; set it there.",
        ),
        (
            "fraud",
            {"has_knative": False},
            "This cluster has no Knative Serving (no serving.knative.dev/v1), which scales calls; install it, or "
            "choose another context.",
        ),
        (
            "fraud",
            {"has_keda": False},
            "This cluster has no KEDA (no keda.sh/v1alpha1), which scales streams; install it, or leave [stream] out "
            "of function.toml.",
        ),
        (
            "private",
            {"secrets": frozenset({"registry-login"})},
            "Service fraud, spec.template.spec.volumes[1].secret.secretName: there is no Secret shop-keys in the "
            "namespace; create it first.",
        ),
        (
            "private",
            {"secrets": frozenset({"shop-keys"})},
            "ServiceAccount sunup-worker, imagePullSecrets[0].name: there is no Secret registry-login in the "
            "namespace; create it with kubectl create secret docker-registry.",
        ),
    ],
)
def test_what_the_cluster_does_not_allow_is_told(name: str, changed: dict[str, Any], sentence: str) -> None:
    found = findings(ALL[name]().objects, replace(MOUNTS, **changed))
    assert sentence in found
    assert set(found) - {sentence} <= {s for s in found if "image volumes need Kubernetes" in s}


def test_a_cluster_without_keda_takes_calls() -> None:
    check(bare().objects, replace(STOCK, has_keda=False))
    check(private().objects, replace(MOUNTS, has_keda=False, secrets=None))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            OPEN | {"features_url": "sqlite:////project/data/online.db"},
            "features_url: it is a SQLite file of the deployer's machine; set FEATURES_URL to a Redis or PostgreSQL "
            "that pods reach.",
        ),
        (
            OPEN | {"features_url": "redis://user:secret@127.0.0.1:6379/0"},
            "features_url: 127.0.0.1 is the pod itself; name a host that pods reach.",
        ),
        (
            OPEN | {"stream_broker": "embedded"},
            "stream_broker: the embedded log is a file of the deployer's machine; set the environment variable that "
            "[stream] broker names to Kafka's host:port.",
        ),
        (
            OPEN | {"stream_broker": "kafka:9092,localhost:9093"},
            "stream_broker: localhost is the pod itself; name brokers that pods reach.",
        ),
        (
            secured(),
            "stream_security: /project/certs/kafka-ca.pem is no file of the pod; files of settings come along in the "
            "Secret.",
        ),
    ],
)
def test_settings_that_no_pod_can_use_are_told_without_showing_them(settings: dict[str, str], sentence: str) -> None:
    objects = render(manifest(stream=stream()), DIGEST, Target("shop", IMAGES, "flat", settings))
    secret = next(one for one in objects if one["kind"] == "Secret")["metadata"]["name"]
    found = findings(objects)
    assert f'Secret {secret}, data["settings.json"].{sentence}' in found
    assert not any("secret@" in one or "horse" in one for one in found)


def test_contents_that_are_not_what_the_name_says_are_told() -> None:
    changed = b64encode(json.dumps(OPEN | {"features_url": "redis://other:6379/0"}).encode()).decode()
    (found,) = findings(edited(fraud().objects, "Secret", ("data", "settings.json"), changed))
    assert "its contents are others than fraud-settings-" in found


def test_a_kind_that_no_function_has_is_told() -> None:
    (found,) = findings([{"apiVersion": "v1", "kind": "Servise", "metadata": {"name": "fraud"}}])
    assert found == "Servise fraud: no Servise is made of a function. Did you mean `Service`?"


@pytest.mark.parametrize("name", ALL)
def test_no_shape_of_an_object_is_too_odd_to_be_judged(name: str) -> None:
    """Whatever stands in the place of a value: findings, never an exception."""
    objects = ALL[name]().objects
    for number, thing in enumerate(objects):
        for path in list(paths(thing)):
            for odd in (None, 7, "x", [], {}, [None], {"a": 1}):
                changed = edited([thing], thing["kind"], path, odd)
                assert isinstance(findings([*objects[:number], *changed, *objects[number + 1 :]], STOCK), list)


def paths(thing: Any, at: tuple[Any, ...] = ()) -> Any:
    """Every path below an object."""
    inside = thing.items() if isinstance(thing, dict) else enumerate(thing) if isinstance(thing, list) else ()
    for key, value in inside:
        yield (*at, key)
        yield from paths(value, (*at, key))


@pytest.mark.parametrize(
    ("facts", "chosen", "said"),
    [
        (MOUNTS, "volume", "the bundle is mounted as an image volume (kubernetes.podspec-volumes-image is enabled)"),
        (
            replace(MOUNTS, kubernetes=(1, 34)),
            "flat",
            "the bundle is in an image of its own (Kubernetes 1.34 mounts no images; 1.35 does)",
        ),
        (
            ClusterFacts({"kubernetes.podspec-volumes-image": "allowed"}),
            "flat",
            "the bundle is in an image of its own (kubernetes.podspec-volumes-image is not enabled in config-features)",
        ),
    ],
)
def test_how_the_bundle_reaches_the_pod_follows_from_the_cluster(facts: ClusterFacts, chosen: str, said: str) -> None:
    assert (way(facts), why(facts)) == (chosen, said)


def test_durations_as_go_writes_them() -> None:
    assert [go_seconds(text) for text in ("30s", "1h0m0s", "1m30s", "1500ms", "0", "-2s")] == [30, 3600, 90, 1.5, 0, -2]
    for wrong in ("", "30", "1 s", "5x", None, 30):
        with pytest.raises(ValueError, match="is no duration"):
            go_seconds(wrong)
