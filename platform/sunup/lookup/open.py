"""From a features URL to a store. The URL is a setting of the engine, never part of a bundle."""

import ssl
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from sunup.errors import UsageError
from sunup.lookup.memory import MemoryStore
from sunup.lookup.plan import ReadPlan
from sunup.lookup.redis import Address, RedisStore
from sunup.lookup.sqlite import SqliteStore
from sunup.lookup.store import Store


def open_store(url: str, plan: ReadPlan) -> Store:
    """The store at `url`: `sqlite:///abs/path`, `redis://[user:password@]host:port/db`, `rediss://...` or `memory:`.

    Touches nothing: await the store's `open()` in the process that reads (connections do not survive a fork).
    Raises UsageError for any other URL.
    """
    parts = urlsplit(url)
    if parts.scheme == "sqlite" and not parts.netloc and len(parts.path) > 1:
        return SqliteStore(Path(unquote(parts.path)), plan)
    if parts.scheme in ("redis", "rediss"):
        return RedisStore(parse_address(url), plan)
    if parts.scheme == "memory":
        return MemoryStore(plan)
    raise UsageError(
        f"A features URL of the form {parts.scheme}: cannot be read. "
        "Give sqlite:///absolute/path, redis://host:port/db or rediss://host:port/db."
    )


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
