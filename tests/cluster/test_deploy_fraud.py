"""The same function here and on a cluster: fraud's third version, its features in Redis, its topic on Kafka."""

import http.client
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pandas as pd
import pytest
import yaml
from tests.cluster.functions import JSON, Platform, platform, runtime
from tests.fraud_fixture import checkout, training
from tests.kafka_fixture import KafkaServer
from tests.topics import KafkaTopics

__all__ = ["platform", "runtime"]

pytestmark = pytest.mark.timeout(900)

CALLS: Final = 100
READY_SECONDS_MAX: Final = 60.0  # a node's first: with the runtime image to be fetched
TOLERANCE: Final = 1e-5
REQUEST: Final = ("card_id", "customer_id", "merchant_id", "amount", "hour", "km_from_home")


@pytest.fixture
def fraud(platform: Platform, redis_url: str, kafka: KafkaServer, tmp_path: Path) -> Platform:
    """A project whose models are trained and whose features are in Redis."""
    root = checkout(tmp_path / "fraud")
    config = yaml.safe_load((root / "features" / "feature_store.redis.yaml").read_text())
    config["online_store"]["connection_string"] = urlsplit(redis_url).netloc
    (chosen := root / "features" / "feature_store.redis.yaml").write_text(yaml.safe_dump(config))
    more = {"FEAST_FS_YAML_FILE_PATH": str(chosen)}
    training(root, **more)
    for topic in ("transactions", "fraud-scores", "fraud-dead"):
        kafka.create(topic, 2)
    return replace(platform, project=root, more={**more, "KAFKA_BOOTSTRAP": kafka.servers})


def ask(url: str, records: list[dict[str, Any]], host: str = "") -> list[dict[str, Any]]:
    parts = urlsplit(url)
    there = http.client.HTTPConnection(parts.netloc, timeout=60)
    there.request("POST", "/functions/fraud", json.dumps(records), {**JSON, "Host": host or parts.netloc})
    reply = there.getresponse()
    body = json.loads(reply.read())
    there.close()
    assert reply.status == 200, body
    found: list[dict[str, Any]] = body["predictions"]
    return found


def test_answers_on_a_cluster_are_those_of_this_machine(fraud: Platform, kafka: KafkaServer) -> None:
    held_out = pd.read_parquet(fraud.project / ".sunup" / "fraud" / "holdout.parquet").head(CALLS)
    records = json.loads(held_out[list(REQUEST)].to_json(orient="records"))
    local = replace(fraud, more={**fraud.more, "SUNUP_ENGINE": "local", "KAFKA_BOOTSTRAP": ""})
    try:
        here = local.facts("deploy", "fraud-v3")
        expected = ask(here["url"], records)
        facts = fraud.facts("deploy", "fraud-v3")
    finally:
        local.run("down")  # the packager, too
    assert facts["digest"] == here["digest"]
    print(f"deployed after {facts['seconds']:.1f} s")
    assert facts["seconds"] <= READY_SECONDS_MAX
    said = ask(fraud.cluster.gateway, records, fraud.host("fraud"))
    assert [one["decision"] for one in said] == [one["decision"] for one in expected]
    assert [one["score"] for one in said] == pytest.approx([one["score"] for one in expected], abs=TOLERANCE)
    assert [one.get("defaulted") for one in said] == [one.get("defaulted") for one in expected]
    assert not all(one.get("defaulted") for one in said), "no feature was found"
    topics = KafkaTopics(kafka)
    topics.send("transactions", [(b"%d" % n, json.dumps(one).encode(), []) for n, one in enumerate(records)])
    fraud.cluster.until("the topic is scored", lambda: len(topics.read("fraud-scores")) >= CALLS, 180)
    scored = sorted(json.loads(one.value or b"")["score"] for one in topics.read("fraud-scores"))
    assert scored == pytest.approx(sorted(one["score"] for one in expected), abs=TOLERANCE)
    assert topics.read("fraud-dead") == []
