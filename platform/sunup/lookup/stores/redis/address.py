"""Where Redis is: one server, a master that Sentinels know, or a cluster; and how a URL says it."""

import re
import ssl
from dataclasses import dataclass, replace
from typing import Final, TypeAlias
from urllib.parse import parse_qsl, unquote

from sunup.errors import UsageError

PORT: Final = 6379
SENTINEL_PORT: Final = 26379
MASTER: Final = "mymaster"  # the name that Redis' own configuration and Feast give a master by default
SCHEMES: Final = ("redis", "rediss", "redis-sentinel", "rediss-sentinel", "redis-cluster", "rediss-cluster")
_URL: Final = re.compile(r"(?P<scheme>[a-z-]+)://(?P<nodes>[^/?#]*)(?P<path>[^?#]*)(\?(?P<query>[^#]*))?")
_NODE: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^:\[\],\s]*)(:(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a Redis server is, and how to be let in. `tls` None: plain TCP."""

    host: str
    port: int
    db: int = 0
    username: str = ""
    password: str = ""
    tls: ssl.SSLContext | None = None

    def __repr__(self) -> str:
        return f"{self.host}:{self.port}/{self.db}{' over TLS' if self.tls else ''}"  # never the password

    def at(self, host: str, port: int) -> "Address":
        """Another server with the same password, database and TLS."""
        return replace(self, host=host, port=port)


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Sentinels that know where the master called `name` is. `data`: how that one lets us in; its place is theirs."""

    sentinels: tuple[Address, ...]
    name: str
    data: Address

    def __repr__(self) -> str:
        return f"master {self.name} of {', '.join(f'{each.host}:{each.port}' for each in self.sentinels)}"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster; each of `seeds` may know it."""

    seeds: tuple[Address, ...]

    def __repr__(self) -> str:
        return f"cluster of {', '.join(f'{each.host}:{each.port}' for each in self.seeds)}"


Place: TypeAlias = Address | Sentinels | Cluster


def parse_place(url: str) -> Place:
    """What a features URL of one of SCHEMES says:

    `redis://[user:password@]host[:port][/db]`; `redis-sentinel://[user:password@]host[:port],host.../[db]?master=NAME`;
    `redis-cluster://[user:password@]host[:port],host...`; `rediss` for TLS. User and password are the data servers'.

    TLS options as query parameters: `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` (paths), `ssl_cert_reqs`
    (none | required) and `ssl_check_hostname` (true | false). What Sentinels themselves want is said apart, as Feast's
    client does: `sentinel_username`, `sentinel_password`, `sentinel_ssl` (true | false) with the same TLS options.
    Raises UsageError for what it does not know.
    """
    try:
        parts = _split(url)
        options = dict(parse_qsl(parts["query"] or ""))
        scheme, _, kind = parts["scheme"].partition("-")
        context = _tls(options) if scheme == "rediss" or options.get("sentinel_ssl") == "true" else None
        db = int(options.pop("db", "") or parts["path"].strip("/") or 0)
        who, _, nodes = parts["nodes"].rpartition("@")
        user, _, password = who.partition(":")
        tls = context if scheme == "rediss" else None
        data = Address("", 0, db, unquote(user), unquote(password), tls)
        place = _place(kind, data, nodes, options, context)
        _nothing_left(options)
    except (ValueError, OSError) as error:
        raise UsageError(
            f"The features URL cannot be read: {error}. Give redis://[:password@]host:port/db, "
            "redis-sentinel://host:port,host:port/db?master=NAME or redis-cluster://host:port,host:port."
        ) from error
    return place


def _split(url: str) -> re.Match[str]:
    """A URL in its parts. Not by urlsplit, which in some Pythons takes no second host beside one in brackets."""
    found = _URL.fullmatch(url)
    if found is None:
        raise ValueError("it is no URL")
    return found


def _place(kind: str, data: Address, nodes: str, options: dict[str, str], context: ssl.SSLContext | None) -> Place:
    if kind == "sentinel":
        name = options.pop("master", MASTER)
        user, password = options.pop("sentinel_username", ""), options.pop("sentinel_password", "")
        tls = context if _true(options.pop("sentinel_ssl", "false"), "sentinel_ssl") else None
        asked = Address("", 0, 0, user, password, tls)
        return Sentinels(tuple(asked.at(*each) for each in _nodes(nodes, SENTINEL_PORT)), name, data)
    servers = tuple(data.at(*each) for each in _nodes(nodes, PORT))
    if kind == "cluster":
        if data.db:
            raise ValueError("a Redis cluster has no database but 0")
        return Cluster(servers)
    if len(servers) != 1:
        raise ValueError(f"it names {len(servers)} servers, and says neither redis-sentinel nor redis-cluster")
    return servers[0]


def _nothing_left(options: dict[str, str]) -> None:
    if options:
        raise ValueError(f"unknown option {', '.join(sorted(options))}")


def _nodes(text: str, port: int) -> list[tuple[str, int]]:
    """Hosts and ports of `host:port,[v6]:port,host`; a missing host is this machine."""
    nodes = []
    for each in text.split(","):
        found = _NODE.fullmatch(each)
        if found is None or int(found["port"] or port) > 65535:
            raise ValueError(f"{each!r} is no host:port")
        nodes.append((unquote(found["host"]).strip("[]").lower() or "localhost", int(found["port"] or port)))
    return nodes


def _true(text: str, name: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{name} is true or false, not {text}")
    return text == "true"


def _tls(options: dict[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.pop("ssl_ca_certs", None))
    requires = options.pop("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if requires not in ("none", "required"):
        raise ValueError(f"ssl_cert_reqs is none or required, not {requires}")
    checks = _true(options.pop("ssl_check_hostname", "true").lower(), "ssl_check_hostname")
    context.check_hostname = checks and requires == "required"
    if requires == "none":
        context.verify_mode = ssl.CERT_NONE
    certificate, key = options.pop("ssl_certfile", None), options.pop("ssl_keyfile", None)
    if certificate:
        context.load_cert_chain(certificate, key)
    return context
