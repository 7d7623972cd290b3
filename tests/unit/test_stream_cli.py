"""Which broker a function's [stream] means in a deployer's environment, and what is refused."""

from pathlib import Path

import pytest

from sunup.bundle.manifest import StreamSpec
from sunup.cli.streams.broker import broker_settings
from sunup.errors import UsageError
from sunup.settings import STREAM_BROKER

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
    assert settings == {STREAM_BROKER: address}
    assert told in note


def test_a_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(UsageError, match="KAFKA_BOOTSTRAP is not set"):
        broker_settings(stream("env:KAFKA_BOOTSTRAP"), {}, ROOT)


def test_a_variable_that_holds_no_address_is_refused() -> None:
    with pytest.raises(UsageError, match="'kafka' is not host:port"):
        broker_settings(stream("env:KAFKA_BOOTSTRAP"), {"KAFKA_BOOTSTRAP": "kafka"}, ROOT)


def test_a_function_without_a_stream_needs_nothing() -> None:
    assert broker_settings(None, {}, ROOT) == ({}, "")
