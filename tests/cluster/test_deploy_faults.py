"""What fails on the test cluster is said as it is, and leaves the cluster as it was."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from tests.cluster.functions import ROOT, Platform, bundle, platform, runtime
from tests.cluster.running import Cluster
from tests.proxy import Proxy

from sunup.bundle.store import read_manifest
from sunup.engine.kubernetes.cluster.cluster import Cluster as Api
from sunup.engine.kubernetes.cluster.facts import read_facts
from sunup.engine.kubernetes.deploying.rolling import Manner, Rollout
from sunup.engine.kubernetes.order import Order
from sunup.engine.kubernetes.render.target import Images, Target
from sunup.engine.kubernetes.steps import Steps
from sunup.errors import ClusterError

__all__ = ["platform", "runtime"]

pytestmark = pytest.mark.timeout(600)

KINDS: Final = "ksvc,revision,secret,configmap,deployment,scaledobject"
DEPLOYER: Final = ROOT / "infra" / "kubernetes" / "deployer.yaml"


def made(cluster: Cluster, namespace: str) -> dict[str, str]:
    """What there is of functions, and the generation of what has one."""
    found = cluster.list(KINDS, namespace, app_kubernetes_io__managed_by="sunup")
    return {f"{one['kind']} {one['metadata']['name']}": one["metadata"].get("generation") for one in found}


def quota(platform: Platform, **hard: str) -> dict[str, Any]:
    metadata = {"name": "small", "namespace": platform.namespace}
    said = {name.replace("_", "."): value for name, value in hard.items()}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": said}}


@pytest.mark.parametrize(
    ("image", "code", "words"),
    [
        ("score@sha256:" + "0" * 64, "image_pull", "cannot fetch the image"),
        ("nowhere.invalid/score@sha256:" + "0" * 64, "image_pull", "nowhere.invalid"),
        ("", "bundle_damaged", "found another bundle than it was given, or a damaged one"),
    ],
)
def test_images_that_hold_nothing(platform: Platform, tmp_path: Path, image: str, code: str, words: str) -> None:
    """Not there; in no registry; there, but without the bundle."""
    found = bundle(tmp_path, 1)
    named = image if "/" in image else f"{platform.cluster.registry}/{image}"
    chosen = named if image else platform.runtime.removeprefix("http://")
    cluster = Api(None, platform.namespace)
    target = Target(platform.namespace, Images(flat=chosen), "flat")
    order = Order(read_manifest(found), found.name, target, read_facts(cluster), "")
    with pytest.raises(ClusterError, match="Nothing of it is left") as caught:
        Rollout(cluster, order, Manner(wait_s=120.0), Steps(lambda _: None)).run()
    assert (caught.value.code, words in caught.value.message) == (code, True), caught.value.message


def test_too_little_memory(platform: Platform, tmp_path: Path) -> None:
    done = platform.run("deploy", str(bundle(tmp_path, 1, memory="128Mi")), "--wait", "60")
    assert done.status == 0 or "raise [kubernetes] memory" in done.errors, done.errors


def test_a_runtime_image_that_is_not_there(platform: Platform, tmp_path: Path) -> None:
    nowhere = f"http://{platform.cluster.registry}/sunup-runtime@sha256:{'0' * 64}"
    done = replace(platform, runtime=nowhere).run("deploy", str(bundle(tmp_path, 1)))
    assert (done.status, "sunup-runtime" in done.errors) == (1, True), done.errors
    assert made(platform.cluster, platform.namespace) == {}


@pytest.mark.parametrize(
    ("options", "declared", "words"),
    [
        (["--keys-secret", "nobody"], {}, "nobody"),
        (["--wait", "10"], {"cpu": "64"}, "no node takes its pod"),
        (["--wait", "10"], {"gpu": 1}, "nvidia.com/gpu"),
        (["--canary", "20"], {}, "nothing of it serves yet"),
    ],
)
def test_what_cannot_run_is_said_and_leaves_nothing(
    platform: Platform, tmp_path: Path, options: list[str], declared: dict[str, Any], words: str
) -> None:
    done = platform.run("deploy", str(bundle(tmp_path, 1, **declared)), *options)
    assert (done.status in (1, 2), words in done.errors) == (True, True), done.errors
    assert made(platform.cluster, platform.namespace) == {}


@pytest.mark.parametrize(
    ("memory", "words"),
    [
        ("700Mi", "The namespace's quota does not allow to apply Service score: small"),  # Knative has pods judged
        ("1100Mi", "the namespace's quota allows no pod of it: small"),  # but without its own container beside ours
    ],
)
def test_a_quota_is_said_and_the_old_revision_serves_on(
    platform: Platform, tmp_path: Path, memory: str, words: str
) -> None:
    platform.deploy(bundle(tmp_path, 1))
    before = made(platform.cluster, platform.namespace)
    platform.cluster.apply(quota(platform, requests_memory=memory))
    done = platform.run("deploy", str(bundle(tmp_path, 2)))
    assert done.status == 1
    assert words in done.errors, done.errors
    assert platform.call()["revision"] == 1
    assert platform.traffic() == {"score-00001": 100}
    after = made(platform.cluster, platform.namespace)
    assert {name for name in after if "Secret" in name} == {name for name in before if "Secret" in name}


def test_an_api_that_is_away_for_ten_seconds_delays_a_deploy(platform: Platform, tmp_path: Path) -> None:
    platform.deploy(bundle(tmp_path, 1))
    proxy = Proxy(6443)
    with proxied(platform, proxy, tmp_path) as through:
        with proxy.running():
            process = through.start("deploy", str(bundle(tmp_path, 2)), "--json")
            platform.cluster.until("the new template is there", lambda: generation(platform) > 2)
        with pytest.raises(Exception, match="timed out"):
            process.communicate(timeout=10)  # away: the proxy listens no more
        with proxy.running():
            output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert json.loads(output)["revision"] == 2
    assert platform.call()["revision"] == 2


def generation(platform: Platform) -> int:
    found = platform.cluster.read("ksvc", "score", platform.namespace)
    return 0 if found is None else int(found["metadata"]["generation"])


@contextmanager
def proxied(platform: Platform, proxy: Proxy, folder: Path) -> Iterator[Platform]:
    """The same commands, whose requests go through the proxy."""
    config = yaml.safe_load(Path(platform.cluster.kubeconfig).read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{proxy.port}"
    (path := folder / "proxied").write_text(yaml.safe_dump(config))
    yield replace(platform, more={"KUBECONFIG": str(path)})


def test_the_deployers_role_is_enough_and_workers_may_nothing(platform: Platform, tmp_path: Path) -> None:
    cluster, namespace = platform.cluster, platform.namespace
    cluster.kubectl("apply", "-n", namespace, "-f", str(DEPLOYER))
    token = cluster.kubectl("create", "token", "sunup-deployer", "-n", namespace).strip()
    config = yaml.safe_load(Path(cluster.kubeconfig).read_text())
    config["users"][0]["user"] = {"token": token}
    (path := tmp_path / "deployer").write_text(yaml.safe_dump(config))
    restricted = replace(platform, more={"KUBECONFIG": str(path)})
    restricted.deploy(bundle(tmp_path, 1))
    restricted.deploy(bundle(tmp_path, 2), "--canary", "20")
    assert restricted.facts("promote", "score")["revision"] == 2
    assert restricted.facts("rollback", "score")["revision"] == 1
    assert restricted.facts("status", "score")["functions"][0]["revision"] == 1
    assert restricted.run("logs", "score").status == 0
    elsewhere = restricted.run("status", "--namespace", "default")
    assert (elsewhere.status, "deployer.yaml" in elsewhere.errors) == (1, True), elsewhere.errors
    worker = f"system:serviceaccount:{namespace}:sunup-worker"
    rights = (("get", "secrets"), ("list", "pods"), ("create", "pods"), ("get", "configmaps"))
    assert [right for right in rights if may(cluster, *right, namespace, worker)] == []
    for pod in cluster.list("pod", namespace):
        mounts = [mount["mountPath"] for one in pod["spec"]["containers"] for mount in one.get("volumeMounts", ())]
        assert not any("kubernetes.io/serviceaccount" in mount for mount in mounts)
    restricted.facts("remove", "score")
    assert made(cluster, namespace) == {}


def may(cluster: Cluster, verb: str, kind: str, namespace: str, user: str) -> bool:
    """Whether a user has a right."""
    spec = {"user": user, "resourceAttributes": {"namespace": namespace, "verb": verb, "resource": kind}}
    asked = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    said = cluster.kubectl("create", "-f", "-", "-o", "json", given=json.dumps(asked))
    return bool(json.loads(said)["status"].get("allowed"))
