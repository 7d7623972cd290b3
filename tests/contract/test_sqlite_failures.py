"""Real SQLite files that are missing, replaced, locked, damaged and written in other time zones."""

import asyncio
import math
import random
import sqlite3
import time
from pathlib import Path

import pytest
from tests.contract.test_stores import AT
from tests.store_fill import PLAN, create_tables, int64, put_sqlite, shop_key, user_key

from sunup.lookup.store import Keys, StoreUnavailable
from sunup.lookup.stores.sqlite import SqliteStore

SLACK = 0.5  # s a loaded machine may add to what is measured


def of_user(number: int) -> Keys:
    return [[user_key((number,))], []]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "online.db"
    create_tables(path)
    put_sqlite(path, "stats_v2", user_key((1,)), {"own_id": int64(1)}, AT)
    return path


def read_file(store: SqliteStore, user: int = 1, seconds: float = 5.0) -> bytes | None:
    value: bytes | None = store.read_now(of_user(user), time.monotonic() + seconds)[0][0][1]
    return value


def test_a_file_is_never_made_and_is_found_when_it_comes(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sunup.lookup.stores.sqlite.STORE_RETRY_SECONDS", 0.0)
    later = tmp_path / "later.db"
    store = SqliteStore(later, PLAN)
    asyncio.run(store.open())
    with pytest.raises(StoreUnavailable, match="cannot open"):
        read_file(store)
    assert not later.exists()
    path.rename(later)
    assert read_file(store) == int64(1)


def test_a_file_put_in_its_place_is_noticed(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sunup.lookup.stores.sqlite.SQLITE_CHECK_SECONDS", 0.0)
    store = SqliteStore(path, PLAN)
    assert read_file(store) == int64(1)
    other = tmp_path / "other.db"
    create_tables(other)
    put_sqlite(other, "stats_v2", user_key((1,)), {"own_id": int64(99)}, AT)
    other.rename(path)
    assert read_file(store) == int64(99)
    path.unlink()
    with pytest.raises(StoreUnavailable, match="cannot open"):
        read_file(store)


@pytest.mark.parametrize("other", [AT - 5, AT + 5])
def test_a_view_is_as_old_as_its_oldest_feature_that_is_used(path: Path, other: float) -> None:
    """Feast may write some features of a key later than others; what nobody reads does not count."""
    put_sqlite(path, "stats_v2", user_key((1,)), {"count": int64(3)}, other)
    put_sqlite(path, "stats_v2", user_key((1,)), {"a_first": int64(1), "z_last": int64(1)}, AT - 100)
    store = SqliteStore(path, PLAN)
    wanted = [int64(3), int64(1), min(AT, other), None, None]
    one, two = user_key((1,)), user_key((2,))
    assert store.read_now([[one], [shop_key(("x",))]], math.inf)[0] == [wanted]
    assert store.read_now([[one, two], []], math.inf)[0] == [wanted, [None] * 5]


def test_a_locked_file_is_not_waited_for(path: Path) -> None:
    store = SqliteStore(path, PLAN)
    assert read_file(store) == int64(1)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="locked"):
        read_file(store)
    assert time.monotonic() - started < SLACK
    writer.execute("COMMIT")
    writer.close()
    assert read_file(store) == int64(1)


def test_a_writer_in_wal_mode_disturbs_nobody(path: Path) -> None:
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("BEGIN IMMEDIATE")
    writer.execute('UPDATE "contract_stats_v2" SET value = ?', (int64(2),))
    store = SqliteStore(path, PLAN)
    assert read_file(store) == int64(1)
    writer.execute("COMMIT")
    assert read_file(store) == int64(2)
    writer.close()


def test_a_long_read_is_cut_off_at_its_deadline(path: Path) -> None:
    keys: Keys = [[user_key((user,)) for user in range(20_000)], []]
    store = SqliteStore(path, PLAN)
    assert len(store.read_now(keys, math.inf)[0]) == 20_000  # without a deadline: 15 ms or more
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="the deadline passed"):
        store.read_now(keys, started + 0.002)
    assert time.monotonic() - started < 0.002 + SLACK
    assert read_file(store) == int64(1)


def test_a_missing_table_is_found_when_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sunup.lookup.stores.sqlite.STORE_RETRY_SECONDS", 0.0)
    path = tmp_path / "new.db"
    sqlite3.connect(path).close()
    path.touch()
    store = SqliteStore(path, PLAN)
    with pytest.raises(StoreUnavailable, match="no such table"):
        read_file(store)
    create_tables(path)
    assert read_file(store) is None


def test_a_damaged_file_is_unavailable_and_not_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "noise.db"
    path.write_bytes(random.Random(1).randbytes(8192))
    store = SqliteStore(path, PLAN)
    asyncio.run(store.open())
    with pytest.raises(StoreUnavailable):
        read_file(store)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Oslo", "America/St_Johns", "Asia/Kathmandu", "Pacific/Kiritimati"])
@pytest.mark.parametrize("at", [1_700_000_000.0, 1_690_000_000.0, 0.0, 86_400.0])
def test_the_shift_of_event_times_is_undone_in_every_zone(
    path: Path, zone: str, at: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        put_sqlite(path, "stats_v2", user_key((5,)), {"own_id": int64(5)}, at)
        store = SqliteStore(path, PLAN)
        keys: Keys = [[user_key((5,))], [shop_key(("x",))]]
        assert store.read_now(keys, math.inf)[0][0][2] == at
        assert store.read_now([[user_key((5,)), user_key((6,))], []], math.inf)[0][0][2] == at
    finally:
        monkeypatch.undo()
        time.tzset()


def test_one_long_statement_is_cut_off_too(path: Path) -> None:
    """A single key with very many rows: the clock is looked at inside the statement."""
    with sqlite3.connect(path) as writer:
        rows = ((user_key((3,)), f"feature {n}", int64(0), int(AT)) for n in range(300_000))
        writer.executemany(
            'INSERT INTO "contract_stats_v2" (entity_key, feature_name, value, event_ts) VALUES (?, ?, ?, ?)', rows
        )
    writer.close()
    store = SqliteStore(path, PLAN)
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="the deadline passed"):
        store.read_now([[user_key((3,))], [shop_key(("x",))]], started + 0.005)
    assert time.monotonic() - started < 0.005 + SLACK
