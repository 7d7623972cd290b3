"""KEDA reads the lag of a topic that wants TLS or a user, with what is rendered for it: the Secret, its keys, the
TriggerAuthentication."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from tests.cluster.running import Cluster as Running
from tests.kafka_fixture import produce
from tests.kubernetes_objects import DIGEST, IMAGES, manifest, stream
from tests.secured_kafka import KEY_PASSWORD, PASSWORD, USER, SecuredKafka

from sunup.bundle.manifest import Scale, SecuritySpec
from sunup.cli.streams.security import security_settings
from sunup.engine.kubernetes.check.check import check
from sunup.engine.kubernetes.cluster.cluster import Cluster
from sunup.engine.kubernetes.render.objects import render
from sunup.engine.kubernetes.render.settings import packed
from sunup.engine.kubernetes.render.target import Object, Target

pytestmark = pytest.mark.timeout(300)

HELLO: Final = "dev.local/hello:1"  # programs/small/hello; who reads the topic is no matter here
WAYS: Final[dict[str, dict[str, Any]]] = {
    "a user over TLS": {"protocol": "SASL_SSL", "mechanism": "SCRAM-SHA-512"},
    "a user over TLS, SHA-256": {"protocol": "SASL_SSL", "mechanism": "SCRAM-SHA-256"},
    "a user, nothing encrypted": {"protocol": "SASL_PLAINTEXT", "mechanism": "PLAIN"},
    "a client's certificate": {"protocol": "SSL"},
}


@pytest.fixture(scope="module")
def broker(cluster: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """One that pods reach, and that lets in only who says who it is."""
    server = SecuredKafka(tmp_path_factory.mktemp("secured"), cluster.address)
    server.start()
    yield server
    server.kill()


def declared(way: dict[str, Any], broker: SecuredKafka) -> SecuritySpec:
    """[stream.security], as function.toml has it."""
    made, said = broker.certificates, dict(way)
    if way["protocol"].startswith("SASL_"):
        said |= {"username": USER, "password": "env:KAFKA_PASSWORD"}
    if way["protocol"].endswith("SSL"):
        said["ca"] = str(made.ca)
    if way["protocol"] == "SSL":
        files = {"certificate": str(made.client), "key": str(made.client_key)}
        said |= {**files, "key_password": "env:KEY_PASSWORD"}
    return SecuritySpec(**said)


def scaled(way: dict[str, Any], broker: SecuredKafka, namespace: str, topic: str, password: str) -> list[Object]:
    """The objects of a stream, the image of its workers another one."""
    security = declared(way, broker)
    function = manifest(stream=stream(input=topic, group=topic, security=security), scale=Scale(idle_s=6.0))
    assert function.stream is not None
    environment = {"KAFKA_PASSWORD": password, "KEY_PASSWORD": KEY_PASSWORD}
    settings = security_settings(function.stream, environment, Path("/"), kafka=True)
    settings["stream_broker"] = broker.ways[way["protocol"]]
    kept = packed(settings, lambda path: Path(path).read_bytes())
    objects = render(function, DIGEST, Target(namespace, IMAGES, "flat", kept.settings, kept.files))
    check(objects)
    for one in objects:
        if one["kind"] == "Deployment":
            (container,) = one["spec"]["template"]["spec"]["containers"]
            container["image"] = HELLO
            container["readinessProbe"] = {"httpGet": {"path": "/", "port": 8080}}
    return [one for one in objects if one["kind"] != "Service"]


@pytest.mark.parametrize("way", WAYS)
def test_keda_sees_the_lag(way: str, broker: SecuredKafka, cluster: Running, namespace: str) -> None:
    topic = f"t-{uuid.uuid4().hex[:8]}"
    broker.create(topic, 2)
    produce(broker.servers, topic, [(b"%d" % n, b"%d" % n, []) for n in range(20)])
    api = Cluster(None, namespace)
    for one in scaled(WAYS[way], broker, namespace, topic, PASSWORD):
        api.apply(one)
    cluster.until("KEDA is let in", lambda: state(api, "Ready") == "True")
    cluster.until("KEDA sees the records", lambda: state(api, "Active") == "True")


def test_a_wrong_password_shows_in_its_state(broker: SecuredKafka, cluster: Running, namespace: str) -> None:
    topic = f"t-{uuid.uuid4().hex[:8]}"
    broker.create(topic, 1)
    api = Cluster(None, namespace)
    for one in scaled(WAYS["a user over TLS"], broker, namespace, topic, "wrong"):
        api.apply(one)
    cluster.until("KEDA is not let in", lambda: state(api, "Ready") == "False")


def state(api: Cluster, condition: str) -> str:
    """Of the ScaledObject: True, False, Unknown, or nothing yet."""
    found = (api.get("ScaledObject", "fraud-stream") or {}).get("status", {}).get("conditions", [])
    return next((str(one["status"]) for one in found if one["type"] == condition), "")
