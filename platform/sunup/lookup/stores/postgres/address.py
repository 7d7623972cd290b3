"""Where a PostgreSQL database is, and how a URL says it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from sunup.errors import UsageError

SCHEMES: Final = ("postgresql", "postgres")
# As libpq names them; paths are of the machine that serves.
TLS_OPTIONS: Final = ("sslmode", "sslrootcert", "sslcert", "sslkey")
TLS_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a PostgreSQL database is. `schema`: where Feast's tables are; `tls`: libpq's options of TLS."""

    host: str
    port: int
    database: str
    user: str
    password: str = field(default="", repr=False)
    schema: str = "public"
    tls: tuple[tuple[str, str], ...] = ()

    def parameters(self, session: Mapping[str, str]) -> dict[str, Any]:
        """libpq's connection parameters, TLS included. `session`: settings of each session."""
        # As Feast does: its own schema, then public.
        path = self.schema if self.schema == "public" else f"{self.schema},public"
        settings = {"search_path": path, **session}
        return {
            "host": self.host,
            "port": self.port,
            "dbname": self.database,
            "user": self.user,
            "password": self.password or None,
            "client_encoding": "UTF8",
            "application_name": "sunup",
            "options": " ".join(f"-c {name}={_escaped(value)}" for name, value in settings.items()),
            **dict(self.tls),
        }

    def __repr__(self) -> str:
        return f"{self.host}:{self.port}/{self.database}"  # never the password


def parse_address(url: str) -> Address:
    """An Address from `postgresql://[user[:password]@]host[:port]/database`.

    Query parameters: `schema` (public unless given), `sslmode` (as libpq; prefer unless given), `sslrootcert`,
    `sslcert`, `sslkey` (paths). Raises UsageError for what it does not know.
    """
    try:
        return _address(url)
    except ValueError as error:
        raise UsageError(
            f"The features URL cannot be read: {error}. Give postgresql://user:password@host:port/database, and "
            "?schema= and ?sslmode= where they matter."
        ) from error


def _address(url: str) -> Address:
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    schema = options.pop("schema", "public")
    tls = tuple((name, options.pop(name)) for name in TLS_OPTIONS if name in options)
    database, user, password = (unquote(part or "") for part in (parts.path.strip("/"), parts.username, parts.password))
    if options:
        raise ValueError(f"unknown option {', '.join(sorted(options))}")
    if dict(tls).get("sslmode", "prefer") not in TLS_MODES:
        raise ValueError(f"sslmode is one of {', '.join(TLS_MODES)}")
    if not (database and user and schema):
        raise ValueError("it names no database, user or schema")
    host = unquote(parts.hostname or "localhost")  # quoted: a folder with a socket in it
    return Address(host, parts.port or 5432, database, user, password, schema, tls)


def _escaped(value: str) -> str:
    """A value within `options`, where spaces separate."""
    return value.replace("\\", "\\\\").replace(" ", "\\ ")
