"""[stream.security] of function.toml: what it may say, where its secrets come from, and that nobody is shown them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sunup.bundle.declare.file import parse
from sunup.bundle.declare.write import write
from sunup.bundle.manifest import SecuritySpec, StreamSpec
from sunup.cli.streams.broker import broker_settings
from sunup.errors import UsageError
from sunup.secret import Secret
from sunup.settings import SCHEMA_REGISTRY, STREAM_BROKER, STREAM_SECURITY, Settings
from sunup.stream.broker import BrokerError, Trouble
from sunup.stream.kafka.security import OPEN, Security, for_confluent, for_kafka_python, security
from sunup.wire.confluent.registry import Address

HEAD = '[stream]\nbroker = "a:1"\ninput = "in"\n\n[stream.security]\n'
SASL = """protocol = "SASL_SSL"
mechanism = "SCRAM-SHA-512"
username = "env:KAFKA_USERNAME"
password = "env:KAFKA_PASSWORD"
"""
WORD = "correct horse"


def declared(text: str) -> StreamSpec:
    found = parse(HEAD + text, source="function.toml", name="fraud").stream
    assert found is not None
    return found


def test_a_declaration_is_read_and_written_back() -> None:
    text = SASL + 'ca = "certs/ca.pem"\ncertificate = "c.pem"\nkey = "k.pem"\nkey_password = "file:/run/secrets/key"\n'
    spec = parse(HEAD + text + "check_hostname = false\n", source="x", name="fraud")
    assert spec.stream is not None
    assert spec.stream.security == SecuritySpec(
        "SASL_SSL",
        "SCRAM-SHA-512",
        "env:KAFKA_USERNAME",
        "env:KAFKA_PASSWORD",
        "certs/ca.pem",
        "c.pem",
        "k.pem",
        "file:/run/secrets/key",
        check_hostname=False,
    )
    assert parse(write(spec), source="x", name="fraud") == spec


def test_a_stream_of_an_older_bundle_has_none() -> None:
    older = b'{"broker":"a:1","input":"in","output":"out"}'
    found = msgspec.json.decode(older, type=StreamSpec)
    assert (found.security, found.schema_registry) == (None, "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SASL + 'pasword = "env:X"', ["line 10", "Did you mean `password`?"]),
        (SASL.replace("env:KAFKA_PASSWORD", WORD), ["line 9", "password", "env:NAME", "file:/path"]),
        ('protocol = "SSL"\ncertificate = "c"\nkey = "k"\nkey_password = "correct horse"', ["line 9", "key_password"]),
        ('protocol = "SASL"', ["[stream] security", "SASL"]),
        ('protocol = "SASL_SSL"', ["line 5", "needs mechanism, username and password"]),
        ('protocol = "SSL"\npassword = "env:X"', ["line 7", "SSL has no user"]),
        ('protocol = "SASL_PLAINTEXT"\nca = "x"\n' + SASL.partition("\n")[2], ["line 7", "is not encrypted"]),
        ('protocol = "PLAINTEXT"\ncheck_hostname = false', ["line 7", "has no certificates"]),
        ('protocol = "SSL"\ncertificate = "c.pem"', ["line 7", "come together"]),
        ('protocol = "SSL"\nkey = "k.pem"', ["line 7", "come together"]),
        ('protocol = "SSL"\nkey_password = "env:X"', ["line 7", "there is no key"]),
        (SASL.replace("SCRAM-SHA-512", "GSSAPI"), ["GSSAPI"]),
        (SASL.replace("env:KAFKA_USERNAME", "env:"), ["line 8", "username"]),
        ("ca = 'x'", ["protocol"]),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, said: list[str]) -> None:
    with pytest.raises(UsageError) as refused:
        declared(text)
    message = refused.value.message
    assert all(part in message for part in said), message
    assert WORD not in message


def test_the_embedded_log_has_no_security() -> None:
    with pytest.raises(UsageError, match="leave the table out"):
        parse(HEAD.replace("a:1", "embedded") + SASL, source="x", name="fraud")


# --- Where secrets come from ------------------------------------------------------------------------------------------

ENVIRONMENT = {"KAFKA_USERNAME": "scorer", "KAFKA_PASSWORD": WORD}


def resolved(text: str, environment: Mapping[str, str], root: Path = Path("/project")) -> Security:
    spec = msgspec.structs.replace(declared(text), guarantee="at-least-once")
    settings, note = broker_settings(spec, environment, root)
    assert WORD not in note
    return security(settings)


def test_the_environment_is_read_when_it_is_deployed() -> None:
    found = resolved(SASL, ENVIRONMENT)
    assert found == Security("SASL_SSL", "SCRAM-SHA-512", Secret("scorer"), Secret(WORD))
    with pytest.raises(UsageError, match=r"\[stream.security\] password is env:KAFKA_PASSWORD, .* not set"):
        resolved(SASL, {"KAFKA_USERNAME": "scorer"})


def test_a_file_is_read_whenever_a_client_is_opened(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    found = resolved(SASL.replace("env:KAFKA_PASSWORD", f"file:{secret}"), ENVIRONMENT)
    with pytest.raises(BrokerError, match="password cannot be read: No such file") as refused:
        for_kafka_python(found)
    assert refused.value.trouble is Trouble.NOT_PERMITTED
    for password in ("one", "another"):
        secret.write_text(f"{password}\n")
        assert for_kafka_python(found)["sasl_plain_password"] == password
        assert for_confluent(found)["sasl.password"] == password


def test_a_value_that_looks_like_a_reference_is_a_value(tmp_path: Path) -> None:
    found = resolved(SASL, {"KAFKA_USERNAME": "scorer", "KAFKA_PASSWORD": "file:/etc/hostname"}, tmp_path)
    assert for_confluent(found)["sasl.password"] == "file:/etc/hostname"


def test_paths_begin_at_the_project(tmp_path: Path) -> None:
    (tmp_path / "certs").mkdir()
    ca = tmp_path / "certs" / "ca.pem"
    text = 'protocol = "SSL"\nca = "certs/ca.pem"'
    with pytest.raises(UsageError, match=r"\[stream.security\] ca: there is no file .*certs/ca.pem"):
        resolved(text, {}, tmp_path)
    ca.write_text("no PEM")
    found = resolved(text, {}, tmp_path)
    assert found.ca == str(ca)
    with pytest.raises(BrokerError, match=r"TLS: .*ca.pem cannot be used"):
        for_confluent(found)
    assert resolved('protocol = "SSL"\nca = "env:CA"', {"CA": str(ca)}, tmp_path).ca == str(ca)


def test_without_the_table_there_is_neither_tls_nor_sasl() -> None:
    settings, _ = broker_settings(StreamSpec("a:1", "in", guarantee="at-least-once"), {}, Path("/project"))
    assert STREAM_SECURITY not in settings
    assert security(settings) is OPEN
    assert for_confluent(OPEN) == {"security.protocol": "PLAINTEXT"}


def test_the_embedded_log_is_told_nothing_of_a_broker_it_stands_for() -> None:
    spec = msgspec.structs.replace(declared(SASL), broker="env:KAFKA or embedded")
    assert broker_settings(spec, ENVIRONMENT, Path("/project"))[0] == {STREAM_BROKER: "embedded"}


# --- The schema registry ----------------------------------------------------------------------------------------------


def with_registry(given: str, more: str = "") -> StreamSpec:
    text = f'[stream]\nbroker = "embedded"\ninput = "in"\nschema_registry = "{given}"\n{more}'
    spec = parse(text, source="x", name="fraud")
    assert parse(write(spec), source="x", name="fraud") == spec
    assert spec.stream is not None
    return spec.stream


def address(stream: StreamSpec, environment: Mapping[str, str]) -> Address:
    settings, note = broker_settings(stream, environment, Path("/project"))
    assert WORD not in note
    return msgspec.json.decode(settings[SCHEMA_REGISTRY], type=Address)


def test_a_schema_registry_is_where_its_url_or_reference_says() -> None:
    url = "https://registry.example:8081/apis/ccompat/v7"
    assert address(with_registry(url), {}) == Address(Secret(url))
    assert (
        address(with_registry("env:REGISTRY"), {"REGISTRY": f"https://u:{WORD}@r"}).url.read() == f"https://u:{WORD}@r"
    )
    assert address(with_registry("file:/run/registry"), {}) == Address(Secret(file="/run/registry"))
    with pytest.raises(UsageError, match="schema_registry is env:REGISTRY, and REGISTRY is not set"):
        address(with_registry("env:REGISTRY"), {})
    assert SCHEMA_REGISTRY not in broker_settings(StreamSpec("embedded", "in"), {}, Path("/project"))[0]


@pytest.mark.parametrize("given", ["https://user:correct horse@host", "registry:8081", "ftp://host", "env:", "http://"])
def test_a_schema_registry_that_is_none_or_has_a_password_is_refused(given: str) -> None:
    with pytest.raises(UsageError, match=r"line 4: \[stream\] schema_registry") as refused:
        with_registry(given)
    assert WORD not in refused.value.message


def test_confluents_form_needs_a_registry() -> None:
    assert with_registry("env:X", 'content = "confluent"\n').content == "confluent"
    text = '[stream]\nbroker = "embedded"\ninput = "in"\ncontent = "confluent"\n'
    with pytest.raises(UsageError, match=r"line 4.*needs schema_registry"):
        parse(text, source="x", name="fraud")


# --- Nobody is shown them ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "holder",
    [
        Secret(WORD),
        Security(password=Secret(WORD), key_password=Secret(WORD)),
        Settings({STREAM_SECURITY: WORD}),
    ],
    ids=lambda holder: type(holder).__name__,
)
def test_what_holds_a_secret_does_not_show_it(holder: Any) -> None:
    assert WORD not in f"{holder} {holder!r}"
