"""The test cluster: one for all tests of this folder, started if none runs, and ended if it was started here."""

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.running import Cluster, network, script
from tests.kafka_fixture import KafkaServer
from tests.redis_fixture import RedisServer

WITHOUT = {3: "cannot run here", 4: "is not built"}  # exit statuses of build.sh
HOW = "make test-cluster builds it first, as root, with Go 1.26.6 or newer (platform/docs/test-cluster.md)"
STORY = pytest.StashKey[str]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """How long the cluster took to come up, stage by stage."""
    if story := config.stash.get(STORY, ""):
        terminalreporter.section("test cluster")
        terminalreporter.write_line(story)


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A Kubernetes of one node with Knative, Kourier and KEDA. This thread is in its network namespace from now on."""
    need_cluster()
    up = script("up.sh")
    if up.returncode:
        pytest.fail(f"the test cluster does not come up: {up.stderr}", pytrace=False)
    running = Cluster.of(up.stdout, up.stderr.strip())
    request.config.stash[STORY] = running.story
    with network(Path(running.netns)), pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", running.kubeconfig)
        yield running
    if running.started:
        down = script("down.sh")
        assert down.returncode == 0, down.stderr


def need_cluster() -> None:
    """Skip where the cluster cannot run or is not built yet, and say how; in CI that is a failure."""
    if os.geteuid() != 0 or shutil.which("go", path=f"{os.environ['PATH']}:/usr/local/go/bin") is None:
        missing, reason = 3, "it needs root and Go"
    else:
        found = script("build.sh", "--cached")
        missing, reason = found.returncode, found.stderr.strip()
    if not missing:
        return
    words = f"the test cluster {WITHOUT.get(missing, 'cannot be built')}: {reason}; {HOW}"
    if os.environ.get("CI") == "true":
        pytest.fail(words, pytrace=False)
    pytest.skip(words)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of Kubernetes for one test. What is left in it goes with it."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def kafka(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A broker that pods reach, too, shared by the session: use topic and group names of your own."""
    server = KafkaServer(tmp_path_factory.mktemp("kafka"), cluster.address)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def redis_url(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a Redis that pods reach, too, shared by the session: use keys (a Feast project) of your own."""
    bound = ("--bind", "127.0.0.1", cluster.address, "--protected-mode", "no")
    server = RedisServer(tmp_path_factory.mktemp("redis"), *bound)
    server.start()
    yield f"redis://{cluster.address}:{server.port}/0"
    server.stop()
