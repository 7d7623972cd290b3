"""Where a Feast repository keeps its online features, as a features URL."""

import os
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from feast import RepoConfig
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig, RedisType
from feast.infra.online_stores.sqlite import SqliteOnlineStoreConfig

from sunup.errors import FeaturesRefused

OVERRIDE: Final = "FEATURES_URL"

# Options of the client library that tune it and say nothing about the server: without meaning for a worker.
_TUNING: Final = (
    "health_check_interval",
    "max_connections",
    "protocol",
    "retry_on_timeout",
    "socket_connect_timeout",
    "socket_keepalive",
    "socket_timeout",
)
_TLS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")


def features_url(config: RepoConfig) -> str:
    """The URL workers read from: the environment's FEATURES_URL, else what the repository's `online_store` says.

    Raises FeaturesRefused for a store that workers cannot read.
    """
    override = os.environ.get(OVERRIDE)
    if override:
        return override
    store = config.online_store
    if isinstance(store, SqliteOnlineStoreConfig):
        # As SqliteOnlineStore._get_db_path: relative to the repository folder.
        return "sqlite://" + quote(str((Path(config.repo_path or ".") / store.path).resolve()))
    if isinstance(store, RedisOnlineStoreConfig):
        if store.redis_type != RedisType.redis:
            raise FeaturesRefused(
                f"The feature repository uses Redis as {store.redis_type.value}, and workers read a single Redis "
                f"server. Set redis_type: redis in feature_store.yaml, or name a server in {OVERRIDE}."
            )
        return _redis_url(store.connection_string)
    name = getattr(store, "type", None) or type(store).__name__
    raise FeaturesRefused(
        f"The feature repository's online store is {name}, and workers read sqlite and redis. Set online_store in "
        f"feature_store.yaml to one of them, or point {OVERRIDE} at a copy that is."
    )


def _redis_url(connection_string: str) -> str:
    """`host:port,db=1,password=x,ssl=true` as a URL, read by Feast's own parser."""
    nodes, options = RedisOnlineStore._parse_connection_string(connection_string)
    options = {key: value for key, value in options.items() if key not in _TUNING}
    tls = bool(options.pop("ssl", False))
    db, user, password = options.pop("db", 0), options.pop("username", ""), options.pop("password", "")
    query = {key: _text(options.pop(key)) for key in _TLS if key in options}
    if len(nodes) != 1 or options:
        what = f"the options {', '.join(sorted(options))}" if options else f"{len(nodes)} servers"
        raise FeaturesRefused(
            f"The Redis connection_string of the feature repository names {what}, which workers cannot use. Reduce it "
            f"to host:port with db, username, password and ssl options, or give a URL in {OVERRIDE}."
        )
    who = f"{quote(_text(user), safe='')}:{quote(_text(password), safe='')}@" if user or password else ""
    address = f"{nodes[0]['host']}:{nodes[0].get('port', 6379)}"
    return f"{'rediss' if tls else 'redis'}://{who}{address}/{db}{'?' + urlencode(query) if query and tls else ''}"


def _text(value: Any) -> str:
    """An option as Feast's parser gives it (it reads JSON: a password of digits arrives as a number)."""
    return str(value).lower() if isinstance(value, bool) else str(value)
