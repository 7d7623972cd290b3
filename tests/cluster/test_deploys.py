"""`platform deploy --engine kubernetes` on the test cluster: live, tried, promoted, rolled back, removed."""

import http.client
import json
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from tests.cluster.functions import JSON, RECORD, SCORE, Platform, bundle, platform, runtime
from tests.cluster.running import features

__all__ = ["platform", "runtime"]

pytestmark = pytest.mark.timeout(600)

READY_SECONDS_MAX: Final = 60.0
TOLERANCE: Final = 1e-5
PAUSE_SECONDS: Final = 0.01  # between calls of a thread: the node has other work, and no call may be lost, fast or slow


class Load:
    """Calls that go on from four threads until it is left; how each was answered."""

    def __init__(self, platform: Platform) -> None:
        self.answers: Counter[str] = Counter()
        self._platform = platform
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(4)]

    def _call(self) -> None:
        gateway = self._platform.cluster.gateway.removeprefix("http://")
        head = {**JSON, "Host": self._platform.host()}
        there = http.client.HTTPConnection(gateway, timeout=60)
        while not self._end.is_set():
            try:
                there.request("POST", "/functions/score", json.dumps(RECORD), head)
                reply = there.getresponse()
                body = reply.read()
                said = str(json.loads(body)["revision"]) if reply.status == 200 else f"status {reply.status}"
            except (OSError, http.client.HTTPException) as error:
                said = f"{type(error).__name__}"
                there.close()
            self.answers[said] += 1
            self._end.wait(PAUSE_SECONDS)
        there.close()

    def since(self) -> Counter[str]:
        """What was answered until now; counting begins again."""
        found, self.answers = self.answers, Counter()
        return found

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


def test_from_a_bundle_to_answers(platform: Platform, tmp_path: Path) -> None:
    found = bundle(tmp_path, 1)
    began = time.monotonic()
    facts = platform.deploy(found)
    assert time.monotonic() - began <= READY_SECONDS_MAX
    assert (facts["function"], facts["revision"], facts["unchanged"], facts["percent"]) == ("score", 1, False, 100)
    assert facts["digest"] == found.name
    assert facts["url"] == f"http://{platform.host()}/functions/score"
    said = platform.call()
    assert (said["revision"], said["model"]) == (1, "score/3")
    assert said["predictions"][0]["score"] == pytest.approx(SCORE, abs=TOLERANCE)
    curl = subprocess.run(["bash", "-c", facts["curl"]], capture_output=True, text=True, check=True)
    assert json.loads(curl.stdout)["function"] == "score"
    called = platform.facts("call", "score", json.dumps(RECORD))
    assert called["predictions"] == said["predictions"]
    one = platform.facts("status", "score")["functions"][0]
    assert (one["state"], one["revision"], one["digest"]) == ("ready", 1, found.name)
    assert [(share["revision"], share["percent"]) for share in one["traffic"]] == [(1, 100)]
    assert {worker["state"] for worker in one["workers"]} == {"ready"}
    lines = platform.run("logs", "score").output.splitlines()
    assert any(json.loads(line)["message"] == "ready" for line in lines)


def test_a_bundle_is_mounted_where_the_cluster_allows_it(platform: Platform, tmp_path: Path) -> None:
    found = bundle(tmp_path, 1)
    flat = platform.deploy(found)
    assert flat["way"] == "flat"
    with features(platform.cluster, **{"kubernetes.podspec-volumes-image": "enabled"}):
        # Knative's webhook hears of it a moment later, and refuses until then.
        platform.cluster.until("it is mounted", lambda: platform.run("deploy", str(found)).status == 0)
        mounted = platform.deploy(found)
        assert (mounted["way"], mounted["revision"], mounted["unchanged"]) == ("volume", 2, True)
        assert platform.call()["predictions"][0]["score"] == pytest.approx(SCORE, abs=TOLERANCE)
        pods = platform.cluster.list("pod", platform.namespace, serving_knative_dev__revision="score-00002")
        assert any("image" in volume for pod in pods for volume in pod["spec"]["volumes"])
        # While it is allowed: every change of a Service has its template judged again.
        assert platform.facts("rollback", "score")["revision"] == 1


def test_a_second_deploy_of_the_same_changes_nothing(platform: Platform, tmp_path: Path) -> None:
    platform.deploy(bundle(tmp_path, 1))
    before = platform.cluster.read("ksvc", "score", platform.namespace)
    assert before is not None
    again = platform.run("deploy", "--dry-run", str(bundle(tmp_path / "again", 1)))
    assert (again.status, "Nothing would change" in again.errors) == (0, True), again.errors
    assert platform.deploy(bundle(tmp_path / "b", 1))["unchanged"] is True
    after = platform.cluster.read("ksvc", "score", platform.namespace)
    assert after is not None
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    dry = platform.run("deploy", "--dry-run", str(bundle(tmp_path, 2)))
    assert dry.status == 0, dry.errors
    assert "kind: Service" in dry.output
    assert "SUNUP_DIGEST" in dry.errors
    assert platform.cluster.read("ksvc", "score", platform.namespace) == after or platform.traffic() == {
        "score-00001": 100
    }


def test_a_canary_gets_its_share(platform: Platform, tmp_path: Path) -> None:
    platform.deploy(bundle(tmp_path, 1))
    facts = platform.deploy(bundle(tmp_path, 2), "--canary", "20")
    assert (facts["percent"], facts["revision"]) == (20, 2)
    assert platform.traffic() == {"score-00001": 80, "score-00002": 20}
    answers = Counter(platform.call()["revision"] for _ in range(200))
    assert set(answers) == {1, 2}
    # Binomial, 200 calls at 0.2: outside of 18 to 64 once in a million runs.
    assert 18 <= answers[2] <= 64, answers
    platform.cluster.until("the tags answer", lambda: platform.call(tag="canary")["revision"] == 2)
    assert platform.call(tag="stable")["revision"] == 1


def test_promote_and_roll_back_lose_no_call(platform: Platform, tmp_path: Path) -> None:
    platform.deploy(bundle(tmp_path, 1))
    platform.deploy(bundle(tmp_path, 2), "--canary", "20")
    with Load(platform) as load:
        platform.cluster.until("calls", lambda: load.answers.total() > 50)
        assert platform.facts("promote", "score")["revision"] == 2
        platform.cluster.until("the new one answers alone", lambda: settled(load, "2"))
        assert platform.facts("rollback", "score")["revision"] == 1
        platform.cluster.until("the old one answers alone", lambda: settled(load, "1"))
        platform.deploy(bundle(tmp_path, 3))
        platform.cluster.until("the third answers alone", lambda: settled(load, "3"))
    assert platform.traffic() == {"score-00003": 100}


def settled(load: Load, revision: str) -> bool:
    """Whether only this revision answered a while; fails when a call was lost on the way."""
    time.sleep(0.5)  # a while of calls, not a wait for something
    found = load.since()
    assert set(found) <= {"1", "2", "3"}, found
    return set(found) == {revision}


def test_a_revision_that_fails_its_proof_is_never_called(platform: Platform, tmp_path: Path) -> None:
    platform.deploy(bundle(tmp_path, 1))
    with Load(platform) as load:
        done = platform.run("deploy", str(bundle(tmp_path, 2, broken=True)))
        assert set(load.since()) == {"1"}
    assert done.status == 1
    assert "failed its self-proof" in done.errors
    assert "difference 0.5" in done.errors
    assert "Revision 1 serves on" in done.errors
    assert platform.traffic() == {"score-00001": 100}
    assert platform.cluster.read("revision", "score-00002", platform.namespace) is None
    assert platform.deploy(bundle(tmp_path, 3))["unchanged"] is False
    assert platform.call()["revision"] == 4


def test_a_first_deploy_that_fails_leaves_nothing(platform: Platform, tmp_path: Path) -> None:
    done = platform.run("deploy", str(bundle(tmp_path, 1, broken=True)))
    assert (done.status, "Nothing of it is left" in done.errors) == (1, True), done.errors
    assert platform.cluster.list("ksvc,secret,configmap", platform.namespace, sunup_dev__function="score") == []


def test_remove_takes_everything(platform: Platform, tmp_path: Path) -> None:
    platform.deploy(bundle(tmp_path, 1))
    platform.deploy(bundle(tmp_path, 1, function="other"))
    platform.facts("remove", "score")
    kinds = "ksvc,revision,secret,configmap,deployment,pod"
    assert platform.cluster.list(kinds, platform.namespace, sunup_dev__function="score") == []
    assert platform.call("other")["function"] == "other"
    again = platform.run("remove", "score")
    assert (again.status, "There are: other" in again.errors) == (2, True), again.errors


def test_logs_follow_pods_that_come(platform: Platform, tmp_path: Path) -> None:
    platform.deploy(bundle(tmp_path, 1))
    process = platform.start("logs", "-f", "score")
    try:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert (first["message"], first["revision"]) == ("ready", 1)
        platform.deploy(bundle(tmp_path, 2))
        revisions: set[Any] = set()
        while 2 not in revisions:
            revisions.add(json.loads(process.stdout.readline()).get("revision"))
    finally:
        process.kill()
        process.communicate()


def test_a_deploy_that_is_killed_is_completed_by_the_next(platform: Platform, tmp_path: Path) -> None:
    platform.deploy(bundle(tmp_path, 1))
    new = bundle(tmp_path, 2)
    process = platform.start("deploy", str(new))
    with _killed_at_the_end(process):
        platform.cluster.until(
            "the new template is there",
            lambda: (platform.cluster.read("ksvc", "score", platform.namespace) or {})["metadata"]["generation"] > 2,
        )
    assert platform.call()["revision"] in (1, 2)
    assert platform.deploy(new)["revision"] == 2
    assert platform.traffic() == {"score-00002": 100}
    assert platform.call()["revision"] == 2


@contextmanager
def _killed_at_the_end(process: "subprocess.Popen[str]") -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()
        process.communicate()


def test_of_two_deploys_at_once_one_wins(platform: Platform, tmp_path: Path) -> None:
    platform.deploy(bundle(tmp_path, 1))
    both = [platform.start("deploy", str(bundle(tmp_path, number)), "--json") for number in (2, 3)]
    ended = [process.communicate(timeout=300) for process in both]
    statuses = [process.returncode for process in both]
    assert statuses.count(0) >= 1, ended
    for status, (_, errors) in zip(statuses, ended, strict=True):
        assert status == 0 or "that one wins" in errors or "Somebody else" in errors, errors
    winner = json.loads(ended[statuses.index(0)][0])
    (share,) = platform.traffic().items()
    assert share[1] == 100
    if statuses.count(0) == 1:
        assert platform.call()["revision"] == winner["revision"]
