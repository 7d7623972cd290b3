"""From a features URL to a store. The URL is a setting of the engine, never part of a bundle."""

from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from sunup.errors import UsageError
from sunup.lookup.plan import ReadPlan
from sunup.lookup.store import Store
from sunup.lookup.stores.memory import MemoryStore
from sunup.lookup.stores.postgres import address as postgres
from sunup.lookup.stores.redis.address import SCHEMES, Cluster, parse_place
from sunup.lookup.stores.redis.cluster import ClusterStore
from sunup.lookup.stores.redis.store import RedisStore
from sunup.lookup.stores.sqlite import SqliteStore

FORMS: Final = (
    "Give sqlite:///absolute/path, redis://host:port/db, redis-sentinel://host:port,.../db?master=NAME or "
    "redis-cluster://host:port,... (rediss for TLS), or postgresql://user:password@host:port/database."
)
INSTALL: Final = "Install it with Sunup: pip install 'sunup[postgres]'."


def open_store(url: str, plan: ReadPlan) -> Store:
    """The store at `url`: `sqlite:///abs/path`, `postgresql://user:password@host:port/database`, `memory:`, or Redis as
    `stores/redis/address.py` says.

    Touches nothing: await the store's `open()` in the process that reads (connections do not survive a fork).
    Raises UsageError for any other URL.
    """
    scheme = url.partition(":")[0]
    if (path := sqlite_path(url)) is not None:
        return SqliteStore(path, plan)
    if scheme in SCHEMES:
        place = parse_place(url)
        return ClusterStore(place, plan) if isinstance(place, Cluster) else RedisStore(place, plan)
    if scheme in postgres.SCHEMES:
        return _postgres(postgres.parse_address(url), plan)
    if scheme == "memory":
        return MemoryStore(plan)
    raise UsageError(f"A features URL of the form {scheme}: cannot be read. {FORMS}")


def sqlite_path(url: str) -> Path | None:
    """The file of a features URL; None where it names none."""
    parts = urlsplit(url)
    named = url.startswith("sqlite:") and not parts.netloc and len(parts.path) > 1
    return Path(unquote(parts.path)) if named else None


def _postgres(address: postgres.Address, plan: ReadPlan) -> Store:
    try:
        from sunup.lookup.stores.postgres.store import PostgresStore  # psycopg: 150 ms that other stores do without
    except ImportError as error:
        raise UsageError(f"Features are read from PostgreSQL, and psycopg is missing ({error}). {INSTALL}") from error
    return PostgresStore(address, plan)
