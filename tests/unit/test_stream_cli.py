"""Which broker a function's [stream] means in a deployer's environment, and what is refused."""

from pathlib import Path

import pytest

from sunup.bundle.manifest import StreamSpec
from sunup.cli.streams import broker as module
from sunup.cli.streams.broker import broker_settings
from sunup.errors import UsageError
from sunup.settings import CONFLUENT, EMBEDDED, KAFKA_CLIENT, KAFKA_PYTHON, STREAM_BROKER, STREAM_CLIENT

ROOT = Path("/project")
SET = {"KAFKA_BOOTSTRAP": "a:9092,b:9092"}


def stream(broker: str) -> StreamSpec:
    return StreamSpec(broker=broker, input="in", output="out")


@pytest.mark.parametrize(
    ("broker", "environment", "address", "told"),
    [
        ("a:1", {}, "a:1", "in -> out on Kafka at a:1"),
        ("embedded", SET, "embedded", "in -> out on the embedded log"),
        ("env:KAFKA_BOOTSTRAP", SET, "a:9092,b:9092", "on Kafka at a:9092,b:9092 (KAFKA_BOOTSTRAP)"),
        ("env:KAFKA_BOOTSTRAP or embedded", SET, "a:9092,b:9092", "(KAFKA_BOOTSTRAP)"),
        ("env:KAFKA_BOOTSTRAP or embedded", {}, "embedded", "embedded log (KAFKA_BOOTSTRAP is not set)"),
        ("env:KAFKA_BOOTSTRAP or embedded", {"KAFKA_BOOTSTRAP": ""}, "embedded", "is not set"),
    ],
)
def test_the_broker_a_declaration_means(broker: str, environment: dict[str, str], address: str, told: str) -> None:
    settings, note = broker_settings(stream(broker), environment, ROOT)
    assert settings == {STREAM_BROKER: address} | ({} if address == EMBEDDED else {STREAM_CLIENT: CONFLUENT})
    assert told in note


def test_a_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(UsageError, match="KAFKA_BOOTSTRAP is not set"):
        broker_settings(stream("env:KAFKA_BOOTSTRAP"), {}, ROOT)


def test_a_variable_that_holds_no_address_is_refused() -> None:
    with pytest.raises(UsageError, match="'kafka' is not host:port"):
        broker_settings(stream("env:KAFKA_BOOTSTRAP"), {"KAFKA_BOOTSTRAP": "kafka"}, ROOT)


@pytest.mark.parametrize("installed", [True, False])
def test_the_faster_client_is_used_where_it_is_installed(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _: installed or None)
    settings, _ = broker_settings(stream("a:1"), {}, ROOT)
    assert settings[STREAM_CLIENT] == (CONFLUENT if installed else KAFKA_PYTHON)
    settings, _ = broker_settings(stream("a:1"), {KAFKA_CLIENT: KAFKA_PYTHON}, ROOT)
    assert settings[STREAM_CLIENT] == KAFKA_PYTHON
    with pytest.raises(UsageError, match="kafkacat"):
        broker_settings(stream("a:1"), {KAFKA_CLIENT: "kafkacat"}, ROOT)


def test_a_client_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"sunup\[kafka-fast\]"):
        broker_settings(stream("a:1"), {KAFKA_CLIENT: CONFLUENT}, ROOT)


def test_a_function_without_a_stream_needs_nothing() -> None:
    assert broker_settings(None, {}, ROOT) == ({}, "")
