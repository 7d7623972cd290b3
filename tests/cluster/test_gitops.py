"""What `platform render` writes is all a cluster needs: applied by kubectl it answers, and again it changes nothing."""

from pathlib import Path

import pytest
from tests.cluster.functions import SCORE, Platform, bundle, push_runtime
from tests.cluster.running import Cluster

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def platform(cluster: Cluster, namespace: str, tmp_path: Path) -> Platform:
    (project := tmp_path / "p").mkdir()
    (project / "functions").mkdir()
    return Platform(cluster, namespace, project, push_runtime(cluster, project), {})


def applied(platform: Platform, found: Path, out: Path) -> int:
    """Render a bundle into a folder and apply that as any GitOps tool does; how often the Service changed so far."""
    done = platform.run("render", str(found), "--output", str(out))
    assert done.status == 0, done.errors
    platform.cluster.kubectl("apply", "--server-side", "--field-manager=gitops", "-f", str(out))
    platform.cluster.until(
        "it is ready", lambda: platform.cluster.condition("ksvc", "score", platform.namespace) == "True"
    )
    service = platform.cluster.read("ksvc", "score", platform.namespace)
    assert service is not None
    return int(service["metadata"]["generation"])


def test_a_folder_of_yaml_becomes_a_function(platform: Platform, tmp_path: Path) -> None:
    out = tmp_path / "deploy"
    first = applied(platform, bundle(tmp_path, 1), out)
    answer = platform.call()
    assert answer["predictions"][0]["score"] == pytest.approx(SCORE, abs=1e-5)
    assert answer["revision"] == 1
    assert applied(platform, bundle(tmp_path / "again", 1), out) == first, "the same again changes nothing"
    applied(platform, bundle(tmp_path, 2), out)
    assert platform.call()["revision"] == 2
