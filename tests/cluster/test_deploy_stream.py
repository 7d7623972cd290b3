"""A function with a topic on the test cluster: KEDA scales its workers, a pause holds, a promotion brings it along."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from tests.cluster.functions import RECORD, SCORE, Platform, bundle, platform, runtime
from tests.kafka_fixture import KafkaServer
from tests.topics import KafkaTopics

from sunup.bundle.manifest import Scale, StreamSpec

__all__ = ["platform", "runtime"]

pytestmark = pytest.mark.timeout(600)

RECORDS: Final = 200
WAIT: Final = 180.0  # KEDA looks every 2 s, a pod starts in one, an idle one goes after 6: on a busy machine


class Stream:
    """One topic, its outputs, and a function that reads it."""

    def __init__(self, platform: Platform, kafka: KafkaServer, folder: Path) -> None:
        self.name = platform.namespace
        self.topics = KafkaTopics(kafka)
        self.platform = platform
        self._folder = folder
        for topic in (self.name, f"{self.name}-out", f"{self.name}-dead"):
            self.topics.create(topic, 2)
        self.sent = 0

    def bundle(self, version: int) -> Path:
        output, dead, group = (f"{self.name}-{kind}" for kind in ("out", "dead", "group"))
        stream = StreamSpec("env:KAFKA_BOOTSTRAP", self.name, output, dead, group, max_workers=2)
        return bundle(self._folder, version, stream=stream, scale=Scale(max=2, idle_s=6.0))

    def send(self, count: int = RECORDS) -> None:
        numbers = range(self.sent, self.sent + count)
        self.topics.send(self.name, [(b"%d" % n, json.dumps(RECORD).encode(), []) for n in numbers])
        self.sent += count

    def scored(self) -> list[dict[str, Any]]:
        return [json.loads(record.value or b"") for record in self.topics.read(f"{self.name}-out")]

    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = self.platform.facts("status", "score")["functions"][0]["stream"]
        return found

    def until_scored(self) -> None:
        self.platform.cluster.until("all are scored", lambda: len(self.scored()) >= self.sent, WAIT)
        assert len(self.scored()) == self.sent


@pytest.fixture
def stream(platform: Platform, kafka: KafkaServer, tmp_path: Path) -> Stream:
    object.__setattr__(platform, "more", {"KAFKA_BOOTSTRAP": kafka.servers})
    return Stream(platform, kafka, tmp_path)


def test_from_zero_to_scores_and_to_zero_again(stream: Stream) -> None:
    stream.platform.deploy(stream.bundle(1))
    assert set(stream.topics.positions(f"{stream.name}-group", stream.name)) == {0, 1}
    stream.send()
    stream.until_scored()
    said = stream.scored()
    assert {round(one["predictions"][0]["score"] if "predictions" in one else one["score"], 5) for one in said} == {
        round(float(SCORE), 5)
    }
    stream.platform.cluster.until("at zero", lambda: stream.facts()["workers"] == 0, WAIT)
    assert stream.facts()["state"] == "cold"
    stream.send()
    stream.until_scored()


def test_brokers_that_pods_do_not_reach(stream: Stream) -> None:
    platform = replace(stream.platform, more={"KAFKA_BOOTSTRAP": f"{stream.platform.cluster.address}:1"})
    done = platform.run("deploy", str(stream.bundle(1)))
    assert (done.status, "KEDA cannot scale its stream" in done.errors) == (1, True), done.errors
    assert "cannot be asked from here" in done.errors
    assert "Nothing of it is left" in done.errors
    kinds = "ksvc,deployment,scaledobject,secret,configmap"
    assert platform.cluster.list(kinds, platform.namespace, sunup_dev__function="score") == []


def test_a_pause_holds_and_a_promotion_brings_the_stream_along(stream: Stream) -> None:
    platform = stream.platform
    platform.deploy(stream.bundle(1))
    platform.facts("stream", "pause", "score")
    platform.deploy(stream.bundle(2), "--canary", "20")
    first = digest(platform)
    assert platform.facts("promote", "score")["revision"] == 2
    assert digest(platform) != first
    stream.send()
    facts = stream.facts()
    assert (facts["state"], facts["workers"], stream.scored()) == ("paused", 0, [])
    platform.facts("stream", "resume", "score")
    stream.until_scored()
    assert platform.facts("rollback", "score")["revision"] == 1
    assert digest(platform) == first
    stream.send()
    stream.until_scored()
    platform.facts("remove", "score")
    kinds = "ksvc,deployment,scaledobject,secret,configmap,pod"
    assert platform.cluster.list(kinds, platform.namespace, sunup_dev__function="score") == []


def digest(platform: Platform) -> str:
    found = platform.cluster.read("deployment", "score-stream", platform.namespace)
    assert found is not None
    return str(found["spec"]["template"]["metadata"]["labels"]["sunup.dev/digest"])
