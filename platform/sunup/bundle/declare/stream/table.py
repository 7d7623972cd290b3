"""[stream] of function.toml: what is checked of it beyond the types of its keys, and its lines."""

import json
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from sunup.bundle.declare.lines import Lines, closest
from sunup.bundle.declare.spec import BROKER
from sunup.bundle.declare.stream.reference import KINDS, REFERENCE
from sunup.bundle.manifest import SecuritySpec, StreamSpec

_KEYS: Final = SecuritySpec.__struct_fields__
_TLS_KEYS: Final = ("ca", "certificate", "key", "key_password")
_SECURITY: Final = "[stream.security]"


def refuse_unknown(table: dict[str, Any], where: Lines) -> None:
    """Raises UsageError for a key that [stream.security] does not have."""
    given = table.get("security")
    for key in given if isinstance(given, dict) else ():
        if key not in _KEYS:
            known = f"{closest(key, _KEYS)} Known here: {', '.join(_KEYS)}"
            raise where.error("stream.security", key, f"unknown key `{key}` in {_SECURITY}.{known}")


def stream_spec(table: StreamSpec | None, where: Lines, name: str, *, features: bool) -> StreamSpec | None:
    """The table resolved, with the names that follow from the function's. `features`: it has any. Raises UsageError."""
    if table is None:
        return None
    if not BROKER.fullmatch(table.broker):
        known = 'host:port (several with commas), "env:NAME", "embedded" or "env:NAME or embedded"'
        raise where.error("stream", "broker", f"[stream] broker: {table.broker!r} is none of {known}")
    topics = {"output": table.output or f"{name}-scores", "dead_letter": table.dead_letter or f"{name}-dead"}
    if len({table.input, *topics.values()}) < 3:  # a function that reads what it wrote never ends
        raise where.error("stream", "input", "[stream] input, output and dead_letter must be three different topics")
    if table.aggregate and not features:
        raise where.error("stream", "aggregate", "[stream] aggregate names views, and there is no [features] service")
    _check_registry(table, where)
    if table.security is not None:
        for key, problem in _problems(table.security, table.broker):
            written = where.line("stream.security", key) is not None
            place = ("stream.security", key) if written else ("stream", "security")
            raise where.error(*place, f"{_SECURITY} {key}: {problem}")
    return msgspec.structs.replace(table, **topics, group=table.group or f"sunup-{name}")


def table(stream: StreamSpec) -> list[str]:
    """The lines that read back as `stream`."""
    keys = msgspec.to_builtins(stream)
    security = keys.pop("security")
    lines = ["[stream]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items() if value not in ("", None))]
    if security is not None:
        lines += ["", _SECURITY, *(f"{key} = {json.dumps(value)}" for key, value in security.items() if value != "")]
    return lines


def _check_registry(stream: StreamSpec, where: Lines) -> None:
    given = stream.schema_registry
    if not given:
        if stream.content == "confluent":
            raise where.error("stream", "content", '[stream] content = "confluent" needs schema_registry')
        return
    if REFERENCE.fullmatch(given):
        return
    url = urlsplit(given)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise where.error("stream", "schema_registry", f"[stream] schema_registry: give a URL, {KINDS}")
    if url.username is not None or url.password is not None:
        what = f"[stream] schema_registry: a password stands in no function.toml; write {KINDS} for the URL with it"
        raise where.error("stream", "schema_registry", what)


def _problems(security: SecuritySpec, broker: str) -> Iterator[tuple[str, str]]:
    """(key, what is wrong with it), the worst first."""
    for key in ("password", "key_password"):  # before any other message could show one
        given = getattr(security, key)
        if given and not REFERENCE.fullmatch(given):
            yield key, f"a password stands in no function.toml; write {KINDS}"
    if security.username.startswith(("env:", "file:")) and not REFERENCE.fullmatch(security.username):
        yield "username", f"write the name itself, {KINDS}"
    if broker == "embedded":
        yield "protocol", "the embedded log is a file of this machine and has no protocol; leave the table out"
    sasl, tls = security.protocol.startswith("SASL_"), security.protocol.endswith("SSL")
    for key in ("mechanism", "username", "password"):
        if sasl and not getattr(security, key):
            yield key, f"{security.protocol} needs mechanism, username and password"
        if not sasl and getattr(security, key):
            yield key, f"{security.protocol} has no user; SASL_SSL and SASL_PLAINTEXT have"
    for key in _TLS_KEYS:
        if not tls and getattr(security, key):
            yield key, f"{security.protocol} is not encrypted; SSL and SASL_SSL are"
    if not tls and not security.check_hostname:
        yield "check_hostname", f"{security.protocol} has no certificates"
    if bool(security.certificate) != bool(security.key):
        yield ("certificate" if security.certificate else "key"), "certificate and key come together"
    if security.key_password and not security.key:
        yield "key_password", "there is no key"
