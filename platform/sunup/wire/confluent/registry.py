"""Schemas by their number, from a registry that speaks Confluent's REST API (Confluent's own, Karapace, Apicurio's).

GET /schemas/ids/{number} gives {"schema", "schemaType"?, "references"?: [{"name", "subject", "version"}]}, without a
type for Avro; GET /subjects/{subject}/versions/{version} the same of what is referred to. An error is {"error_code",
"message"}: 40401 no such subject, 40402 no such version, 40403 no such schema.
"""

import ssl
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final, NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

import msgspec

from sunup.errors import BadRequest, SchemasUnavailable, UsageError
from sunup.limits import SCHEMA_BYTES_MAX, SCHEMA_REFERENCES_MAX, SCHEMA_SECONDS_MAX
from sunup.secret import Secret

_UNKNOWN: Final = (40401, 40402, 40403)


class Address(msgspec.Struct, frozen=True, omit_defaults=True):
    """`url`: http(s)://user:password@host:port/path, read whenever something is asked; `ca`: a PEM file, or "" for the
    machine's authorities."""

    url: Secret
    ca: str = ""


class Schema(NamedTuple):
    """`kind`: AVRO, JSON, PROTOBUF. `references`: the texts it needs, each behind those that it needs itself."""

    kind: str
    text: str
    references: tuple[str, ...] = ()


class _Reference(msgspec.Struct, frozen=True):
    subject: str
    version: int


class _Answer(msgspec.Struct):
    schema: str
    schemaType: str | None = None  # as the registry writes it
    references: list[_Reference] | None = None


class _Error(msgspec.Struct):
    error_code: int


class Registry:
    """Blocks, at most SCHEMA_SECONDS_MAX for a schema with all it refers to. Keeps nothing."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def __repr__(self) -> str:
        return "Registry(...)"

    def schema(self, number: int) -> Schema:
        """Raises BadRequest (unknown_schema, or invalid_schema) for good, and SchemasUnavailable for now."""
        with self._visited() as visit:
            found = visit.get(f"/schemas/ids/{number}", f"schema {number}")
            texts = _texts(visit, found.references or (), {}, number)
        return Schema(found.schemaType or "AVRO", found.schema, tuple(texts.values()))

    @contextmanager
    def _visited(self) -> Iterator["_Visit"]:
        try:
            url = urlsplit(self._address.url.read())
            if url.scheme not in ("http", "https") or not url.hostname:
                raise SchemasUnavailable("the schema registry's URL is none: give http(s)://host:port")
            connection = _opened(url, self._address.ca)
        except (UsageError, OSError, ValueError) as error:
            what = error.message if isinstance(error, UsageError) else f"{self._address.ca or 'its port'}: {error}"
            raise SchemasUnavailable(f"the schema registry cannot be asked: {what}") from error
        try:
            yield _Visit(connection, url, time.monotonic() + SCHEMA_SECONDS_MAX)
        except (OSError, HTTPException, msgspec.MsgspecError) as error:
            what = f"the schema registry at {_place(url)} does not answer as one: {error}"
            raise SchemasUnavailable(what) from error
        finally:
            connection.close()


class _Visit(NamedTuple):
    connection: HTTPConnection
    url: SplitResult
    until: float

    def get(self, path: str, what: str) -> _Answer:
        self.connection.request("GET", self.url.path.rstrip("/") + path, headers=self._headers())
        body = b""
        with self.connection.getresponse() as response:
            while more := response.read1(64 * 1024):
                body += more
                if len(body) > SCHEMA_BYTES_MAX:
                    raise BadRequest(f"{what} is larger than {SCHEMA_BYTES_MAX} bytes", code="invalid_schema")
                if time.monotonic() > self.until:
                    raise TimeoutError(f"no whole answer in {SCHEMA_SECONDS_MAX:g} s")
        if response.status == 200:
            return msgspec.json.decode(body, type=_Answer)
        if response.status == 404 and msgspec.json.decode(body, type=_Error).error_code in _UNKNOWN:
            raise BadRequest(f"the schema registry at {_place(self.url)} has no {what}", code="unknown_schema")
        raise SchemasUnavailable(f"the schema registry at {_place(self.url)} answers {response.status} for {what}")

    def _headers(self) -> dict[str, str]:
        kinds = {"accept": "application/vnd.schemaregistry.v1+json, application/json"}
        if self.url.username is None:
            return kinds
        who = f"{unquote(self.url.username)}:{unquote(self.url.password or '')}"
        return {**kinds, "authorization": f"Basic {b64encode(who.encode()).decode()}"}


def _texts(
    visit: _Visit, references: list[_Reference] | tuple[()], texts: dict[_Reference, str], number: int
) -> dict[_Reference, str]:
    for reference in references:
        if reference in texts:
            continue
        if len(texts) >= SCHEMA_REFERENCES_MAX:
            what = f"schema {number} refers to more than {SCHEMA_REFERENCES_MAX} others"
            raise BadRequest(what, code="invalid_schema")
        texts[reference] = ""  # its place is behind what it refers to, and nothing refers to itself for ever
        path = f"/subjects/{quote(reference.subject, safe='')}/versions/{reference.version}"
        found = visit.get(path, f"version {reference.version} of {reference.subject}")
        _texts(visit, found.references or (), texts, number)
        del texts[reference]
        texts[reference] = found.schema
    return texts


def _opened(url: SplitResult, ca: str) -> HTTPConnection:
    if url.scheme == "http":
        return HTTPConnection(url.hostname or "", url.port, timeout=SCHEMA_SECONDS_MAX)
    context = ssl.create_default_context(cafile=ca or None)
    return HTTPSConnection(url.hostname or "", url.port, timeout=SCHEMA_SECONDS_MAX, context=context)


def _place(url: SplitResult) -> str:
    """Where it is, without who we are."""
    return f"{url.hostname}:{url.port}" if url.port else str(url.hostname)
