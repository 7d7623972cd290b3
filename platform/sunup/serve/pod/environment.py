"""What the environment of a container says of its pod, before anything heavy is imported."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sunup.errors import UsageError
from sunup.settings import EMBEDDED, STREAM_BROKER, Settings

CALLS: Final = "calls"
STREAM: Final = "stream"

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Environment:
    """A pod as its container describes it. `digest`: what the bundle must have, "" for any; `settings`: the
    revision's; `state`: a folder it may write to; `api_keys`: a key file, None where anyone may call."""

    role: str
    bundle: Path
    digest: str
    settings: Settings
    revision: int
    state: Path
    api_keys: Path | None
    port: int
    metrics_port: int


def read(environ: Mapping[str, str]) -> Environment:
    """The variables of docs/pods.md; an empty one counts as absent. Raises UsageError that names the variable."""
    given = {name: value for name, value in environ.items() if value}
    role = given.get("SUNUP_ROLE", CALLS)
    if role not in (CALLS, STREAM):
        raise UsageError(f"SUNUP_ROLE is {role!r}. A pod is for {CALLS} or for a {STREAM}: set one of these words.")
    digest = given.get("SUNUP_DIGEST", "")
    if digest and not _DIGEST.fullmatch(digest):
        raise UsageError(
            "SUNUP_DIGEST is no bundle's digest. Set the 64 hexadecimal digits that `platform deploy` says."
        )
    keys = given.get("SUNUP_API_KEYS")
    found = Environment(
        role=role,
        bundle=Path(given.get("SUNUP_BUNDLE", "/bundle")),
        digest=digest,
        settings=_settings(given.get("SUNUP_SETTINGS")),
        revision=_revision(given),
        state=Path(given.get("SUNUP_STATE", "/tmp/sunup")),
        api_keys=None if keys is None else Path(keys),
        port=_port(given, "PORT", 8080),
        metrics_port=_port(given, "METRICS_PORT", 9464),
    )
    if found.port == found.metrics_port:
        raise UsageError(f"PORT and METRICS_PORT are both {found.port}. Set two ports.")
    return found


def check_stream(settings: Mapping[str, str]) -> None:
    """Whether a stream pod can read its topic. Raises UsageError."""
    broker = settings.get(STREAM_BROKER, "")
    if broker in ("", EMBEDDED):
        what = f"{STREAM_BROKER} is {EMBEDDED!r}" if broker else f"there is no {STREAM_BROKER}"
        raise UsageError(
            f"In the settings of this revision {what}, and a pod reads from Kafka only. Set it to the brokers, "
            "host:port,..., as [stream] broker in function.toml."
        )


def _settings(name: str | None) -> Settings:
    """The settings in a file. What is in it is never repeated: it may hold passwords."""
    if name is None:
        return Settings()
    try:
        text = Path(name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(
            f"SUNUP_SETTINGS names {name}, which cannot be read: {reason}. Mount the settings there."
        ) from None
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise UsageError(
            f"SUNUP_SETTINGS names {name}, which is no JSON object of texts. Mount the settings of the revision."
        )
    return Settings(found)


def _revision(given: Mapping[str, str]) -> int:
    """SUNUP_REVISION, else the number at the end of Knative's K_REVISION (`fraud-00003`), else 1."""
    said = given.get("SUNUP_REVISION")
    if said is None:
        number = re.search(r"[0-9]{1,9}$", given.get("K_REVISION", ""))
        return max(1, int(number[0])) if number else 1
    if not re.fullmatch(r"[0-9]{1,9}", said) or int(said) < 1:
        raise UsageError(f"SUNUP_REVISION is {said!r}. Set a whole number from 1 on, or leave it out.")
    return int(said)


def _port(given: Mapping[str, str], name: str, otherwise: int) -> int:
    said = given.get(name)
    if said is None:
        return otherwise
    if not re.fullmatch(r"[0-9]{1,5}", said) or not 1 <= int(said) <= 65535:
        raise UsageError(f"{name} is {said!r}. Set a port from 1 to 65535.")
    return int(said)
