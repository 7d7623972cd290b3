"""A deploy that changes what speaks to Kafka, while records come."""

import json
import threading
from collections import Counter
from typing import Any

import pytest
from tests.engine_fixture import Engine, until
from tests.kafka_fixture import KafkaServer
from tests.service.test_cli import platform
from tests.topics import KafkaTopics, Scored, sources

from sunup.settings import CONFLUENT, KAFKA_PYTHON, STREAM_CLIENT

RECORDS = 12_000
pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("turns", [(KAFKA_PYTHON, CONFLUENT, KAFKA_PYTHON)], ids=["there and back"])
def test_a_deploy_that_changes_the_client_loses_and_doubles_nothing(
    engine: Engine, kafka: KafkaServer, turns: tuple[str, ...]
) -> None:
    scored = Scored(engine, KafkaTopics(kafka))
    scored.create()

    def deploy(factor: float, client: str) -> None:
        more: dict[str, Any] = {"stream": scored.stream, "scale": scored.scale, "settings": {STREAM_CLIENT: client}}
        engine.serve(scored.name, factor, **more)
        shown = platform(engine.project.root, "stream", "status", scored.name).out
        assert ["client", client] in [line.split() for line in shown.splitlines()]

    deploy(1.0, turns[0])
    stop = threading.Event()

    def write() -> None:
        while scored.sent < RECORDS:
            scored.send(range(scored.sent, scored.sent + 200))
            stop.wait(0.1)

    writing = threading.Thread(target=write)
    writing.start()
    try:
        with scored.topics.counting(scored.stream.output) as count:
            for factor, client in zip((2.0, 3.0), turns[1:], strict=True):
                before = count()
                until(lambda before=before: count() > before + 200, "records are scored", 60.0)  # type: ignore[misc]
                deploy(factor, client)
                before = count()
                until(lambda before=before: count() > before + 200, "it goes on", 60.0)  # type: ignore[misc]
    finally:
        stop.set()
        writing.join()
    scored.wait_for_zero(120.0)
    outputs = scored.outputs()
    assert len(outputs) == len(set(sources(outputs))) == RECORDS
    # Of what is said to have been scored by which revision, each is right.
    factors = {b"1": 1.0, b"2": 2.0, b"3": 3.0}
    used = Counter(dict(record.headers)["ce_revision"] for record in outputs)
    assert set(used) == set(factors)
    for record in outputs:
        expected = int(record.key or b"") * factors[dict(record.headers)["ce_revision"]]
        assert json.loads(record.value or b"")["y"] == expected
    assert not scored.dead()
