"""The cluster itself: before anything is said about Sunup on it, it must do what a cluster does."""

import json
import socket
import struct
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from tests.cluster.running import INFRA, Cluster, Object, features, script, without
from tests.kafka_fixture import KafkaServer, produce

UP_SECONDS_MAX = 90  # 25 alone, and with the machine busy
HELLO = "dev.local/hello:1"  # programs/small/hello
NAMESPACES = {
    "knative-serving": 4,
    "kourier-system": 1,
    "keda": 3,
}  # how many deployments; Kourier's other is Knative's


def pod(name: str, namespace: str, image: str = HELLO, **labels: str) -> Object:
    container = {
        "name": "hello",
        "image": image,
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
    }


def service(namespace: str) -> Object:
    """The function that up.sh has shown to Knative's webhook."""
    yaml = (INFRA / "conf" / "service.yaml").read_text("utf-8").replace("namespace: default", f"namespace: {namespace}")
    done = subprocess.run(
        [INFRA / "enter.sh", "kubectl", "create", "--dry-run=client", "-o", "json", "-f", "-"],
        input=yaml,
        capture_output=True,
        text=True,
        check=True,
    )
    found: Object = json.loads(done.stdout)
    return found


def address_of(name: str, server: str) -> str | None:
    """Asks a DNS server for one IPv4 address: RFC 1035, section 4.1."""
    asked = (
        b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0" + struct.pack("!HH", 1, 1)
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.settimeout(10)
        connection.sendto(struct.pack("!6H", 1, 0x0100, 1, 0, 0, 0) + asked, (server, 53))
        answer = connection.recv(512)
    answers = struct.unpack("!H", answer[6:8])[0]
    return socket.inet_ntoa(answer[-4:]) if answers else None


def page(address: str) -> bytes | None:
    """What is there, or None where nothing listens."""
    try:
        with urllib.request.urlopen(f"http://{address}/", timeout=10) as reply:
            found: bytes = reply.read()
            return found
    except urllib.error.URLError:
        return None


def gone(cluster: Cluster, namespace: str) -> Callable[[], bool]:
    return lambda: not cluster.list("pods", namespace)


def test_everything_is_ready(cluster: Cluster) -> None:
    assert cluster.condition("node", "node") == "True"
    for namespace, count in NAMESPACES.items():
        found = cluster.list("deployments", namespace)
        assert len(found) >= count
        assert all(each["status"].get("readyReplicas") for each in found), [each["metadata"]["name"] for each in found]
    assert cluster.condition("apiservice", "v1beta1.external.metrics.k8s.io", condition="Available") == "True"


def test_a_pod_runs_and_is_found_by_its_services_name(cluster: Cluster, namespace: str) -> None:
    ports = [{"port": 80, "targetPort": 8080}]
    spec = {"selector": {"app": "hello"}, "ports": ports}
    metadata = {"name": "hello", "namespace": namespace}
    cluster.apply(
        pod("hello", namespace, app="hello"),
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec},
    )
    cluster.until("the pod is ready", lambda: cluster.condition("pod", "hello", namespace) == "True")
    name = f"hello.{namespace}.svc.cluster.local"
    found = cluster.until("the name is known", lambda: address_of(name, cluster.address))
    # A pod is ready before kube-proxy knows it: until then the address of the service refuses.
    assert cluster.until("the service answers", lambda: page(found)) == b"hello world\n"
    assert address_of(f"nobody.{namespace}.svc.cluster.local", cluster.address) is None


def test_a_function_goes_to_zero_and_comes_back_through_kourier(cluster: Cluster, namespace: str) -> None:
    cluster.apply(service(namespace))
    cluster.until("the function is ready", lambda: cluster.condition("ksvc", "hello", namespace) == "True")
    host = f"hello.{namespace}.example.com"
    assert cluster.ask(host) == (200, b"hello world\n")
    cluster.until("no pod is left", gone(cluster, namespace))
    assert cluster.ask(host) == (200, b"hello world\n")


def test_a_pod_runs_an_image_of_the_registry(cluster: Cluster, namespace: str) -> None:
    image = f"{cluster.registry}/{namespace}/hello:1"
    subprocess.run([INFRA / "enter.sh", "ctr", "images", "push", "--plain-http", image, HELLO], check=True)
    cluster.apply(pod("hello", namespace, image))
    cluster.until("the pod is ready", lambda: cluster.condition("pod", "hello", namespace) == "True")


def scaled(namespace: str, trigger: str, **metadata: str) -> tuple[Object, Object]:
    """A Deployment of hello, called worker, and what KEDA scales it by, between 0 and 1."""
    containers = pod("", namespace)["spec"]["containers"]
    template = {"metadata": {"labels": {"app": "worker"}}, "spec": {"containers": containers}}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "worker", "namespace": namespace},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "worker"}}, "template": template},
    }
    scaling = {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": "worker", "namespace": namespace},
        "spec": {
            "scaleTargetRef": {"name": "worker"},
            "pollingInterval": 1,
            "cooldownPeriod": 1,
            "maxReplicaCount": 1,
            "triggers": [{"type": trigger, "metadata": metadata}],
        },
    }
    return deployment, scaling


def workers(cluster: Cluster, namespace: str) -> list[Object]:
    return cluster.list("pods", namespace, app="worker")


def test_keda_scales_a_deployment_from_zero_and_back(cluster: Cluster, namespace: str) -> None:
    cluster.apply(*scaled(namespace, "kubernetes-workload", podSelector="app=work", value="1"))
    cluster.until("KEDA takes it", lambda: cluster.condition("scaledobject", "worker", namespace) == "True")
    assert not workers(cluster, namespace)
    cluster.apply(pod("work", namespace, app="work"))
    cluster.until("a worker runs", lambda: workers(cluster, namespace))
    cluster.kubectl("delete", "pod", "work", "-n", namespace, "--wait=false")
    cluster.until("no worker is left", lambda: not workers(cluster, namespace))


def test_keda_sees_what_waits_in_a_topic_of_a_broker_on_the_machine(
    cluster: Cluster, namespace: str, kafka: KafkaServer
) -> None:
    kafka.create(namespace, partitions=1)
    where = {"bootstrapServers": kafka.servers, "consumerGroup": namespace, "topic": namespace}
    cluster.apply(*scaled(namespace, "kafka", **where, lagThreshold="10", offsetResetPolicy="earliest"))
    cluster.until("KEDA takes it", lambda: cluster.condition("scaledobject", "worker", namespace) == "True")
    produce(kafka.servers, namespace, [(None, b"a record", [])])
    cluster.until("a worker runs", lambda: workers(cluster, namespace))
    with closing(
        KafkaConsumer(bootstrap_servers=kafka.servers, group_id=namespace, enable_auto_commit=False)
    ) as reader:
        reader.commit({TopicPartition(namespace, 0): OffsetAndMetadata(1, "", -1)})
    cluster.until("no worker is left", lambda: not workers(cluster, namespace))


def test_features_of_knative_are_switched_and_come_back(cluster: Cluster, namespace: str) -> None:
    asking = service(namespace)
    asking["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/os": "linux"}

    def refusal() -> str:
        """What Knative's webhook says against it."""
        try:
            cluster.kubectl("create", "--dry-run=server", "-f", "-", given=json.dumps(asking))
        except subprocess.CalledProcessError as error:
            return str(error.stderr)
        return ""

    assert "nodeSelector" in refusal()
    with features(cluster, **{"kubernetes.podspec-nodeselector": "enabled"}):
        cluster.until("the feature is on", lambda: not refusal())
    cluster.until("the feature is off again", lambda: "nodeSelector" in refusal())
    found = cluster.read("configmap", "config-features", "knative-serving")
    assert found is not None
    assert "kubernetes.podspec-nodeselector" not in found["data"]


@pytest.mark.parametrize("program", ["kubelet", "apiserver"])
def test_a_pod_outlives_a_program_that_is_killed_and_comes_back(cluster: Cluster, namespace: str, program: str) -> None:
    cluster.apply(pod("before", namespace))
    cluster.until("the pod is ready", lambda: cluster.condition("pod", "before", namespace) == "True")
    with without(program):
        if program == "apiserver":
            with pytest.raises(subprocess.CalledProcessError):
                cluster.read("pod", "before", namespace)
    cluster.until("the API server answers", lambda: script("enter.sh", "kubectl", "get", "nodes").returncode == 0)
    cluster.apply(pod("after", namespace))
    cluster.until("another pod is ready", lambda: cluster.condition("pod", "after", namespace) == "True")
    found = cluster.list("pods", namespace)
    assert [each["status"]["containerStatuses"][0]["restartCount"] for each in found] == [0, 0]


def test_up_uses_a_cluster_that_runs_and_it_was_up_in_time(cluster: Cluster) -> None:
    again = script("up.sh")
    assert again.returncode == 0, again.stderr
    assert Cluster.of(again.stdout, "").started is False
    if cluster.started:
        assert int(cluster.story.rsplit(" after ", 1)[1].split()[0]) <= UP_SECONDS_MAX


def test_what_is_entered_has_its_places_in_the_environment(cluster: Cluster) -> None:
    said = script("enter.sh", "sh", "-c", "echo $GATEWAY $REGISTRY $ADDRESS; kubectl get nodes -o name").stdout
    assert said == f"{cluster.gateway} {cluster.registry} {cluster.address}\nnode/node\n"


def test_go_that_is_too_old_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\necho go1.20.1\necho amd64\n", "utf-8")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    said = script("build.sh", "--cached")
    assert said.returncode == 3
    assert "needs Go 1.26.6 or newer" in said.stderr
