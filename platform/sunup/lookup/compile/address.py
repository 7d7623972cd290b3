"""Where a Feast repository keeps its online features, as a features URL."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from feast import RepoConfig
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig, RedisType
from feast.infra.online_stores.sqlite import SqliteOnlineStoreConfig

from sunup.errors import FeaturesRefused
from sunup.lookup.stores.open import INSTALL
from sunup.lookup.stores.postgres.address import SCHEMES, TLS_OPTIONS

OVERRIDE: Final = "FEATURES_URL"

# Options of the client library that tune it and say nothing about the server: without meaning for a worker.
_TUNING: Final = (
    "cluster_error_retry_attempts",
    "health_check_interval",
    "max_connections",
    "min_other_sentinels",
    "protocol",
    "reinitialize_steps",
    "require_full_coverage",
    "retry_on_timeout",
    "skip_full_coverage_check",
    "socket_connect_timeout",
    "socket_keepalive",
    "socket_timeout",
)
_SCHEMES: Final = {RedisType.redis: "", RedisType.redis_sentinel: "-sentinel", RedisType.redis_cluster: "-cluster"}
_PORTS: Final = {RedisType.redis_sentinel: 26379}
_TLS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")


def features_url(config: RepoConfig) -> str:
    """The URL workers read from: the environment's FEATURES_URL, else what the repository's `online_store` says.

    Raises FeaturesRefused for a store that workers cannot read.
    """
    override = os.environ.get(OVERRIDE)
    if override:
        if override.startswith(SCHEMES) and find_spec("psycopg") is None:
            raise FeaturesRefused(f"{OVERRIDE} is a PostgreSQL database, and psycopg is missing. {INSTALL}")
        return override
    store = config.online_store
    if isinstance(store, SqliteOnlineStoreConfig):
        # As SqliteOnlineStore._get_db_path: relative to the repository folder.
        return "sqlite://" + quote(str((Path(config.repo_path or ".") / store.path).resolve()))
    if isinstance(store, RedisOnlineStoreConfig):
        return _redis_url(store)
    name = getattr(store, "type", None) or type(store).__name__
    if name == "postgres":  # by name: Feast imports psycopg with the class
        return _postgres_url(store, Path(config.repo_path or "."))
    raise FeaturesRefused(
        f"The feature repository's online store is {name}, and workers read sqlite, redis and postgres. Set "
        f"online_store in feature_store.yaml to one of them, or point {OVERRIDE} at a copy that is."
    )


def remedy(error: Exception) -> str:
    """What to do about a repository that Feast cannot open."""
    return f"It needs psycopg. {INSTALL}" if "postgres_online_store" in str(error) else "Fix it there."


def _postgres_url(store: Any, repo_dir: Path) -> str:
    """Feast's `online_store: {type: postgres, ...}`; a certificate's relative path is taken from the repository."""
    # As Feast names it where no schema is given (feast/infra/utils/postgres/connection_utils.py).
    options = {"schema": (store.db_schema or store.user).strip()}
    given = (store.sslmode, store.sslrootcert_path, store.sslcert_path, store.sslkey_path)
    for name, value in zip(TLS_OPTIONS, given, strict=True):
        if value:
            options[name] = value if name == "sslmode" else str((repo_dir / value).resolve())
    user, password, host, database = (
        quote(part, safe="") for part in (store.user, store.password, store.host, store.database)
    )
    return f"postgresql://{user}:{password}@{host}:{store.port}/{database}?{urlencode(options)}"


def _redis_url(store: RedisOnlineStoreConfig) -> str:
    """`host:port,host:port,db=1,password=x,ssl=true` and `redis_type` as a URL, read by Feast's own parser."""
    nodes, options = RedisOnlineStore._parse_connection_string(store.connection_string)
    options = {key: value for key, value in options.items() if key not in _TUNING}
    tls = bool(options.pop("ssl", False))
    db, user, password = options.pop("db", 0), options.pop("username", ""), options.pop("password", "")
    if store.redis_type == RedisType.redis_cluster and db:
        options["db"] = db  # clusters have none
    query = _sentinel_options(store, options) if store.redis_type == RedisType.redis_sentinel else {}
    certificates = {key: _text(options.pop(key)) for key in _TLS if key in options}
    if tls or query.get("sentinel_ssl") == "true":
        query |= certificates
    if options or not nodes or (len(nodes) > 1 and store.redis_type == RedisType.redis):
        what = f"the options {', '.join(sorted(options))}" if options else f"{len(nodes)} servers"
        raise FeaturesRefused(
            f"The Redis connection_string of the feature repository names {what}, which workers cannot use. Reduce it "
            f"to host:port with db, username, password and ssl options, or give a URL in {OVERRIDE}."
        )
    who = f"{quote(_text(user), safe='')}:{quote(_text(password), safe='')}@" if user or password else ""
    port = _PORTS.get(store.redis_type, 6379)
    where = ",".join(f"{node['host']}:{node.get('port', port)}" for node in nodes)
    if store.redis_type != RedisType.redis_cluster:
        where += f"/{db}"
    scheme = f"redis{'s' if tls else ''}{_SCHEMES[store.redis_type]}"
    return f"{scheme}://{who}{where}{'?' + urlencode(query) if query else ''}"


def _sentinel_options(store: RedisOnlineStoreConfig, options: dict[str, Any]) -> dict[str, str]:
    """The master's name, and what Sentinels themselves want: `sentinel_kwargs` of Feast's client, a JSON object. The
    other options are the master's alone."""
    asked = options.get("sentinel_kwargs", {})
    known = asked if isinstance(asked, dict) and asked.keys() <= {"username", "password", "ssl"} else None
    if known is not None:
        options.pop("sentinel_kwargs", None)
    return {"master": store.sentinel_master} | {f"sentinel_{key}": _text(value) for key, value in (known or {}).items()}


def _text(value: Any) -> str:
    """An option as Feast's parser gives it (it reads JSON: a password of digits arrives as a number)."""
    return str(value).lower() if isinstance(value, bool) else str(value)
