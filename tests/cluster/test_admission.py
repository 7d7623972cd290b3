"""What we say of objects is what a real API server with Knative's and KEDA's webhooks says: of all that is rendered,
and of each mistake. Every request is a dry run, but for the service account: Knative has a pod tried with it."""

import copy
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import pytest
from tests.cluster.running import Cluster as Running
from tests.cluster.running import features
from tests.kubernetes_cases import CASES, STOCK, Case
from tests.kubernetes_objects import ALL

from sunup.engine.kubernetes.check.check import findings
from sunup.engine.kubernetes.check.facts import IMAGE_VOLUMES, ClusterFacts, way
from sunup.engine.kubernetes.cluster.cluster import Cluster
from sunup.engine.kubernetes.cluster.facts import read_facts
from sunup.engine.kubernetes.render.target import Object
from sunup.errors import ClusterError

SECRETS = frozenset({"shop-keys", "registry-login"})


@pytest.fixture(scope="module")
def api(cluster: Running) -> Iterator[Cluster]:
    """The API, in a namespace of these tests' own where pods may be tried."""
    name = f"admission-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    made = Cluster(None, name)
    made.apply(moved(ALL["bare"]().objects, name)[0])
    yield made
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def facts(api: Cluster) -> ClusterFacts:
    """What the cluster says of itself, and Secrets that others would have made."""
    return replace(read_facts(api), secrets=SECRETS)


def test_the_cluster_is_as_knative_makes_it(facts: ClusterFacts) -> None:
    assert facts.has_knative
    assert facts.has_keda
    assert facts.kubernetes >= (1, 35)
    # What the sentences about a stock cluster depend on.
    for found, stock in ((facts.autoscaler, "max-scale-limit"), (facts.defaults, "max-revision-timeout-seconds")):
        assert stock not in found
    assert not any(value == "enabled" for key, value in facts.features.items() if key != IMAGE_VOLUMES)


@pytest.mark.parametrize("name", ALL)
def test_what_is_rendered_is_taken_and_left_alone(name: str, api: Cluster, facts: ClusterFacts) -> None:
    objects = moved(ALL[name]().objects, api.namespace)
    problems = [one for one in findings(objects, facts) if "max-revision" not in one]
    found = dict(refusals(api, objects))
    assert set(found) == {"Service"} if problems else found == {}
    for one in objects:
        if one["kind"] not in found:
            taken = api.apply(one, dry_run=True)
            assert holds(taken, one), f"{one['kind']} {one['metadata']['name']} is changed on its way in"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_mistake_is_judged_as_the_cluster_judges_it(case: Case, api: Cluster, facts: ClusterFacts) -> None:
    objects = moved(case.objects, api.namespace)
    assert findings(objects, facts), case.sentence
    found = dict(refusals(api, objects))
    if case.base == "private" and IMAGE_VOLUMES not in facts.features:
        assert "Service" in found
    else:
        assert set(found) == ({case.refuses} if case.refuses else set()), found


@pytest.mark.parametrize("name", ALL)
def test_pods_are_allowed_where_kubernetes_restricts_them_most(name: str, cluster: Running, namespace: str) -> None:
    """kubernetes.io/docs/concepts/security/pod-security-standards, restricted."""
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    api = Cluster(None, namespace)
    api.apply(moved(ALL["bare"]().objects, namespace)[0])
    for one in moved(ALL[name]().objects, namespace):
        if "template" in one.get("spec", {}):
            spec = copy.deepcopy(one["spec"]["template"]["spec"])
            for key in ("containerConcurrency", "timeoutSeconds"):
                spec.pop(key, None)
            for probe in ("readinessProbe", "livenessProbe"):
                spec["containers"][0][probe]["httpGet"].setdefault("port", 8080)  # Knative's part
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "tried", "namespace": namespace}}
            assert api.apply({**pod, "spec": spec}, dry_run=True)["kind"] == "Pod"


def test_image_volumes_are_taken_where_they_are_enabled(api: Cluster, cluster: Running) -> None:
    with features(cluster, **{IMAGE_VOLUMES: "enabled"}):
        facts = replace(read_facts(api), secrets=SECRETS)
        assert way(facts) == "volume"
        for name in ("fraud", "private"):
            objects = moved(ALL[name]().objects, api.namespace)
            assert findings(objects, facts) == []
            cluster.until("Knative's webhook heard of it", partial(are_taken, api, objects))


def test_a_stock_cluster_is_known(facts: ClusterFacts) -> None:
    """The facts that unit tests take for those of a stock cluster say the same of every mistake."""
    for case in CASES:
        said = [one for one in findings(case.objects, replace(STOCK, secrets=SECRETS)) if IMAGE_VOLUMES not in one]
        assert [one for one in findings(case.objects, facts) if IMAGE_VOLUMES not in one] == said


def refusals(api: Cluster, objects: Sequence[Object]) -> Iterator[tuple[str, str]]:
    """The kinds of what is refused, and why."""
    for one in objects:
        try:
            api.apply(one, dry_run=True, force=True)
        except ClusterError as error:
            yield one["kind"], error.message


def are_taken(api: Cluster, objects: Sequence[Object]) -> bool:
    """Whether nothing of it is refused."""
    return not dict(refusals(api, objects))


def moved(objects: Sequence[Object], namespace: str) -> list[Object]:
    """The same in another namespace; what was in a third one stays there."""
    made = copy.deepcopy(list(objects))
    for one in made:
        if one["metadata"]["namespace"] in ("shop", "default"):
            one["metadata"]["namespace"] = namespace
    return made


def holds(taken: object, given: object) -> bool:
    """Whether what is there has all that was given, with the same values."""
    if isinstance(given, dict):
        return isinstance(taken, dict) and all(key in taken and holds(taken[key], given[key]) for key in given)
    if isinstance(given, list):
        same = isinstance(taken, list) and len(taken) == len(given)
        return same and all(map(holds, taken, given))  # type: ignore[call-overload]
    return taken == given
