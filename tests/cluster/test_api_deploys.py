"""Deploys against a real API server: what is applied, what is left when something fails, what serves."""

from pathlib import Path

import pytest
from tests.cluster.api_deploys import cluster, config, deploy, engine, knative, there, traffic, versions
from tests.cluster.knative_double import Controllers

from sunup.engine.kubernetes import streams
from sunup.engine.kubernetes.cluster.cluster import Cluster
from sunup.errors import ClusterError, UsageError

__all__ = ["cluster", "config", "knative"]


@pytest.mark.usefixtures("knative")
def test_a_deploy_names_its_revision_and_another_of_the_same_changes_nothing(cluster: Cluster) -> None:
    assert deploy(cluster, "a")["unchanged"] is False
    assert traffic(cluster) == {"churn-00001": 100}
    before = versions(cluster)
    done = deploy(cluster, "a")
    assert (done["unchanged"], done["revision"]) == (True, "churn-00001")
    assert versions(cluster) == before
    assert deploy(cluster, "c")["revision"] == "churn-00002"
    assert traffic(cluster) == {"churn-00002": 100}


@pytest.mark.usefixtures("knative")
def test_old_revisions_go_and_those_that_serve_stay(cluster: Cluster, tmp_path: Path) -> None:
    for digest in "acdef01234567":
        deploy(cluster, digest)
    there = [one["metadata"]["name"] for one in cluster.select("Revision")]
    assert there == [f"churn-{number:05}" for number in range(4, 14)]
    assert engine(cluster, tmp_path).rollback("churn", None)["revision"] == 12


@pytest.mark.usefixtures("knative")
@pytest.mark.parametrize(
    ("digest", "words"),
    [("b", "differs by 0.5"), ("9", "cannot fetch the image"), ("8", "ValueError: no such thing")],
)
def test_a_first_deploy_that_fails_leaves_nothing(cluster: Cluster, digest: str, words: str) -> None:
    with pytest.raises(ClusterError, match="Nothing of it is left on the cluster") as caught:
        deploy(cluster, digest, stream=True)
    assert words in caught.value.message
    assert [one for one in there(cluster) if not one.startswith("Revision")] == []  # nobody collects those here


@pytest.mark.usefixtures("knative")
def test_a_later_one_that_fails_leaves_the_old_one_with_all_calls(cluster: Cluster) -> None:
    deploy(cluster, "a", stream=True)
    stream = cluster.get("Deployment", "fraud-stream")
    with pytest.raises(ClusterError, match="Revision 1 serves on") as caught:
        deploy(cluster, "b", stream=True, features_url="redis://elsewhere:6379/0")
    assert caught.value.code == "proof_failed"
    assert traffic(cluster, "fraud") == {"fraud-00001": 100}
    service = cluster.get("Service", "fraud")
    assert service is not None
    assert service["spec"]["template"]["metadata"]["labels"]["sunup.dev/digest"] == "a" * 63
    assert cluster.get("Revision", "fraud-00002") is None
    assert len(cluster.select("Secret")) == 1
    assert cluster.get("Deployment", "fraud-stream") == stream
    assert deploy(cluster, "c", stream=True)["unchanged"] is False


@pytest.mark.usefixtures("knative")
def test_a_canary_is_promoted_or_taken_back(cluster: Cluster, tmp_path: Path) -> None:
    commands = engine(cluster, tmp_path)
    with pytest.raises(UsageError, match="nothing of it serves yet"):
        deploy(cluster, "a", canary=20)
    deploy(cluster, "a")
    deploy(cluster, "c", canary=20)
    assert traffic(cluster) == {"churn-00001": 80, "churn-00002": 20}
    assert deploy(cluster, "c", canary=20)["unchanged"]
    deploy(cluster, "c", canary=50)
    assert traffic(cluster) == {"churn-00001": 50, "churn-00002": 50}
    assert commands.promote("churn")["revision"] == 2
    assert traffic(cluster) == {"churn-00002": 100}
    with pytest.raises(UsageError, match="tries no revision out"):
        commands.promote("churn")
    assert commands.rollback("churn", None)["revision"] == 1
    with pytest.raises(UsageError, match="no revision before"):
        commands.rollback("churn", None)
    deploy(cluster, "d", canary=10)
    assert commands.rollback("churn", None)["revision"] == 1
    assert traffic(cluster) == {"churn-00001": 100}
    assert commands.rollback("churn", 2)["digest"] == "c" * 64


@pytest.mark.usefixtures("knative")
def test_the_stream_follows_the_revision_that_has_all_calls(cluster: Cluster, tmp_path: Path) -> None:
    commands = engine(cluster, tmp_path)

    def digest() -> str:
        found = cluster.get("Deployment", "fraud-stream")
        assert found is not None
        return str(found["metadata"]["labels"]["sunup.dev/digest"][0])

    deploy(cluster, "a", stream=True)
    deploy(cluster, "c", stream=True, canary=20)
    assert digest() == "a"
    commands.promote("fraud")
    assert digest() == "c"
    commands.rollback("fraud", None)
    assert digest() == "a"
    assert commands.pause("fraud", None)["paused"] == "all"
    deploy(cluster, "d", stream=True)
    facts = commands.status("fraud")["functions"][0]
    assert (facts["stream"]["state"], facts["stream"]["paused"]) == ("paused", "all")
    assert commands.resume("fraud", None)["paused"] == []
    with pytest.raises(UsageError, match="paused whole"):
        commands.pause("fraud", [1])


def test_a_pause_that_keda_does_not_see_is_said_and_stays(
    cluster: Cluster, knative: Controllers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(cluster, "a", stream=True)
    knative.holds = True
    monkeypatch.setattr(streams, "PAUSE_SECONDS_MAX", 1.0)
    with pytest.raises(ClusterError, match="KEDA has not seen it"):
        engine(cluster, tmp_path).pause("fraud", None)
    assert [streams.is_paused(one) for one in cluster.select("ScaledObject")] == [True]
