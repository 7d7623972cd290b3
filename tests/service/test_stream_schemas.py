"""A deployed function whose topic is in Avro, with a real schema registry, over Kafka and the embedded log."""

import json

import pytest
from tests.engine_fixture import Engine, until
from tests.kafka_fixture import KafkaServer
from tests.schema_registry_fixture import SchemaRegistry, avro, framed, schema_registry
from tests.topics import EmbeddedTopics, Entry, KafkaTopics, Scored, Topics

from sunup.cli.streams.broker import broker_settings

__all__ = ["schema_registry"]

SCHEMA = {
    "type": "record",
    "name": "X",
    "fields": [{"name": "x", "type": "double"}, {"name": "more", "type": "string"}],
}


@pytest.mark.parametrize("place", ["embedded", "kafka"])
def test_avro_is_scored_and_other_forms_beside_it(
    place: str, engine: Engine, schema_registry: SchemaRegistry, request: pytest.FixtureRequest
) -> None:
    topics: Topics = EmbeddedTopics(engine.project.embedded_log)
    if place == "kafka":
        server: KafkaServer = request.getfixturevalue("kafka")
        topics = KafkaTopics(server)
    scored = Scored(engine, topics, schema_registry="env:SCHEMA_REGISTRY_URL")
    scored.create()
    settings, _ = broker_settings(scored.stream, {"SCHEMA_REGISTRY_URL": schema_registry.url}, engine.project.root)
    digest = engine.bundle(scored.name, 2.0, stream=scored.stream, scale=scored.scale)
    engine.deploy(scored.name, digest, settings=settings, on_event=lambda _: None)
    number = schema_registry.register(SCHEMA)
    good: list[Entry] = [(b"%d" % n, framed(number, avro(SCHEMA, {"x": n, "more": "y"})), []) for n in range(100)]
    bad: list[Entry] = [(b"a", framed(number, b"\x01"), []), (b"b", framed(2_000_000_000, b""), [])]
    scored.send_entries([*good, *bad])
    scored.send(range(100, 150))
    until(lambda: len(scored.outputs()) == 150 and len(scored.dead()) == 2, "150 predictions and 2 dead letters")
    found = {int(record.key or b""): json.loads(record.value or b"")["y"] for record in scored.outputs()}
    assert found == {n: 2.0 * n for n in range(150)}
    codes = {record.key: dict(record.headers)["sunup_error_code"] for record in scored.dead()}
    assert codes == {b"a": b"invalid_avro", b"b": b"unknown_schema"}
    kept = {record.key: record.value for record in scored.dead()}
    assert kept == {key: value for key, value, _ in bad}
