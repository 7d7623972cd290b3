"""A deployed function whose topics are behind TLS and a password: it scores, and nobody is shown the password."""

import json
from pathlib import Path

import msgspec
from tests.engine_fixture import Engine, until
from tests.secured_kafka import PASSWORD, USER, SecuredKafka, secured_kafka
from tests.topics import KafkaTopics, Scored

from sunup.bundle.manifest import SecuritySpec
from sunup.cli.streams.broker import broker_settings

__all__ = ["secured_kafka"]


def deployed(engine: Engine, server: SecuredKafka, password: str, environment: dict[str, str]) -> Scored:
    security = SecuritySpec(
        protocol="SASL_SSL",
        mechanism="SCRAM-SHA-512",
        username="env:KAFKA_USERNAME",
        password=password,
        ca=str(server.certificates.ca),
    )
    scored = Scored(engine, KafkaTopics(server), security=security)
    scored.create()
    declared = msgspec.structs.replace(scored.stream, broker=server.ways["SASL_SSL"])
    settings, note = broker_settings(declared, environment, engine.project.root)
    assert PASSWORD not in note
    digest = engine.bundle(scored.name, 2.0, stream=declared, scale=scored.scale)
    engine.deploy(scored.name, digest, settings=settings, on_event=lambda _: None)
    return scored


def shown(engine: Engine) -> str:
    """Everything the engine tells of itself, and what its processes are called."""
    logs = [path.read_text("utf-8", "replace") for path in engine.project.logs.rglob("*") if path.is_file()]
    called = [(Path("/proc") / str(pid) / "cmdline").read_bytes().decode() for pid in engine.pids().values()]
    return "\n".join([json.dumps(engine.status(None)), *logs, *called])


def test_records_are_scored_and_the_password_is_not_shown(engine: Engine, secured_kafka: SecuredKafka) -> None:
    scored = deployed(engine, secured_kafka, "env:KAFKA_PASSWORD", {"KAFKA_USERNAME": USER, "KAFKA_PASSWORD": PASSWORD})
    scored.send(range(200))
    until(lambda: len(scored.outputs()) == 200, "200 predictions")
    assert scored.facts["state"] in ("running", "idle")
    assert PASSWORD not in shown(engine)
    assert json.dumps(PASSWORD)[1:-1] not in shown(engine)
    for path in engine.project.state.glob("*.db*"):
        assert path.stat().st_mode & 0o077 == 0 or path.name.startswith("log.db"), path


def test_a_wrong_password_is_told_and_one_that_is_put_right_is_taken(
    engine: Engine, secured_kafka: SecuredKafka, tmp_path: Path
) -> None:
    secret = tmp_path / "password"
    secret.write_text("a wrong horse\n")
    scored = deployed(engine, secured_kafka, f"file:{secret}", {"KAFKA_USERNAME": USER})
    until(lambda: scored.facts["state"] == "not-permitted", "a refusal")
    assert f"refused the user '{USER}'" in scored.facts["reason"]
    assert "horse" not in shown(engine)
    scored.send(range(50))
    secret.write_text(PASSWORD)
    until(lambda: len(scored.outputs()) == 50, "50 predictions")
