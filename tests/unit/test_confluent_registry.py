"""What is asked of a schema registry, and one that is slow, closed or hostile."""

import json
import ssl
import time
from pathlib import Path

import pytest
from tests.redis_topologies import Certificates
from tests.unit.scripted_registry import KNOWN, SCHEMA, Answer, Scripted, registry, serving

from sunup import limits
from sunup.errors import CallError, SchemasUnavailable
from sunup.secret import Secret
from sunup.wire.confluent.registry import Address, Registry


def refused(scripted: Scripted, number: int = 7) -> CallError:
    with serving(scripted), pytest.raises(CallError) as found:
        registry(scripted.url()).schema(number)
    return found.value


def test_who_we_are_is_told_and_not_shown() -> None:
    with serving(Scripted(KNOWN, (403, {}))) as scripted:
        asked = registry(scripted.url("fraud:p%40ss@"))
        assert asked.schema(7) == ("AVRO", json.dumps(SCHEMA), ())
        assert scripted.heard == [("/base/schemas/ids/7", "Basic ZnJhdWQ6cEBzcw==")]
        with pytest.raises(SchemasUnavailable) as error:
            asked.schema(8)
    assert "p@ss" not in f"{error.value.message}{asked!r}"
    assert "p%40ss" not in f"{error.value.message}{asked!r}"


def test_a_url_in_a_file_may_change(tmp_path: Path) -> None:
    file = tmp_path / "url"
    with serving(Scripted(KNOWN)) as scripted:
        asked = Registry(Address(Secret(file=str(file))))
        with pytest.raises(SchemasUnavailable, match="No such file"):
            asked.schema(7)
        file.write_text(scripted.url() + "\n")
        assert asked.schema(7).kind == "AVRO"


def test_tls_is_checked(tmp_path: Path) -> None:
    made = Certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    scripted = Scripted(KNOWN)
    scripted.server.socket = context.wrap_socket(scripted.server.socket, server_side=True)
    with serving(scripted):
        assert registry(scripted.url(scheme="https"), str(made.certificate)).schema(7).kind == "AVRO"
        with pytest.raises(SchemasUnavailable, match="certificate"):
            registry(scripted.url(scheme="https")).schema(7)
        with pytest.raises(SchemasUnavailable, match=r"none\.pem"):
            registry(scripted.url(scheme="https"), "/none.pem").schema(7)


def test_what_it_says_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    endless = {"schema": '"int"', "references": [{"name": "a", "subject": "a", "version": 1}]}
    assert refused(Scripted((200, b"x" * (limits.SCHEMA_BYTES_MAX + 1)))).code == "invalid_schema"
    growing = iter(range(1000))

    def more(_: str) -> Answer:
        return 200, {**endless, "references": [{"name": "a", "subject": "a", "version": next(growing)}]}

    assert refused(Scripted(more)).code == "invalid_schema"
    with serving(Scripted((200, endless))) as scripted:
        assert registry(scripted.url()).schema(7).references == ('"int"',)  # refers to itself: read once
    monkeypatch.setattr("sunup.wire.confluent.registry.SCHEMA_SECONDS_MAX", 0.2)
    began = time.monotonic()

    def slow(_: str) -> Answer:
        time.sleep(0.5)  # what is tested is that nobody waits for it
        return KNOWN

    assert isinstance(refused(Scripted(slow)), SchemasUnavailable)
    assert time.monotonic() - began < 5
