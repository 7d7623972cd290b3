"""The examples that speak to topics. The whole demo takes minutes: here it is its parts."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.engine_fixture import Engine, until
from tests.fraud_fixture import ROOT, Trained
from tests.kafka_fixture import KafkaServer, need_kafka
from tests.service.test_cli import platform

from examples.demo_stream import Entry, Names, Scored, collect, difference, once, topics
from functions.fraud.simulate import REQUEST, later

ROWS = 300
CARD = {"embedded": "3", "kafka": "7"}  # one each: what is online knows of no broker
NAMES = Names("transactions", "fraud-scores", "fraud-dead")

pytestmark = pytest.mark.timeout(900)  # the first test waits for a whole training


@pytest.fixture(scope="module")
def engine(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The trained project with an engine."""
    root = tmp_path_factory.mktemp("examples") / "p"
    shutil.copytree(trained.project.root, root, ignore=shutil.ignore_patterns("run", "bundles", "log.db*"))
    engine = Engine(root)
    engine.up()
    yield engine
    platform(root, "down")


@pytest.fixture(params=["embedded", "named", "started"])
def broker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way the demo finds a broker, and what it says of it."""
    monkeypatch.delenv("KAFKA_BOOTSTRAP", raising=False)
    if request.param == "embedded":
        monkeypatch.setenv("JAVA_HOME", "/nowhere")
        return "the embedded log; "
    need_kafka()
    if request.param == "started":
        return "started for this demo; made its topics transactions, fraud-scores, fraud-dead"
    server: KafkaServer = request.getfixturevalue("kafka_server")
    server.create(NAMES.input)
    monkeypatch.setenv("KAFKA_BOOTSTRAP", server.servers)
    return f"Apache Kafka at {server.servers}, as KAFKA_BOOTSTRAP says; made its topics fraud-scores, fraud-dead"


def deploy(engine: Engine, bootstrap: str, model: str = "fraud-v1") -> None:
    """The function on the topics of a broker ("": of the embedded log)."""
    deployed = platform(engine.project.root, "deploy", model, "--json", KAFKA_BOOTSTRAP=bootstrap)
    assert deployed.json["stream"] == (bootstrap or "embedded")


def wait_until_seen(engine: Engine) -> None:
    seen = ("idle", "starting", "running")
    until(lambda: engine.status("fraud")["functions"][0]["stream"]["state"] in seen, "the topics to be seen")


def over_http(engine: Engine, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The function's answers; a lookup that passed its deadline says so, and is asked again."""
    answers: list[dict[str, Any]] = engine.ask("POST", "/functions/fraud", json.dumps(records).encode()).json[
        "predictions"
    ]
    for number in [number for number, answer in enumerate(answers) if "defaulted" in answer]:
        again = engine.ask("POST", "/functions/fraud", json.dumps(records[number]).encode())
        (answers[number],) = again.json["predictions"]
    return answers


def test_the_demo_sends_payments_through_a_topic(engine: Engine, broker: str) -> None:
    rows = later(ROWS)[list(REQUEST)].to_dict("records")
    records = [{name: int(v) if name.endswith("_id") else float(v) for name, v in row.items()} for row in rows]
    entries = [Entry(str(record["card_id"]).encode(), json.dumps(record).encode()) for record in records]
    with topics(engine.project.embedded_log, NAMES) as wire:
        assert broker in wire.note
        deploy(engine, wire.bootstrap)
        wait_until_seen(engine)
        before = wire.send(entries[:10])
        assert once(before, collect(wire, before, 30)) == 10
        ids = wire.send(entries)
        found = collect(wire, ids, 30)
        assert len(set(ids)) == ROWS
        assert once(ids, found) == ROWS
        scores = {scored.id: scored.answer for scored in found}
        largest, left_out = difference([scores[id] for id in ids], over_http(engine, records))
        assert largest == 0.0
        assert left_out < ROWS / 10  # a busy machine's lookups may pass their deadline
        assert wire.take(0.1) == []
        deploy(engine, "")  # before the broker stops


def test_what_came_twice_or_never_is_not_exactly_once() -> None:
    found = [Scored(id, {}) for id in ("t-0-0", "t-0-1", "t-0-1")]
    assert once(["t-0-0", "t-0-1", "t-0-2"], found) == 1


def test_answers_of_other_features_are_left_out() -> None:
    here: list[dict[str, Any]] = [{"score": 0.5}, {"score": 0.5, "defaulted": ["card_age_days"]}, {"score": 0.25}]
    there = [{"score": 0.5}, {"score": 0.9}, {"score": 0.5}]
    assert difference(here, there) == (0.25, 1)


def round_trip(root: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "examples" / "kafka_roundtrip.py"), "--count", "12", *arguments]
    given = {**os.environ, "KAFKA_BOOTSTRAP": "", **environment}
    return subprocess.run(command, cwd=root, env=given, capture_output=True, text=True, check=False, timeout=120)


def check_round_trip(ran: "subprocess.CompletedProcess[str]") -> None:
    assert ran.returncode == 0, ran
    shown = ran.stdout.splitlines()
    topics = Counter(line.split()[0] for line in shown if line.startswith("fraud-"))
    assert topics == {"fraud-scores": 5, "fraud-dead": 1}
    assert sum('"score":' in line for line in shown) == 5
    assert sum("sunup_error_code" in line for line in shown) == 1
    assert any("ce_id" in line for line in shown)
    assert any(line.startswith('fraud-dead card-bad {"card_id": "seven"}') for line in shown)
    assert re.search(r"the other 11: p50 [\d.]+ ms, p99 [\d.]+ ms", ran.stdout)


def test_a_kafka_client_sends_payments_and_reads_scores(engine: Engine, kafka_server: KafkaServer) -> None:
    deploy(engine, kafka_server.servers)  # before there are topics
    try:
        check_round_trip(round_trip(engine.project.root, KAFKA_BOOTSTRAP=kafka_server.servers))
        # The second time there are older records, which are not its own.
        check_round_trip(round_trip(engine.project.root, "--bootstrap", kafka_server.servers))
    finally:
        deploy(engine, "")


def test_without_kafka_payments_go_through_the_embedded_log(engine: Engine) -> None:
    deploy(engine, "")
    for _ in range(2):
        ran = round_trip(engine.project.root)
        assert "on the embedded log" in ran.stdout
        check_round_trip(ran)


@pytest.mark.parametrize("kind", ["embedded", "kafka"])
def test_a_card_used_five_times_is_known_to_the_next_score(
    engine: Engine, kind: str, request: pytest.FixtureRequest
) -> None:
    servers = request.getfixturevalue("kafka_server").servers if kind == "kafka" else ""
    deploy(engine, servers, "fraud-v4")
    try:
        command = [sys.executable, "-m", "examples.streaming_features", "--card", CARD[kind]]
        command += ["--url", f"http://127.0.0.1:{engine.port}/functions/fraud"]
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        given = {**os.environ, "KAFKA_BOOTSTRAP": servers, "PYTHONPATH": path}
        for before, after in (("-", "5"), ("5", "10")):
            ran = subprocess.run(
                command, cwd=engine.project.root, env=given, capture_output=True, text=True, check=False, timeout=180
            )
            assert ran.returncode == 0, ran
            print(ran.stdout)
            (amount,) = re.findall(r"a payment of ([\d.]+),", ran.stdout)
            known = r"card_tx_count_1h (\S+), card_amount_sum_24h (\S+); the next one scores ([\d.]+)"
            first, last = re.findall(known, ran.stdout)
            assert (first[0], last[0]) == (before, after)
            assert float(last[1]) == pytest.approx(int(after) * float(amount))
            assert first[2] != last[2], "another score for the same payment"
    finally:
        deploy(engine, "")
