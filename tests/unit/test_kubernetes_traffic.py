"""Who gets calls: what a Service says, what it is to say next, and which revision a roll back goes to."""

from typing import Any

import pytest

from sunup.engine.kubernetes.rollout.objects import (
    clean,
    differences,
    made_of,
    outdated,
    secrets_in,
    setting,
    template_of,
)
from sunup.engine.kubernetes.rollout.traffic import (
    SERVED,
    before,
    canary,
    held,
    in_effect,
    is_as,
    number,
    serves,
    shares,
    split,
    stable,
    steady,
)
from sunup.errors import UsageError

Object = dict[str, Any]
READY = {"type": "Ready", "status": "True"}


def service(*traffic: Object, latest: str = "fraud-00002", history: str = "") -> Object:
    made: Object = {"name": "fraud", "generation": 4, "annotations": {SERVED: history} if history else {}}
    status = {"latestReadyRevisionName": latest, "observedGeneration": 4, "conditions": [READY]}
    return {"kind": "Service", "metadata": made, "spec": {"traffic": list(traffic)}, "status": status}


def revision(name: str, *, is_ready: bool = True) -> Object:
    labels = {"serving.knative.dev/configurationGeneration": str(number(name)), "sunup.dev/function": "fraud"}
    status = {"conditions": [{"type": "Ready", "status": "True" if is_ready else "False"}]}
    spec = {"containers": [{"image": "a", "env": [{"name": "SUNUP_DIGEST", "value": "d"}]}]}
    return {"kind": "Revision", "metadata": {"name": name, "labels": labels}, "spec": spec, "status": status}


ALL_TO_LATEST = {"latestRevision": True, "percent": 100}
ALL_TO_FIRST = {"revisionName": "fraud-00001", "latestRevision": False, "percent": 100}
SPLIT = [
    {"revisionName": "fraud-00001", "percent": 80, "tag": "stable"},
    {"revisionName": "fraud-00002", "percent": 20, "tag": "canary"},
]


def test_the_first_one_ready_gets_calls_where_nobody_serves() -> None:
    assert held(None) == held(service(ALL_TO_LATEST, latest="")) == [{"latestRevision": True, "percent": 100}]
    assert stable(None) == ""


def test_while_a_revision_gets_ready_the_others_are_named() -> None:
    assert held(service(ALL_TO_LATEST)) == steady("fraud-00002")
    assert held(service(*SPLIT)) == SPLIT
    assert is_as(service(ALL_TO_FIRST), steady("fraud-00001"))
    assert not is_as(service(ALL_TO_LATEST), steady("fraud-00002"))


def test_a_canary_gets_its_share_and_everybody_else_the_rest() -> None:
    assert split(service(ALL_TO_FIRST), "fraud-00002", 20) == SPLIT
    assert split(service(*SPLIT), "fraud-00003", 5)[0] == {
        "revisionName": "fraud-00001",
        "percent": 95,
        "tag": "stable",
    }
    found = canary(service(*SPLIT))
    assert found is not None
    assert (found.revision, found.percent, stable(service(*SPLIT))) == ("fraud-00002", 20, "fraud-00001")
    assert canary(service(ALL_TO_FIRST)) is None


@pytest.mark.parametrize("now", [None, service(ALL_TO_LATEST, latest=""), service(ALL_TO_FIRST)])
def test_a_canary_needs_another_one_that_serves(now: Object | None) -> None:
    with pytest.raises(UsageError, match="--canary shares calls"):
        split(now, "fraud-00001", 20)


def test_the_gateway_knows_when_the_status_says_so_of_the_last_change() -> None:
    made = service(*SPLIT)
    assert not in_effect(made, SPLIT)
    made["status"]["traffic"] = [{**one, "latestRevision": False} for one in SPLIT]
    assert in_effect(made, SPLIT)
    made["metadata"]["generation"] = 5
    assert not in_effect(made, SPLIT)


def test_history_is_that_of_who_had_all_calls() -> None:
    first = service(ALL_TO_FIRST, history="fraud-00001")
    assert serves(first, "fraud-00003") == "fraud-00001 fraud-00003"
    third = service(steady("fraud-00003")[0], history="fraud-00001 fraud-00003")
    assert serves(third, "fraud-00001") == "fraud-00001 fraud-00003"
    back = service(ALL_TO_FIRST, history="fraud-00001 fraud-00003")
    assert serves(back, "fraud-00005") == "fraud-00001 fraud-00005"
    assert serves(service(ALL_TO_FIRST), "fraud-00002") == "fraud-00001 fraud-00002"
    assert len(serves(service(ALL_TO_FIRST, history=" ".join(f"r-{n:05}" for n in range(30))), "n").split()) == 10


def test_a_roll_back_goes_to_who_had_all_calls_before() -> None:
    there = [revision("fraud-00001"), revision("fraud-00002", is_ready=False), revision("fraud-00003")]
    now = service(steady("fraud-00003")[0], history="fraud-00001 fraud-00003")
    assert before(now, there, None) == "fraud-00001"
    assert before(now, there, 1) == "fraud-00001"
    assert before(service(*SPLIT), there, None) == "fraud-00001"
    with pytest.raises(UsageError, match=r"no revision 2 that was ever ready\. There are: 1, 3"):
        before(now, there, 2)
    with pytest.raises(UsageError, match="no revision before the one that serves"):
        before(service(ALL_TO_FIRST, history="fraud-00001"), there, None)


def test_a_latest_revision_is_named_by_the_status() -> None:
    assert [one.revision for one in shares(service(ALL_TO_LATEST))] == ["fraud-00002"]


# --- Objects beside each other ---------------------------------------------------------------------------------------
def test_what_servers_write_is_no_difference() -> None:
    mine: Object = {"kind": "Deployment", "metadata": {"name": "a", "labels": {"x": "1"}}, "spec": {"replicas": 1}}
    theirs: Object = {
        **mine,
        "metadata": {
            **mine["metadata"], "uid": "u", "generation": 3, "resourceVersion": "9",
            "annotations": {"deployment.kubernetes.io/revision": "2"},
        },
        "status": {"replicas": 1},
    }  # fmt: skip
    assert differences(theirs, mine) == ""
    assert "-  replicas: 1\n+  replicas: 2" in differences(theirs, {**mine, "spec": {"replicas": 2}})


def test_a_difference_shows_no_secret() -> None:
    made = {"kind": "Secret", "metadata": {"name": "a"}, "data": {"settings.json": "aGVsbG8="}}
    said = differences(None, made)
    assert "aGVsbG8=" not in said
    assert "sha256" in said
    assert (
        differences(made, {"kind": "Secret", "metadata": {"name": "a"}, "stringData": {"settings.json": "hello"}}) == ""
    )


def test_a_revision_is_known_by_what_it_was_made_of() -> None:
    made = revision("fraud-00002")
    template = template_of(made)
    assert template["metadata"] == {"labels": {"sunup.dev/function": "fraud"}}
    assert made_of(made, template)
    assert not made_of(made, {**template, "spec": {"containers": [{"image": "b", "env": []}]}})
    assert setting(made["spec"], "SUNUP_DIGEST") == "d"
    assert clean(made)["metadata"]["name"] == "fraud-00002"


def test_secrets_are_found_wherever_they_are_named() -> None:
    spec = {
        "volumes": [{"secret": {"secretName": "a"}}],
        "containers": [
            {"envFrom": [{"secretRef": {"name": "b"}}], "env": [{"valueFrom": {"secretKeyRef": {"name": "c"}}}]}
        ],
        "imagePullSecrets": [{"name": "d"}],
        "secretTargetRef": [{"name": "e", "parameter": "ca"}],
    }
    assert secrets_in(spec) == {"a", "b", "c", "d", "e"}


def test_old_revisions_go_but_for_those_that_are_needed() -> None:
    there = [revision(f"fraud-{n:05}") for n in range(1, 6)]
    assert outdated(there, {"fraud-00001"}, 2) == ["fraud-00003", "fraud-00002"]
