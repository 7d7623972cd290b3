"""Where a Redis server is, and how a URL says it."""

import ssl
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from sunup.errors import UsageError


@dataclass(frozen=True, slots=True)
class Address:
    """Where a Redis server is. `tls` None: plain TCP."""

    host: str
    port: int
    db: int = 0
    username: str = ""
    password: str = ""
    tls: ssl.SSLContext | None = None

    def __repr__(self) -> str:
        return f"{self.host}:{self.port}/{self.db}{' over TLS' if self.tls else ''}"  # never the password


def parse_address(url: str) -> Address:
    """An Address from `redis://[user:password@]host[:port][/db]`, or `rediss://` for TLS.

    TLS options as query parameters: `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` (paths), `ssl_cert_reqs`
    (none | required) and `ssl_check_hostname` (true | false). Raises UsageError for what it does not know.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    try:
        tls = _tls(options) if parts.scheme == "rediss" else None
        db = int(options.pop("db", "") or parts.path.strip("/") or 0)
        _nothing_left(options)
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        return Address(parts.hostname or "localhost", parts.port or 6379, db, user, password, tls)
    except (ValueError, OSError) as error:
        raise UsageError(f"The features URL cannot be read: {error}. Give redis://[:password@]host:port/db.") from error


def _nothing_left(options: dict[str, str]) -> None:
    if options:
        raise ValueError(f"unknown option {', '.join(sorted(options))}")


def _tls(options: dict[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.pop("ssl_ca_certs", None))
    requires = options.pop("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if requires not in ("none", "required"):
        raise ValueError(f"ssl_cert_reqs is none or required, not {requires}")
    checks = options.pop("ssl_check_hostname", "true").lower() == "true"
    context.check_hostname = checks and requires == "required"
    if requires == "none":
        context.verify_mode = ssl.CERT_NONE
    certificate, key = options.pop("ssl_certfile", None), options.pop("ssl_keyfile", None)
    if certificate:
        context.load_cert_chain(certificate, key)
    return context
