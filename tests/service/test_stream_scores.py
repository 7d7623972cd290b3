"""The fraud function on a topic: 20,000 later payments, each scored once, with the scores a call gets."""

import http.client
import json
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.engine_fixture import Engine, until
from tests.fraud_fixture import Trained
from tests.service.test_cli import platform
from tests.topics import EmbeddedTopics, KafkaTopics, Topics, malformed, sources

from functions.fraud.simulate import REQUEST, later

ROWS = 20_000
ROWS_PER_CALL = 50
NAMES = ("transactions", "fraud-scores", "fraud-dead")

pytestmark = pytest.mark.timeout(900)  # the first test waits for a whole training


@pytest.fixture(scope="module", params=["embedded", "kafka"])
def streamed(
    request: pytest.FixtureRequest, trained: Trained, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Engine, Topics]]:
    """The trained project with an engine, the function deployed, its topics empty."""
    root = tmp_path_factory.mktemp(request.param) / "p"
    shutil.copytree(trained.project.root, root, ignore=shutil.ignore_patterns("run", "bundles", "log.db*"))
    declared = root / "functions" / "fraud" / "function.toml"
    # Equality is what is looked for here: no feature may be defaulted because the machine is busy.
    text = declared.read_text().replace("deadline_ms = 20", "deadline_ms = 1000")
    declared.write_text(text.replace('idle = "30s"', 'idle = "2s"'))
    engine = Engine(root)
    engine.up()
    topics: Topics
    environment = {"KAFKA_BOOTSTRAP": ""}
    if request.param == "kafka":
        topics = KafkaTopics(request.getfixturevalue("kafka"))
        environment["KAFKA_BOOTSTRAP"] = topics.broker
        for name in NAMES:
            topics.create(name)
    else:
        topics = EmbeddedTopics(engine.project.embedded_log)
    deployed = platform(root, "deploy", "fraud-v3", "--json", **environment)
    assert deployed.json["stream"] == topics.broker
    yield engine, topics
    platform(root, "down")
    if request.param == "kafka":  # others use topics of these names on the same broker
        for name in NAMES:
            request.getfixturevalue("kafka").delete(name)


def test_a_topic_gets_the_scores_that_calls_get(streamed: tuple[Engine, Topics]) -> None:
    engine, topics = streamed
    rows = later(ROWS)
    records = [
        {name: int(row[name]) if name.endswith("_id") else float(row[name]) for name in REQUEST}
        for row in rows.to_dict("records")
    ]
    entries: list[Any] = [(str(record["card_id"]).encode(), json.dumps(record).encode(), []) for record in records]
    bad = malformed()
    began = time.monotonic()
    topics.send("transactions", [*entries, *(one for _, one in bad)])
    until(lambda: count(engine) == ROWS + len(bad), "every record to be read", 120)
    taken = time.monotonic() - began
    until(lambda: at_zero(engine), "no lag and no stream worker", 120)
    outputs = topics.read("fraud-scores")
    assert len(outputs) == len(set(sources(outputs))) == ROWS
    scored = {id: json.loads(record.value or b"") for id, record in zip(sources(outputs), outputs, strict=True)}
    sent = {f"{r.topic}-{r.partition}-{r.offset}": r for r in topics.read("transactions")}
    good = {id: json.loads(r.value or b"") for id, r in sent.items() if not (r.key or b"").startswith(b"bad-")}
    assert scored.keys() == good.keys()
    answers = dict(zip(good, calls(engine, list(good.values())), strict=True))
    assert [(id, scored[id], answers[id]) for id in good if scored[id] != answers[id]][:5] == []
    print(f"{topics.broker}: {ROWS / taken:,.0f} records/s from the first one produced to the last one scored")
    assert len(topics.read("fraud-dead")) == len(bad)


def test_the_guarantee_is_exactly_once_unless_the_function_says_otherwise(streamed: tuple[Engine, Topics]) -> None:
    engine, topics = streamed
    assert facts(engine)["stream"]["guarantee"] == "exactly-once"
    declared = engine.project.root / "functions" / "fraud" / "function.toml"
    declared.write_text(declared.read_text().replace("[stream]\n", '[stream]\nguarantee = "at-least-once"\n'))
    address = "" if topics.broker == "embedded" else topics.broker
    ran = platform(engine.project.root, "deploy", "fraud-v3", "--json", KAFKA_BOOTSTRAP=address)
    assert ran.json["revision"] == 2
    kept = "exactly-once" if topics.broker == "embedded" else "at-least-once"  # what it is, not what it need be
    assert facts(engine)["stream"]["guarantee"] == kept


def calls(engine: Engine, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What calls answer."""
    connection = engine.open()
    answers: list[dict[str, Any]] = []
    for at in range(0, len(records), ROWS_PER_CALL):
        answers += ask(engine, connection, records[at : at + ROWS_PER_CALL])
    connection.close()
    return answers


def ask(engine: Engine, connection: http.client.HTTPConnection, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    answer = engine.ask("POST", "/functions/fraud", json.dumps(records).encode(), connection)
    assert answer.status == 200, answer
    predictions: list[dict[str, Any]] = answer.json["predictions"]
    return predictions


def facts(engine: Engine) -> dict[str, Any]:
    found: dict[str, Any] = engine.status("fraud")["functions"][0]
    return found


def count(engine: Engine) -> int:
    stream = facts(engine)["stream"]
    return int(stream["scored"] + stream["dead"])


def at_zero(engine: Engine) -> bool:
    found = facts(engine)
    return found["stream"]["lag"] == 0 and not any(worker["role"] == "stream" for worker in found["workers"])
