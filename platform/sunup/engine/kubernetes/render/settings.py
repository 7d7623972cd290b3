"""A revision's settings as one Secret: settings.json, the files it names, and what KEDA must read by itself.

Its name carries a hash of its contents: other contents are another Secret, so pods of a revision always find what they
were made with, and a changed setting is a new revision.
"""

import hashlib
import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from sunup.bundle.manifest import Manifest
from sunup.engine.kubernetes.render.names import labels, settings_name
from sunup.engine.kubernetes.render.target import Object, Target
from sunup.settings import SCHEMA_REGISTRY, STREAM_SECURITY

FOLDER: Final = "/etc/sunup"  # where the Secret is mounted
FILE: Final = "settings.json"
# Of a stream.kafka.security.Security: its key, the file it becomes in the Secret, KEDA's name of the same.
PEM: Final = {"ca": ("kafka-ca.pem", "ca"), "certificate": ("kafka.pem", "cert"), "key": ("kafka.key", "key")}
WORDS: Final = {
    "username": ("kafka-username", "username"),
    "password": ("kafka-password", "password"),
    "key_password": ("kafka-key-password", "keyPassword"),
}


class Packed(NamedTuple):
    """Settings whose paths are those in a pod, and the files that lie there."""

    settings: dict[str, str]
    files: dict[str, bytes]


def packed(settings: Mapping[str, str], read: Callable[[str], bytes]) -> Packed:
    """`settings` made for the machine they are deployed from, made for pods: each file they name comes along.

    `read`: the contents of a file of this machine by its absolute path; what it raises is passed on.
    """
    made, files = dict(settings), {}
    if STREAM_SECURITY in made:
        security = json.loads(made[STREAM_SECURITY])
        for key, (name, _) in PEM.items():
            if security.get(key):
                files[name] = read(security[key])
                security[key] = f"{FOLDER}/{name}"
        for key, (name, _) in WORDS.items():
            _move(security, key, name, files, read)
        made[STREAM_SECURITY] = _encode(security)
    if SCHEMA_REGISTRY in made:
        address = json.loads(made[SCHEMA_REGISTRY])
        _move(address, "url", "schema-registry-url", files, read)
        if address.get("ca"):
            files["schema-registry-ca.pem"] = read(address["ca"])
            address["ca"] = f"{FOLDER}/schema-registry-ca.pem"
        made[SCHEMA_REGISTRY] = _encode(address)
    return Packed(made, files)


def secret(manifest: Manifest, digest: str, target: Target) -> Object | None:
    """The Secret; None where workers need no settings."""
    data = contents(target)
    if not data:
        return None
    whole = hashlib.sha256(msgspec.json.encode(data, order="sorted")).hexdigest()
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": settings_name(manifest.function, whole),
            "namespace": target.namespace,
            # Not the digest's label: a new bundle with the same settings has the same Secret.
            "labels": {k: v for k, v in labels(manifest, digest, "settings").items() if k not in _OF_BUNDLE},
        },
        "type": "Opaque",
        "immutable": True,
        "data": data,
    }


def contents(target: Target) -> dict[str, str]:
    """`data` of the Secret: each file's contents in base64, by name."""
    files = dict(target.files)
    for name, value in keda_values(target.settings).items():
        files.setdefault(name, value.encode())
    if target.settings:
        files[FILE] = _encode(dict(target.settings)).encode()
    return {name: b64encode(files[name]).decode() for name in sorted(files)}


def keda_values(settings: Mapping[str, str]) -> dict[str, str]:
    """What KEDA reads of the Secret beside files: user and passwords that stand in the settings themselves."""
    security = kafka_security(settings)
    given = {name: security.get(key, {}).get("value", "") for key, (name, _) in WORDS.items()}
    return {name: value for name, value in given.items() if value}


def keda_parameters(settings: Mapping[str, str]) -> dict[str, str]:
    """KEDA's parameters of the Kafka trigger that are in the Secret: parameter -> key there."""
    security = kafka_security(settings)
    return {parameter: name for key, (name, parameter) in (PEM | WORDS).items() if security.get(key)}


def kafka_security(settings: Mapping[str, str]) -> dict[str, Any]:
    """The setting STREAM_SECURITY as its JSON; empty where Kafka is open."""
    made: dict[str, Any] = json.loads(settings.get(STREAM_SECURITY, "{}"))
    return made


_OF_BUNDLE: Final = ("app.kubernetes.io/version", "sunup.dev/digest")


def _move(given: dict[str, Any], key: str, name: str, files: dict[str, bytes], read: Callable[[str], bytes]) -> None:
    """A sunup.secret.Secret that is in a file: into the Secret, without the line break at its end."""
    if path := given.get(key, {}).get("file"):
        files[name] = read(path).removesuffix(b"\n").removesuffix(b"\r")
        given[key] = {"file": f"{FOLDER}/{name}"}


def _encode(value: object) -> str:
    return msgspec.json.encode(value, order="sorted").decode()
