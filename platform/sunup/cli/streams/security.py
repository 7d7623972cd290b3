"""What workers are told of how to be let in: the references of a function's [stream], resolved where it is deployed."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import msgspec

from sunup.bundle.declare.stream.reference import resolved
from sunup.bundle.manifest import SecuritySpec, StreamSpec
from sunup.errors import UsageError
from sunup.secret import Secret
from sunup.settings import SCHEMA_REGISTRY, STREAM_SECURITY
from sunup.stream.kafka.security import Security
from sunup.wire.confluent.registry import Address


def security_settings(
    declared: StreamSpec, environment: Mapping[str, str], root: Path, *, kafka: bool
) -> dict[str, str]:
    """STREAM_SECURITY and SCHEMA_REGISTRY, where they are declared. `root`: the folder that relative paths begin at.
    `kafka`: the topics are there, not in the embedded log.

    Values of "env:" are in them from now on, as those of a features URL are; those of "file:" stay in their files.
    Raises UsageError where the environment lacks something, or a file is not there.
    """
    made = {}
    security = declared.security
    if security is not None and kafka:
        made[STREAM_SECURITY] = msgspec.json.encode(_security(security, environment, root)).decode()
    if declared.schema_registry:
        if find_spec("fastavro") is None:
            raise UsageError("[stream] schema_registry: records are read with fastavro. pip install 'sunup[avro]'.")
        url = resolved(declared.schema_registry, "[stream] schema_registry", environment)
        ca = _file(security.ca, "ca", environment, root) if security is not None else ""
        made[SCHEMA_REGISTRY] = msgspec.json.encode(Address(url, ca)).decode()
    return made


def _security(declared: SecuritySpec, environment: Mapping[str, str], root: Path) -> Security:
    def secret(key: str) -> Secret:
        return resolved(getattr(declared, key), f"[stream.security] {key}", environment)

    def file(key: str) -> str:
        return _file(getattr(declared, key), key, environment, root)

    return Security(
        declared.protocol,
        declared.mechanism,
        secret("username"),
        secret("password"),
        file("ca"),
        file("certificate"),
        file("key"),
        secret("key_password"),
        declared.check_hostname,
    )


def _file(given: str, key: str, environment: Mapping[str, str], root: Path) -> str:
    """The absolute path of a PEM file that is there now; later on it may be another one, and workers read that."""
    if not given:
        return ""
    named = resolved(given, f"[stream.security] {key}", environment)
    path = root / (named.file or named.value)
    if not path.is_file():
        raise UsageError(f"[stream.security] {key}: there is no file {path}.")
    return str(path)
