"""SQLite files that are missing, replaced, held or damaged, and PostgreSQL tables that are: writers tell, in time."""

import os
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from psycopg import sql
from tests.contract.test_feature_writer import STATS, Place
from tests.contract.test_feature_writer_failures import SLACK, Opened, opened, refused, written
from tests.postgres_fixture import PostgresServer
from tests.writer_fill import PLAN, card_key, make_postgres_tables, make_sqlite_tables, rows

from sunup.limits import STORE_WRITE_ROWS, STORE_WRITE_SECONDS_MAX
from sunup.lookup.store import StoreUnavailable

__all__ = ["opened"]

# --- SQLite -----------------------------------------------------------------------------------------------------------


def test_a_file_that_is_not_there_and_tables_that_are_not(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "online.db"
    writer = opened(f"sqlite://{path}")
    refused(writer, "No such file.*feast apply")
    assert not path.exists()
    sqlite3.connect(path).close()
    path.touch()
    refused(writer, "no such table.*feast apply")
    make_sqlite_tables(path)
    writer.begin()
    written(f"sqlite://{path}", writer)
    assert not writer.is_lost()


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_another_file_is_a_loss(tmp_path: Path, opened: Opened, how: str) -> None:
    """An older copy has the mark, and not the last values."""
    path, copy = tmp_path / "online.db", tmp_path / "copy.db"
    make_sqlite_tables(path)
    writer = opened(f"sqlite://{path}")
    writer.begin()
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    written(f"sqlite://{path}", writer)
    for end in ("-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)
    path.unlink()
    if how == "replaced":
        os.rename(copy, path)
    else:
        refused(writer, "feast apply")
        make_sqlite_tables(path)
    assert writer.is_lost()
    writer.begin()
    assert not writer.is_lost()
    written(f"sqlite://{path}", writer)


def test_a_file_that_somebody_holds(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "online.db"
    make_sqlite_tables(path)
    writer = opened(f"sqlite://{path}")
    writer.begin()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="locked"):
            writer.write(STATS, rows(1, 5))
        assert STORE_WRITE_SECONDS_MAX - 0.2 < time.monotonic() - began < STORE_WRITE_SECONDS_MAX + SLACK
        assert not writer.is_lost()  # a look needs no lock
        other.execute("COMMIT")
    written(f"sqlite://{path}", writer)


def test_readers_are_never_refused_while_it_writes(tmp_path: Path, opened: Opened) -> None:
    """Workers wait for no lock: in SQLite's own mode a reader would find it taken at every commit."""
    path = tmp_path / "online.db"
    make_sqlite_tables(path)
    writer, ended = opened(f"sqlite://{path}"), threading.Event()
    writer.write(STATS, rows(STORE_WRITE_ROWS, 0))

    def write() -> None:
        for number in range(10):
            writer.write(STATS, rows(STORE_WRITE_ROWS, number))
        ended.set()

    thread = threading.Thread(target=write)
    thread.start()
    seen = set()
    while not ended.is_set():
        ((_, half, _),) = Place(f"sqlite://{path}", lambda: None).stats([card_key(("kärd 0",))])
        seen.add(half)
    thread.join()
    assert seen <= {number / 2 for number in range(10)}
    assert len(seen) > 1


def test_what_is_no_database(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "online.db"
    path.write_bytes(b"no database at all " * 100)
    refused(opened(f"sqlite://{path}"), "not a database")


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


def test_tables_that_are_missing_and_a_password_that_is_wrong(postgres_server: PostgresServer, opened: Opened) -> None:
    writer = opened(postgres_server.url)
    refused(writer, "does not exist.*feast apply")
    with postgres_server.client() as client:
        make_postgres_tables(client)
    written(postgres_server.url, writer)
    refused(opened(postgres_server.url.replace("%40", "x")), "password")


def test_a_table_that_somebody_holds(postgres_server: PostgresServer, opened: Opened) -> None:
    with postgres_server.client() as client:
        make_postgres_tables(client)
        writer = opened(postgres_server.url)
        writer.begin()
        with client.transaction():
            table = sql.Identifier(f"{PLAN.project}_stats")
            client.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(table))
            refused(writer)
        written(postgres_server.url, writer)
        assert not writer.is_lost()


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu"])
def test_times_in_a_zone(postgres_server: PostgresServer, opened: Opened, zone: str) -> None:
    with postgres_server.client() as client:
        client.execute(sql.SQL("ALTER DATABASE postgres SET timezone = {}").format(sql.Literal(zone)))
        make_postgres_tables(client)
    written(postgres_server.url, opened(postgres_server.url))
    with postgres_server.client() as client:
        client.execute("ALTER DATABASE postgres RESET timezone")
