"""Deploys to a real API server without nodes, for tests: an order, a deploy, what is there."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from tests.cluster.api_server import api_server, ask, parts, port_of
from tests.cluster.knative_double import Controllers, failed, waiting
from tests.kubernetes_objects import bare, fraud

from sunup.bundle.store import Store
from sunup.engine.kubernetes.cluster.cluster import Cluster, Object
from sunup.engine.kubernetes.cluster.facts import read_facts
from sunup.engine.kubernetes.deploying.rolling import Manner, Rollout
from sunup.engine.kubernetes.engine import KubernetesEngine
from sunup.engine.kubernetes.order import Delivery, Order
from sunup.engine.kubernetes.steps import Steps

DEPLOYER: Final = Path(__file__).resolve().parents[2] / "infra" / "kubernetes" / "deployer.yaml"
KINDS: Final = ("Service", "Revision", "Secret", "ConfigMap", "Deployment", "ScaledObject")
PROOF: Final = '{"code": "proof_failed", "message": "score differs by 0.5"}'
GONE: Final = 'failed to pull and unpack image "registry.example/fraud": not found'
OUTCOMES: Final = {
    "b" * 63: failed(exitCode=4, message=PROOF),
    "9" * 63: waiting("ErrImagePull", GONE),
    "8" * 63: failed(exitCode=1, message="Traceback\nValueError: no such thing"),
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The kubeconfig of an API server for the tests of this file."""
    built = parts()
    if not {"kube", "objects"} <= built.keys():
        if os.environ.get("CI") == "true":
            pytest.fail("the parts of the test cluster are not built: make cluster")
        pytest.skip("the parts of the test cluster are not built: make cluster")
    folder = tmp_path_factory.mktemp("api")
    with api_server(folder, built["kube"] / "kube", built["objects"] / "definitions.yaml") as running:
        yield running


@pytest.fixture
def cluster(config: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Cluster:
    """A namespace of its own, with Knative's controllers looking at it."""
    name = f"t-{abs(hash(request.node.name)) % 10**8}"
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    ask(port_of(config), "POST", "/api/v1/namespaces", made)
    monkeypatch.setenv("KUBECONFIG", str(config))
    return Cluster(None, name)


@pytest.fixture
def knative(cluster: Cluster) -> Iterator[Controllers]:
    with Controllers(Cluster(None, cluster.namespace), OUTCOMES) as running:
        yield running


def order(cluster: Cluster, digest: str, *, stream: bool = False, **settings: str) -> Order:
    made = fraud() if stream else bare()
    target = replace(
        made.target, namespace=cluster.namespace, way="flat", settings={**made.target.settings, **settings}
    )
    return Order(made.manifest, digest * 64, target, read_facts(cluster), "")


def deploy(cluster: Cluster, digest: str, *, canary: int | None = None, wait_s: float = 30.0, **more: Any) -> Object:
    told: list[Object] = []
    manner = Manner(canary=canary, wait_s=wait_s)
    return Rollout(cluster, order(cluster, digest, **more), manner, Steps(told.append)).run()


def engine(cluster: Cluster, tmp_path: Path) -> KubernetesEngine:
    return KubernetesEngine(cluster, Store(tmp_path), Delivery(), Manner(wait_s=30.0))


def traffic(cluster: Cluster, name: str = "churn") -> dict[str, int]:
    service = cluster.get("Service", name)
    assert service is not None
    return {one["revisionName"]: one["percent"] for one in service["spec"]["traffic"]}


def there(cluster: Cluster) -> list[str]:
    return [f"{kind} {one['metadata']['name']}" for kind in KINDS for one in cluster.select(kind)]


def versions(cluster: Cluster) -> dict[str, str]:
    return {
        f"{kind} {one['metadata']['name']}": one["metadata"]["resourceVersion"]
        for kind in KINDS
        for one in cluster.select(kind)
    }
