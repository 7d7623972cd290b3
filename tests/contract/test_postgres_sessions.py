"""A session with a PostgreSQL server: password, TLS, schema, time zone, and what a worker imports for it."""

import asyncio
import logging
import math
import shutil
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from tests.contract.test_postgres_failures import fill, filled, opened, runner
from tests.contract.test_rank_reads import Patient
from tests.contract.test_stores import AT
from tests.postgres_fixture import PASSWORD, PostgresServer
from tests.store_fill import PLAN, create_postgres_tables, int64, put_postgres, user_key
from tests.store_readers import of_user, own_id
from tests.worker_modules import WORKER_MODULES, imported

from sunup.errors import UsageError
from sunup.lookup.store import StoreUnavailable
from sunup.lookup.stores.open import open_store

__all__ = ["filled", "runner"]


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kathmandu"])
def test_event_times_are_right_in_any_time_zone_of_the_server(zone: str, filled: PostgresServer) -> None:
    """Feast's writers give naive UTC times, which the server takes for its own."""

    async def scenario() -> float:
        store = await opened(filled.url)
        answer = await store.read(of_user(3), time.monotonic() + 5)
        await store.close()
        at: float = answer[0][0][2]
        return at

    with filled.client() as client:
        client.execute(f"ALTER DATABASE postgres SET timezone = '{zone}'")
    try:
        with filled.client() as client:
            put_postgres(client, "stats_v2", user_key((3,)), {"own_id": int64(3)}, AT + 0.25)
            mine = 'SELECT event_ts FROM "contract_stats_v2" WHERE entity_key = %s'
            ((stored,),) = client.execute(mine, [user_key((3,))]).fetchall()
            assert abs(stored.timestamp() - AT) > 3600
        assert asyncio.run(scenario()) == AT + 0.25
    finally:
        with filled.client() as client:
            client.execute("ALTER DATABASE postgres RESET timezone")


def test_a_schema_of_its_own_comes_before_public(filled: PostgresServer) -> None:
    with filled.client() as client:
        client.execute('DROP SCHEMA IF EXISTS "the online" CASCADE')
        client.execute('CREATE SCHEMA "the online"')
        client.execute('SET search_path = "the online"')
        create_postgres_tables(client)
        put_postgres(client, "stats_v2", user_key((3,)), {"own_id": int64(77)}, AT)

    async def scenario(url: str) -> bytes | None:
        store = await opened(url)
        got = await own_id(store, 3)
        await store.close()
        return got

    assert asyncio.run(scenario(f"{filled.url}?schema=%22the%20online%22")) == int64(77)
    assert asyncio.run(scenario(filled.url)) == int64(3)


def test_passwords_are_used_and_never_shown(filled: PostgresServer, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        with caplog.at_level(logging.DEBUG):
            store = await opened(filled.url)
            assert await own_id(store, 9) == int64(9)
            said = repr(store)
            await store.close()
            other = await opened(filled.url.replace(filled.url.split(":")[2].split("@")[0], "s3cret-wrong"))
            with pytest.raises(StoreUnavailable, match="password authentication failed") as refused:
                await own_id(other, 9)
            said += repr(other) + repr(refused.value) + refused.value.message
            await other.close()
        said += caplog.text
        assert PASSWORD not in said
        assert "s3cret" not in said
        assert f"127.0.0.1:{filled.port}/postgres" in said

    asyncio.run(scenario())


def test_reads_do_not_wait_for_one_anothers_round_trip(filled: PostgresServer) -> None:
    with closing(Patient(filled.port)) as proxy:

        async def scenario() -> int:
            store = await opened(filled.url.replace(f":{filled.port}/", f":{proxy.port}/"))
            before = proxy.round_trips
            assert await asyncio.gather(*(own_id(store, user) for user in range(50))) == [int64(u) for u in range(50)]
            needed = proxy.round_trips - before
            await store.close()
            return needed

        assert asyncio.run(scenario()) == 1


@pytest.mark.parametrize("wrong", ["", "?shcema=x", "?sslmode=maybe", "?schema="])
def test_urls_that_say_too_little_or_too_much_are_refused(wrong: str) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        open_store(f"postgresql://user@host/{'database' if wrong else ''}{wrong}", PLAN)


def test_tls(tmp_path: Path, runner: asyncio.Runner, postgres_server: PostgresServer) -> None:
    certificate = tmp_path / "cert.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    request += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{tmp_path}/key.pem", "-out", f"{certificate}"]
    subprocess.run(request, check=True, capture_output=True)
    data = postgres_server.folder / "data"
    for name in ("cert.pem", "key.pem"):
        shutil.copy(tmp_path / name, data / name)
        (data / name).chmod(0o600)
        shutil.chown(data / name, data.owner(), data.group())

    async def scenario(url: str) -> bytes | None:
        store = await opened(url)
        try:
            return await own_id(store, 3)
        finally:
            await store.close()

    postgres_server.kill()
    postgres_server.start("ssl=on", "ssl_cert_file=cert.pem", "ssl_key_file=key.pem")
    fill(postgres_server)
    with closing(runner):
        url = f"{postgres_server.url}?sslmode=verify-full&sslrootcert="
        assert runner.run(scenario(f"{url}{certificate}")) == int64(3)
        postgres_server.kill()
        postgres_server.start()
        with pytest.raises(StoreUnavailable, match="SSL"):
            runner.run(scenario(f"{url}{certificate}"))


def test_a_postgres_store_is_not_read_inline() -> None:
    store = open_store("postgresql://user@127.0.0.1:1/db", PLAN)
    with pytest.raises(StoreUnavailable):
        store.read_now(of_user(1), math.inf)


def test_without_psycopg_the_store_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sunup.lookup.stores.postgres.store", None)
    with pytest.raises(UsageError, match=r"pip install 'sunup\[postgres\]'") as refused:
        open_store("postgresql://user:secret@host/database", PLAN)
    assert "secret" not in refused.value.message


@pytest.mark.parametrize("url", ["postgresql://user@host/database", "redis://host", "sqlite:///online.db"])
def test_only_a_worker_that_reads_postgresql_imports_its_client(url: str) -> None:
    spec = {"role": "worker", "settings": {"features_url": url}}
    held = imported(f"from sunup.serve.worker import prepare; prepare({spec})")
    client = {"psycopg", "psycopg_binary"} if url.startswith("postgresql") else set()
    assert held - WORKER_MODULES == client
