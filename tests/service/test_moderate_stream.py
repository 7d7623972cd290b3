"""`moderate` on a topic: every picture is scored once as a call scores it, bad ones are set aside with the reason."""

import json
from typing import Any

import pytest
from tests.engine_fixture import until
from tests.moderate_fixture import Served
from tests.service.test_cli import platform
from tests.topics import EmbeddedTopics, KafkaTopics, Topics, sources

NAMES = ("pictures", "moderate-scores", "moderate-dead")

pytestmark = pytest.mark.timeout(600)  # the first test waits for a training


@pytest.fixture(params=["embedded", "kafka"])
def topics(request: pytest.FixtureRequest, moderate: Served) -> Topics:
    """The function's topics, empty."""
    root, environment = moderate.engine.project.root, {"KAFKA_BOOTSTRAP": ""}
    made: Topics = EmbeddedTopics(moderate.engine.project.embedded_log)
    if request.param == "kafka":
        made = KafkaTopics(request.getfixturevalue("kafka"))
        environment["KAFKA_BOOTSTRAP"] = made.broker
        for name in NAMES:
            made.create(name)
    assert platform(root, "deploy", "moderate", "--json", **environment).json["stream"] == made.broker
    return made


def test_a_topic_of_pictures(moderate: Served, topics: Topics, moderate_pictures: list[bytes]) -> None:
    kinds = ("image/jpeg", "image/png", "image/webp")
    entries: list[Any] = [
        (str(at).encode(), picture, [("content-type", kinds[at % 3].encode())] if at % 2 else [])
        for at, picture in enumerate(moderate_pictures * 4)
    ]
    bad: list[Any] = [
        (b"bad", moderate_pictures[0][:-300], []),
        (b"bad", b"hello", []),
        (b"bad", moderate_pictures[0], [("content-type", b"image/png")]),
        (b"bad", b"\xff\xd8\xff" + bytes(900_000), []),
    ]
    topics.send("pictures", [*entries, *bad])
    until(lambda: len(topics.read("moderate-scores")) >= len(entries), "every picture to be scored", 60)
    until(lambda: len(topics.read("moderate-dead")) >= len(bad), "every bad one to be set aside", 60)
    sent = {f"{r.topic}-{r.partition}-{r.offset}": r.value or b"" for r in topics.read("pictures")}
    outputs = topics.read("moderate-scores")
    moderate.check([json.loads(r.value or b"") for r in outputs], [sent[id] for id in sources(outputs)])
    assert len(set(sources(outputs))) == len(entries)
    codes = sorted(dict(r.headers)["sunup_error_code"].decode() for r in topics.read("moderate-dead"))
    assert codes == ["image_type_mismatch", "invalid_image", "invalid_image", "unknown_image"]
