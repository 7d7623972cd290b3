"""Which version an alias names, asked so cheaply that it can be asked every second: no MLflow is imported for it.

A tracking server is asked over its REST interface (MLflow's `GET /api/2.0/mlflow/registered-models/alias`) on one
kept-alive connection, a SQLite file directly. `open_aliases` returns None for what only MLflow's own client can reach.
"""

import base64
import hashlib
import http.client
import json
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn, Protocol
from urllib.parse import unquote, urlencode, urlsplit, urlunsplit

from sunup.errors import RegistryError, UsageError
from sunup.limits import REGISTRY_REPLY_BYTES_MAX, REGISTRY_SECONDS_MAX
from sunup.registry.source import Reference, Source
from sunup.registry.sqlite import PREFIX, open_sqlite

PATH: Final = "/api/2.0/mlflow/registered-models/alias"
# What of the environment decides how a registry is reached: with other values it is another registry.
RELEVANT: Final = re.compile(r"MLFLOW_.*|(?:HTTPS?|ALL|NO)_PROXY|(?:REQUESTS|CURL)_CA_BUNDLE|HOME", re.IGNORECASE)
# What MLflow's client knows to do, and this reader does not.
_BEYOND: Final = ("REGISTRY_URI", "TRACKING_AUTH", "TRACKING_AWS_SIGV4", "TRACKING_CLIENT_CERT_PATH", "WORKSPACE")
_UNKNOWN: Final = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"})  # no such model, or alias


class Aliases(Protocol):
    """Tells which version an alias names."""

    def version(self, model: str, alias: str) -> str:
        """The version's number. Raises UsageError when there is no such alias, RegistryError when nothing answers."""

    def close(self) -> None:
        """Give back what is open."""


def open_aliases(uri: str, environment: Mapping[str, str]) -> Aliases | None:
    """A reader of the registry at `uri`, as `environment` says it is reached; None when that takes MLflow's client.

    Connects at the first question. Raises RegistryError for a SQLite file that is not there.
    """
    if uri.startswith(PREFIX):
        source = open_sqlite(uri, lambda: _never(uri))
        if source is None and not Path(uri.removeprefix(PREFIX)).is_file():
            raise RegistryError(f"The model registry {uri} is not there.")
        return None if source is None else SourceAliases(source)
    beyond = any(environment.get(f"MLFLOW_{name}") for name in _BEYOND)
    if not uri.startswith(("http://", "https://")) or beyond or _is_proxied(uri, environment):
        return None
    named = "MLFLOW_TRACKING_USERNAME" in environment or "MLFLOW_TRACKING_TOKEN" in environment
    return RestAliases(uri, environment) if named or not _has_credentials_file(environment) else None


def fingerprint(uri: str) -> str:
    """A digest of a registry's address, without what is secret in it."""
    parts = urlsplit(uri)
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], path=parts.path.rstrip("/"), query=""))
    return hashlib.sha256(bare.encode()).hexdigest()[:16]


class SourceAliases:
    """Aliases of a registry that answers in milliseconds."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def version(self, model: str, alias: str) -> str:
        """See Aliases."""
        return self._source.resolve(Reference(f"{model}@{alias}", model, alias=alias)).version

    def close(self) -> None:
        """See Aliases; nothing is."""


class RestAliases:
    """Aliases of an MLflow tracking server. `environment`: user, password, token and certificates, as MLflow names
    them."""

    def __init__(self, uri: str, environment: Mapping[str, str]) -> None:
        parts = urlsplit(uri)
        self._host = parts.hostname or ""
        self._port = parts.port
        self._path = parts.path.rstrip("/") + PATH
        self._where = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))
        self._tls = _tls(environment) if parts.scheme == "https" else None
        self._headers = {"accept": "application/json", **_authorization(environment, parts.username, parts.password)}
        self._connection: http.client.HTTPConnection | None = None

    def __repr__(self) -> str:
        return f"RestAliases({self._where!r})"

    def version(self, model: str, alias: str) -> str:
        """See Aliases."""
        target = f"{self._path}?{urlencode({'name': model, 'alias': alias})}"
        try:
            status, body = self._ask(target)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise RegistryError(
                f"The model registry at {self._where} does not answer: {error or repr(error)}"
            ) from error
        try:
            answer = json.loads(body)
            if status == 200:
                return str(int(answer["model_version"]["version"]))
            if answer.get("error_code") in _UNKNOWN:
                raise UsageError(f"There is no {model}@{alias} in {self._where}: {str(answer.get('message'))[:200]}")
        except (ValueError, TypeError, KeyError, AttributeError):
            pass  # not MLflow: told below
        raise self._refusal(status)

    def _ask(self, target: str) -> tuple[int, bytes]:
        """One request. A kept connection that the server has closed meanwhile is opened again."""
        kept = self._connection is not None
        try:
            return self._exchange(target)
        except (ConnectionError, http.client.BadStatusLine):
            if not kept:
                raise
        self.close()
        return self._exchange(target)

    def _exchange(self, target: str) -> tuple[int, bytes]:
        if self._connection is None and self._tls is None:
            self._connection = http.client.HTTPConnection(self._host, self._port, timeout=REGISTRY_SECONDS_MAX)
        elif self._connection is None:
            seconds, tls = REGISTRY_SECONDS_MAX, self._tls
            self._connection = http.client.HTTPSConnection(self._host, self._port, timeout=seconds, context=tls)
        self._connection.request("GET", target, headers=self._headers)
        response = self._connection.getresponse()
        body = response.read(REGISTRY_REPLY_BYTES_MAX + 1)
        if len(body) > REGISTRY_REPLY_BYTES_MAX:
            self.close()
            raise http.client.HTTPException(f"its answer is over {REGISTRY_REPLY_BYTES_MAX} bytes")
        return response.status, body

    def _refusal(self, status: int) -> RegistryError:
        self.close()
        if status in (401, 403):
            return RegistryError(
                f"The model registry at {self._where} refuses access. Set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, and deploy with --follow again."
            )
        return RegistryError(f"The model registry at {self._where} answers with status {status}, not with a version.")

    def close(self) -> None:
        """See Aliases; the next question opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _authorization(environment: Mapping[str, str], user: str | None, password: str | None) -> dict[str, str]:
    """As MLflow's client does: a user name beats a token, and what the address says beats neither."""
    token = environment.get("MLFLOW_TRACKING_TOKEN")
    named, secret = environment.get("MLFLOW_TRACKING_USERNAME"), environment.get("MLFLOW_TRACKING_PASSWORD")
    if not (named and secret) and not token and user:
        named, secret = unquote(user), unquote(password or "")
    if named and secret is not None:
        return {"authorization": f"Basic {base64.b64encode(f'{named}:{secret}'.encode()).decode()}"}
    return {"authorization": f"Bearer {token}"} if token else {}


def _tls(environment: Mapping[str, str]) -> ssl.SSLContext:
    if environment.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        tls = ssl.create_default_context()
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
        return tls
    names = ("MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    known = next((environment[name] for name in names if environment.get(name)), None)
    try:
        return ssl.create_default_context(cafile=known)
    except OSError as error:
        raise RegistryError(f"The certificates in {known} cannot be read: {error}.") from error


def _is_proxied(uri: str, environment: Mapping[str, str]) -> bool:
    """Whether the environment names a proxy for this address, and does not except it."""
    said = {name.lower(): value for name, value in environment.items()}
    parts = urlsplit(uri)
    if not said.get(f"{parts.scheme}_proxy") and not said.get("all_proxy"):
        return False
    excepted = [name.strip().lstrip(".") for name in said.get("no_proxy", "").split(",") if name.strip()]
    return not any(name == "*" or f".{parts.hostname}".endswith(f".{name}") for name in excepted)


def _has_credentials_file(environment: Mapping[str, str]) -> bool:
    """Whether MLflow's client may find a user name and a password at home."""
    return (Path(environment.get("HOME") or Path.home()) / ".mlflow" / "credentials").is_file()


def _never(uri: str) -> NoReturn:
    raise RegistryError(f"{uri} was asked for a model's files; only for its aliases it can be asked here.")
