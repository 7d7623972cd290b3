"""From a features URL to a writer: the same URLs as `stores/open.py` takes."""

from sunup.errors import UsageError
from sunup.lookup.plan import ReadPlan
from sunup.lookup.stores.open import FORMS, INSTALL, sqlite_path
from sunup.lookup.stores.postgres import address as postgres
from sunup.lookup.stores.redis.address import SCHEMES, parse_place
from sunup.lookup.writing.memory import MemoryWriter
from sunup.lookup.writing.redis.writer import RedisWriter
from sunup.lookup.writing.sqlite import SqliteWriter
from sunup.lookup.writing.writer import FeatureWriter


def open_writer(url: str, plan: ReadPlan) -> FeatureWriter:
    """What writes the aggregated views of `plan` into the store at `url`. Connects to nothing.

    Raises UsageError for a URL that is none, and for a view no aggregation could have made.
    """
    scheme = url.partition(":")[0]
    if (path := sqlite_path(url)) is not None:
        return SqliteWriter(path, plan)
    if scheme in SCHEMES:
        return RedisWriter(parse_place(url), plan)
    if scheme in postgres.SCHEMES:
        return _postgres(postgres.parse_address(url), plan)
    if scheme == "memory":
        return MemoryWriter(plan)
    raise UsageError(f"A features URL of the form {scheme}: cannot be written. {FORMS}")


def _postgres(address: postgres.Address, plan: ReadPlan) -> FeatureWriter:
    try:
        from sunup.lookup.writing.postgres.writer import PostgresWriter  # psycopg: 150 ms that others do without
    except ImportError as error:
        raise UsageError(f"Features are written to PostgreSQL, and psycopg is missing ({error}). {INSTALL}") from error
    return PostgresWriter(address, plan)
