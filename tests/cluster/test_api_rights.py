"""Deploys against a real API server: who wins, what is completed, what is not ours, and what one may do."""

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from tests.cluster.api_deploys import DEPLOYER, cluster, config, deploy, engine, knative, order, there, traffic
from tests.cluster.api_server import ask, kubeconfig, port_of
from tests.cluster.knative_double import Controllers

from sunup.engine.kubernetes.cluster.cluster import Cluster, Object
from sunup.engine.kubernetes.deploying.rolling import Manner, Rollout
from sunup.engine.kubernetes.steps import Steps
from sunup.errors import ClusterError, CommandError, UsageError

__all__ = ["cluster", "config", "knative"]


@pytest.mark.usefixtures("knative")
def test_remove_takes_all_of_a_function_and_nothing_else(cluster: Cluster, tmp_path: Path) -> None:
    commands = engine(cluster, tmp_path)
    deploy(cluster, "a")
    before = there(cluster)
    deploy(cluster, "a", stream=True)
    for revision in cluster.select("Revision", {"sunup.dev/function": "fraud"}):  # nobody collects those here
        cluster.delete("Revision", revision["metadata"]["name"])
    commands.remove("fraud")
    assert [one for one in there(cluster) if "Revision fraud" not in one] == before
    with pytest.raises(UsageError, match=r"'fraud' is deployed in namespace .* There are: churn"):
        commands.remove("fraud")


@pytest.mark.usefixtures("knative")
def test_status_says_what_serves(cluster: Cluster, tmp_path: Path) -> None:
    deploy(cluster, "a")
    deploy(cluster, "c", canary=20)
    facts = engine(cluster, tmp_path).status(None)
    assert facts["engine"]["namespace"] == cluster.namespace
    (one,) = facts["functions"]
    assert (one["name"], one["revision"], one["state"], one["model"]) == ("churn", 1, "cold", "churn/3")
    assert [(share["revision"], share["percent"]) for share in one["traffic"]] == [(1, 80), (2, 20)]
    assert [revision["digest"] for revision in one["revisions"]] == ["a" * 64, "c" * 64]
    assert json.dumps(facts)
    with pytest.raises(UsageError, match="There are: churn"):
        engine(cluster, tmp_path).status("churm")


def test_of_two_deploys_one_wins_and_the_other_says_so(cluster: Cluster, knative: Controllers) -> None:
    deploy(cluster, "a")
    knative.holds = True
    raised: list[CommandError] = []

    def first() -> None:
        try:
            deploy(Cluster(None, cluster.namespace), "c")
        except CommandError as error:
            raised.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    service = cluster.get("Service", "churn")
    assert service is not None
    while cluster.get("Service", "churn")["metadata"]["generation"] == service["metadata"]["generation"]:  # type: ignore[index]
        pass
    threading.Timer(0.5, lambda: setattr(knative, "holds", False)).start()
    deploy(cluster, "d")
    thread.join()
    assert [error.code for error in raised] == ["overtaken"]
    assert "that one wins" in raised[0].message
    assert set(traffic(cluster).values()) == {100}
    assert deploy(cluster, "d")["unchanged"]


def test_a_deploy_that_was_killed_is_completed_by_the_next(cluster: Cluster, knative: Controllers) -> None:
    deploy(cluster, "a")
    knative.holds = True
    with pytest.raises(RuntimeError):  # nothing of what follows is done, as if the process had been killed
        Rollout(cluster, order(cluster, "c"), Manner(wait_s=30.0), Steps(_killed)).run()
    assert traffic(cluster) == {"churn-00001": 100}
    knative.holds = False
    assert deploy(cluster, "c")["revision"] == "churn-00002"
    assert traffic(cluster) == {"churn-00002": 100}


def _killed(event: Object) -> None:
    if event["stage"] == "ready":
        raise RuntimeError


def test_a_refusal_at_the_look_before_changes_nothing(cluster: Cluster) -> None:
    refused = order(cluster, "a")
    strange = replace(refused, manifest=replace_scale(refused.manifest, 0.0))
    with pytest.raises(CommandError):
        Rollout(cluster, strange, Manner(wait_s=5.0), Steps(lambda _: None)).run()
    assert there(cluster) == []


def replace_scale(manifest: Any, target: float) -> Any:
    return msgspec.structs.replace(
        manifest, scale=msgspec.structs.replace(manifest.scale, target_concurrency=int(target))
    )


@pytest.mark.usefixtures("knative")
def test_what_others_changed_is_not_overwritten_unless_asked(cluster: Cluster, config: Path) -> None:
    deploy(cluster, "a")
    path = f"/apis/serving.knative.dev/v1/namespaces/{cluster.namespace}/services/churn?fieldManager=kubectl-edit"
    edit = {"spec": {"template": {"spec": {"timeoutSeconds": 17}}}}
    ask(port_of(config), "PATCH", path, edit, "application/merge-patch+json")
    with pytest.raises(ClusterError, match="was changed by kubectl-edit") as caught:
        deploy(cluster, "c")
    assert ("timeoutSeconds" in caught.value.message, "--force" in caught.value.message) == (True, True)
    assert Rollout(cluster, order(cluster, "c"), Manner(wait_s=30.0, force=True), Steps(lambda _: None)).run()


def test_a_service_that_is_not_ours_is_left_alone(cluster: Cluster) -> None:
    made = order(cluster, "a").objects([{"latestRevision": True, "percent": 100}])[-1]
    made["metadata"]["labels"].pop("app.kubernetes.io/managed-by")
    cluster.apply(made)
    with pytest.raises(ClusterError, match="Sunup did not make"):
        deploy(cluster, "a")


def test_a_namespace_that_is_not_there_is_said(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match="There is no namespace nowhere"):
        deploy(Cluster(None, "nowhere"), "a")
    assert there(cluster) == []


@pytest.mark.usefixtures("knative")
def test_the_roles_right_is_enough_and_no_other_is_there(
    cluster: Cluster, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, port = "/apis/rbac.authorization.k8s.io/v1", port_of(config)
    for one in yaml.safe_load_all(DEPLOYER.read_text()):
        if one["kind"] in ("Role", "RoleBinding"):
            if one["kind"] == "RoleBinding":
                one["subjects"][0]["namespace"] = cluster.namespace
            ask(port, "POST", f"{base}/namespaces/{cluster.namespace}/{one['kind'].lower()}s", one)
        else:
            ask(port, "POST", f"/api/v1/namespaces/{cluster.namespace}/serviceaccounts", one)
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    path = f"/api/v1/namespaces/{cluster.namespace}/serviceaccounts/sunup-deployer/token"
    token = json.loads(ask(port, "POST", path, asked))["status"]["token"]
    (tmp_path / "pki").symlink_to(config.parent / "pki")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "kubeconfig", port, token)))
    restricted = Cluster(None, cluster.namespace)
    commands = engine(restricted, tmp_path)
    deploy(restricted, "a", stream=True)
    deploy(restricted, "c", stream=True, canary=20)
    commands.promote("fraud")
    commands.rollback("fraud", None)
    commands.pause("fraud", None)
    assert commands.status("fraud")["functions"]
    assert list(commands.logs("fraud", 10, follow=False)) == []
    for revision in restricted.select("Revision", {"sunup.dev/function": "fraud"}):  # nobody collects those here
        restricted.delete("Revision", revision["metadata"]["name"])
    commands.remove("fraud")
    with pytest.raises(ClusterError, match=r"may not list pods in namespace default.*deployer\.yaml"):
        Cluster(None, "default").select("Pod")
    with pytest.raises(ClusterError, match="may not list networkpolicies"):
        restricted.select("NetworkPolicy")


def test_no_cluster_no_context_no_right(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ClusterError, match="There is no kubeconfig"):
        Cluster(None, None).version()
    monkeypatch.setenv("KUBECONFIG", str(config))
    with pytest.raises(ClusterError, match=r"no context 'prod'.*one of: test"):
        Cluster("prod", None).version()
    (tmp_path / "pki").symlink_to(config.parent / "pki")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "stranger", port_of(config), "nobody")))
    with pytest.raises(ClusterError, match="does not know who asks") as caught:
        Cluster(None, "default").select("Pod")
    assert caught.value.code == "cluster_unauthorized"
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "away", 1, "nobody")))
    with pytest.raises(ClusterError, match="does not answer") as caught:
        Cluster(None, "default").select("Pod")
    assert caught.value.code == "cluster_unreachable"
