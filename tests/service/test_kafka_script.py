"""infra/kafka.sh: the broker that other tests rely on, and what happens where it cannot be had."""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from kafka.errors import TopicAuthorizationFailedError, UnknownTopicOrPartitionError
from tests.kafka_fixture import SCRIPT, KafkaServer, committed, need_kafka, produce, read_all

INFRA = SCRIPT.parent
MESSAGES = [(b"card-%d" % (number % 50), b"%d" % number, [("number", b"%d" % number)]) for number in range(1000)]


def test_what_was_acknowledged_survives_a_kill(kafka_server: KafkaServer) -> None:
    stopped_in_order = kafka_server.folder / "data" / ".kafka_cleanshutdown"
    kafka_server.create("scores")
    produce(kafka_server.servers, "scores", MESSAGES)
    kafka_server.kill()
    assert not stopped_in_order.exists()

    kafka_server.start()
    records = read_all(kafka_server.servers, "scores")
    assert sorted((r.key, r.value, r.headers) for r in records) == sorted(MESSAGES)
    assert {r.partition for r in records} == {0, 1, 2, 3}
    assert committed(kafka_server.servers, "nobody", "scores") == {}

    kafka_server.stop()
    assert stopped_in_order.exists()


def test_a_permission_can_be_taken_away_and_given_back(guarded_kafka: KafkaServer) -> None:
    guarded_kafka.create("scores")
    guarded_kafka.deny("WRITE", "scores")
    with pytest.raises(TopicAuthorizationFailedError):
        produce(guarded_kafka.servers, "scores", MESSAGES[:1])
    assert read_all(guarded_kafka.servers, "scores") == []
    guarded_kafka.allow("WRITE", "scores")
    produce(guarded_kafka.servers, "scores", MESSAGES[:1])
    assert [r.value for r in read_all(guarded_kafka.servers, "scores")] == [b"0"]


def test_a_topic_is_not_made_by_asking_for_it(kafka: KafkaServer) -> None:
    for _ in range(2):
        with pytest.raises(AssertionError, match="no topic"):
            read_all(kafka.servers, "never-made")


def test_a_deleted_topic_is_gone(kafka: KafkaServer) -> None:
    kafka.create("short-lived", partitions=1)
    produce(kafka.servers, "short-lived", MESSAGES[:1])
    kafka.delete("short-lived")
    with pytest.raises(UnknownTopicOrPartitionError):
        kafka.delete("short-lived")
    with pytest.raises(AssertionError, match="no topic"):
        read_all(kafka.servers, "short-lived")


def test_a_second_fetch_does_nothing() -> None:
    need_kafka()
    began = time.monotonic()
    found = subprocess.run([SCRIPT, "fetch"], capture_output=True, text=True, check=True)
    assert time.monotonic() - began < 2, "a tenth of a second where nothing else runs"
    jars = {jar.name for jar in Path(found.stdout.strip()).glob("*.jar")}
    assert jars == set(re.findall(r"\S+\.jar", (INFRA / "kafka" / "jars.sha256").read_text("utf-8")))


@pytest.fixture
def bare_machine(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine with no Java, no Redis and nothing to install them with."""
    for name in ("bash", "cat", "cut", "dirname", "env", "id", "sha256sum"):
        found = shutil.which(name)
        assert found is not None
        (tmp_path / name).symlink_to(found)
    return {"PATH": str(tmp_path), "HOME": str(tmp_path)}


@pytest.mark.parametrize("command", [["kafka.sh", "fetch", "--install"], ["redis.sh"]])
@pytest.mark.parametrize(("ci", "status"), [("false", 0), ("true", 3)])
def test_what_cannot_be_had_stops_only_ci(
    command: list[str], ci: str, status: int, bare_machine: dict[str, str]
) -> None:
    script, *arguments = command
    ended = subprocess.run(
        [INFRA / script, *arguments], env=bare_machine | {"CI": ci}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == status
    assert "is missing" in ended.stderr
    assert ended.stdout == ""


def test_a_machine_without_java_is_told_how_to_get_it() -> None:
    absent = os.environ | {"JAVA_HOME": "/absent"}
    ended = subprocess.run([SCRIPT, "fetch"], env=absent, capture_output=True, text=True, check=False)
    assert ended.returncode == 3
    assert "needs Java 17 and Maven. Debian: sudo apt-get install openjdk-17-jre-headless" in ended.stderr


def test_docker_runs_the_same_kafka() -> None:
    pom = ElementTree.parse(INFRA / "kafka" / "pom.xml")
    version = pom.findtext(".//{*}dependency[{*}artifactId='kafka_2.13']/{*}version")
    services = yaml.safe_load((INFRA / "compose.yaml").read_text("utf-8"))["services"]
    assert services["kafka"]["image"] == f"apache/kafka:{version}"
    assert services["kafka"]["ports"] == ["127.0.0.1:9092:9092"]
    assert all("healthcheck" in service for service in services.values())
