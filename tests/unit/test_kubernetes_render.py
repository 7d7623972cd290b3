"""A manifest becomes Kubernetes' objects: the same every time, of everything it says, with secrets in Secrets only."""

import json
from base64 import b64decode
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import yaml
from tests.kubernetes_objects import (
    ALL,
    DIGEST,
    FILES,
    GITOPS,
    IMAGES,
    KEY,
    OPEN,
    PASSWORD,
    bare,
    fraud,
    golden,
    manifest,
    one,
    pictures,
    private,
    secured,
    secured_stream,
    stream,
)

from sunup.engine.kubernetes.check.check import check
from sunup.engine.kubernetes.render.folder import stale, written
from sunup.engine.kubernetes.render.objects import dump, render
from sunup.engine.kubernetes.render.settings import packed
from sunup.engine.kubernetes.render.target import Target
from sunup.errors import UsageError
from sunup.stream.kafka.security import Security
from sunup.wire.confluent.registry import Address


@pytest.mark.parametrize("name", ALL)
def test_objects_are_those_that_are_kept(name: str) -> None:
    assert dump(ALL[name]().objects) == golden(name), "look at the difference; python -m tests.kubernetes_objects"


@pytest.mark.parametrize("name", ALL)
def test_rendering_is_deterministic_and_reads_back(name: str) -> None:
    objects = ALL[name]().objects
    assert objects == ALL[name]().objects
    assert list(yaml.safe_load_all(dump(objects))) == objects
    assert list(yaml.safe_load_all(dump(list(yaml.safe_load_all(dump(objects)))))) == objects


def test_the_example_for_gitops_is_what_is_rendered() -> None:
    kept = {path.name: path.read_text("utf-8") for path in GITOPS.iterdir()}
    assert kept == written(fraud().objects), "python -m tests.kubernetes_objects writes it again"
    check([yaml.safe_load(text) for text in kept.values()])


def test_the_kinds_and_their_order() -> None:
    def kinds(name: str) -> list[str]:
        return [thing["kind"] for thing in ALL[name]().objects]

    assert kinds("bare") == ["ServiceAccount", "Service"]
    assert kinds("pictures") == ["ServiceAccount", "Secret", "Service"]
    assert kinds("fraud") == ["ServiceAccount", "Secret", "Service", "Deployment", "ScaledObject"]
    assert kinds("secured") == [
        "ServiceAccount", "Secret", "Service", "Deployment", "TriggerAuthentication", "ScaledObject"
    ]  # fmt: skip


@pytest.mark.parametrize("setting", ["features_url", "stream_broker", "more"])
def test_a_changed_setting_is_another_secret_and_another_template(setting: str) -> None:
    made = fraud()
    changed = replace(made.target, settings=OPEN | {setting: "redis://other:6379"})
    before, after = made.objects, render(made.manifest, DIGEST, changed)
    for kind, other in (("Secret", True), ("Service", True), ("Deployment", True), ("ServiceAccount", False)):
        assert (one(before, kind) != one(after, kind)) is other, kind
    names = [one(objects, "Secret")["metadata"]["name"] for objects in (before, after)]
    assert names[0] != names[1]
    for objects, name in zip((before, after), names, strict=True):
        for kind in ("Service", "Deployment"):
            (volume,) = (
                v for v in one(objects, kind)["spec"]["template"]["spec"]["volumes"] if v["name"] == "settings"
            )
            assert volume["secret"]["secretName"] == name


def test_a_new_bundle_with_the_same_settings_has_the_same_secret() -> None:
    made = fraud()
    newer = msgspec.structs.replace(made.manifest, model=msgspec.structs.replace(made.manifest.model, version="4"))
    assert one(render(newer, "e" * 64, made.target), "Secret") == one(made.objects, "Secret")
    assert one(render(newer, "e" * 64, made.target), "Service") != one(made.objects, "Service")


def test_nothing_secret_is_outside_secrets() -> None:
    for thing in secured_stream().objects:
        text = dump([thing])
        for hidden in (PASSWORD, PASSWORD.split()[0], PASSWORD.split()[1], "fraud-scorer", "of the key", "nobody sees"):
            assert hidden not in text  # in a Secret it is base64
    assert "horse" not in repr(secured_stream().target)


def test_settings_are_packed_for_pods_with_the_files_they_name() -> None:
    settings, files = packed(secured(), FILES.__getitem__)
    security = msgspec.json.decode(settings["stream_security"], type=Security)
    assert (security.ca, security.key) == ("/etc/sunup/kafka-ca.pem", "/etc/sunup/kafka.key")
    assert security.password.file == "/etc/sunup/kafka-password"
    assert security.username.value == "fraud-scorer"
    address = msgspec.json.decode(settings["schema_registry"], type=Address)
    assert address.ca == "/etc/sunup/schema-registry-ca.pem"
    assert files["kafka.key"] == KEY.encode()
    assert files["kafka-password"] == PASSWORD.encode(), "without the line break, which KEDA would take along"
    assert packed(OPEN, FILES.__getitem__) == (OPEN, {}), "nothing is read where nothing is named"


def test_the_secret_holds_what_pods_and_keda_read() -> None:
    objects = secured_stream().objects
    data = {key: b64decode(value) for key, value in one(objects, "Secret")["data"].items()}
    assert json.loads(data["settings.json"])["stream_broker"] == "kafka.shop:9093"
    wanted = {r["parameter"]: data[r["key"]] for r in one(objects, "TriggerAuthentication")["spec"]["secretTargetRef"]}
    assert wanted == {
        "username": b"fraud-scorer",
        "password": PASSWORD.encode(),
        "ca": b"the authorities",
        "cert": b"the certificate",
        "key": KEY.encode(),
        "keyPassword": b"of the key",
    }


@pytest.mark.parametrize(
    ("security", "said"),
    [
        ({"protocol": "SSL"}, {"tls": "enable"}),
        ({"protocol": "SSL", "check_hostname": False}, {"tls": "enable", "unsafeSsl": "true"}),
        ({"protocol": "SASL_PLAINTEXT", "mechanism": "PLAIN"}, {"sasl": "plaintext"}),
        ({"protocol": "SASL_SSL", "mechanism": "SCRAM-SHA-256"}, {"tls": "enable", "sasl": "scram_sha256"}),
        ({"protocol": "PLAINTEXT"}, {}),
    ],
)
def test_keda_is_let_in_as_workers_are(security: dict[str, Any], said: dict[str, str]) -> None:
    if "mechanism" in security:
        security = security | {"username": {"value": "me"}, "password": {"value": "mine"}}
    settings = OPEN | {"stream_security": json.dumps(security)}
    objects = render(manifest(stream=stream()), DIGEST, replace(fraud().target, settings=settings))
    (trigger,) = one(objects, "ScaledObject")["spec"]["triggers"]
    assert {key: value for key, value in trigger["metadata"].items() if key in ("tls", "sasl", "unsafeSsl")} == said
    assert ("authenticationRef" in trigger) is ("mechanism" in security)
    check(objects)


def test_only_who_is_within_the_cluster_reaches_what_is_visible_there() -> None:
    key = "networking.knative.dev/visibility"
    assert one(private().objects, "Service")["metadata"]["labels"][key] == "cluster-local"
    assert key not in one(bare().objects, "Service")["metadata"]["labels"]


def test_the_bundle_is_mounted_or_in_the_image() -> None:
    for name, image, mounts in (
        ("fraud", IMAGES.runtime, ["tmp", "settings", "bundle"]),
        ("bare", IMAGES.flat, ["tmp"]),
    ):
        (container,) = one(ALL[name]().objects, "Service")["spec"]["template"]["spec"]["containers"]
        assert container["image"] == image
        assert [mount["name"] for mount in container["volumeMounts"]] == mounts


def test_stream_pods_say_their_revision_and_leave_the_number_of_them_to_keda() -> None:
    spec = one(fraud().objects, "Deployment")["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert {"name": "SUNUP_REVISION", "value": "7"} in container["env"]
    assert "replicas" not in spec
    assert {"name": "SUNUP_ROLE", "value": "stream"} in container["env"]
    calls = one(pictures().objects, "Service")["spec"]["template"]["spec"]["containers"][0]
    assert not any(variable["name"] in ("PORT", "SUNUP_REVISION") for variable in calls["env"])


@pytest.mark.parametrize("name", ["Fraud", "fraud_v2", "3d", "fraud-"])
def test_a_name_that_is_none_for_kubernetes_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="small letters, digits and -"):
        render(manifest(name), DIGEST, bare().target)


def test_a_name_is_short_enough_for_all_that_is_made_of_it() -> None:
    for most, more in ((56, {}), (47, {"stream": stream()})):
        check(render(manifest("f" * most, **more), DIGEST, fraud().target))
        with pytest.raises(UsageError, match=f"has {most + 1} characters, and on Kubernetes {most} is the most"):
            render(manifest("f" * (most + 1), **more), DIGEST, fraud().target)


def test_files_for_gitops_and_those_an_earlier_rendering_left() -> None:
    made = fraud()
    before = list(written(made.objects))
    after = render(
        msgspec.structs.replace(made.manifest, stream=None), DIGEST, replace(made.target, settings={"a": "b"})
    )
    others = ["readme.md", "02-secret-other-settings-00000000.yaml", "03-service-fraudulent.yaml", "fraud.yaml"]
    assert stale([*before, *others], made.objects) == []
    gone = [name for name in before if "settings" in name or "stream" in name]
    assert stale([*before, *others], after) == gone
    assert len(gone) == 3


def test_a_target_says_nothing_of_its_settings() -> None:
    assert "redis" not in repr(Target("shop", IMAGES, "flat", OPEN, {"a": b"redis"}))
