"""Where a feature repository keeps its online features, as workers are told it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from feast import FeatureStore
from tests.unit.test_lookup_compile import ANY_STORE, configured

from sunup.errors import FeaturesRefused
from sunup.lookup.compile.service import store_url
from sunup.lookup.stores.postgres.address import parse_address

ADDRESSES = {
    "localhost:6379": "redis://localhost:6379/0",
    "there:7000,db=3,socket_timeout=1": "redis://there:7000/3",
    "there:7000,password=p@ss/word": "redis://:p%40ss%2Fword@there:7000/0",
    "there:7000,username=me,password=1234": "redis://me:1234@there:7000/0",
    "there:7000,ssl=true": "rediss://there:7000/0",
    "there:7000,ssl=true,ssl_cert_reqs=none": "rediss://there:7000/0?ssl_cert_reqs=none",
}


@pytest.mark.parametrize("connection", list(ADDRESSES))
def test_redis_addresses(tmp_path: Path, connection: str) -> None:
    repo = configured(tmp_path, f'{{type: redis, connection_string: "{connection}"}}')
    assert store_url(repo) == ADDRESSES[connection]


POSTGRES = {
    "host: db, database: feast, user: me, password: p": "postgresql://me:p@db:5432/feast?schema=public&sslmode=require",
    "host: '::1', port: 7, database: f/1, user: m@e, password: 'p:/w', sslmode: disable, db_schema: Online": (
        "postgresql://m%40e:p%3A%2Fw@%3A%3A1:7/f%2F1?schema=Online&sslmode=disable"
    ),
    "host: db, database: feast, user: me, password: p, db_schema: '', sslmode: verify-full, sslrootcert_path: /ca.pem, "
    "sslcert_path: /c.pem, sslkey_path: /k.pem, conn_type: pool, keepalives_idle: 3": (
        "postgresql://me:p@db:5432/feast?schema=me&sslmode=verify-full&sslrootcert=%2Fca.pem&sslcert=%2Fc.pem"
        "&sslkey=%2Fk.pem"
    ),
}


@pytest.mark.parametrize("store", list(POSTGRES))
def test_postgres_addresses(tmp_path: Path, store: str) -> None:
    url = store_url(configured(tmp_path, f"{{type: postgres, {store}}}"))
    assert url == POSTGRES[store]
    configuration = FeatureStore(repo_path=str(tmp_path)).config.online_store
    address = parse_address(url)
    assert (address.host, address.port) == (configuration.host, configuration.port)
    assert (address.user, address.password) == (configuration.user, configuration.password)
    assert (address.database, address.schema) == (configuration.database, configuration.db_schema or configuration.user)
    assert dict(address.tls)["sslmode"] == configuration.sslmode


def test_without_psycopg_a_deploy_says_what_to_install(tmp_path: Path) -> None:
    """In processes of their own, which hide it from Feast and from us."""
    configured(tmp_path, "{type: postgres, host: db, database: d, user: u, password: p}")
    code = (
        "import sys; sys.modules.update(psycopg=None, psycopg_pool=None); from pathlib import Path; "
        f"from sunup.lookup.compile.service import store_url; store_url(Path({str(tmp_path)!r}))"
    )
    for environment in ({}, {"FEATURES_URL": "postgresql://u:p@db/d"}):
        if environment:
            configured(tmp_path, ANY_STORE)
        command = [sys.executable, "-c", code]
        ran = subprocess.run(command, check=False, env={**os.environ, **environment}, capture_output=True, text=True)
        assert ran.returncode != 0
        assert "FeaturesRefused" in ran.stderr
        assert "pip install 'sunup[postgres]'" in ran.stderr


MANY = {
    ("sentinel", "a,b:5000,c"): "redis-sentinel://a:26379,b:5000,c:26379/0?master=mymaster",
    ("sentinel, sentinel_master: fraud", "a:1,password=x,db=2"): "redis-sentinel://:x@a:1/2?master=fraud",
    ("sentinel", 'a:1,sentinel_kwargs={\\"password\\": \\"s p\\"}'): (
        "redis-sentinel://a:1/0?master=mymaster&sentinel_password=s+p"
    ),
    ("sentinel", 'a:1,sentinel_kwargs={\\"ssl\\": true},ssl_ca_certs=/ca'): (
        "redis-sentinel://a:1/0?master=mymaster&sentinel_ssl=true&ssl_ca_certs=%2Fca"
    ),
    ("cluster", "a:1,b:2,password=x,skip_full_coverage_check=true"): "redis-cluster://:x@a:1,b:2",
    ("cluster", "a:1,ssl=true,ssl_cert_reqs=none"): "rediss-cluster://a:1?ssl_cert_reqs=none",
}


@pytest.mark.parametrize(("kind", "connection"), list(MANY))
def test_sentinels_and_clusters(tmp_path: Path, kind: str, connection: str) -> None:
    repo = configured(tmp_path, f'{{type: redis, redis_type: redis_{kind}, connection_string: "{connection}"}}')
    assert store_url(repo) == MANY[kind, connection]


def test_a_sqlite_path_is_relative_to_the_repository(tmp_path: Path) -> None:
    repo = configured(tmp_path / "a b", "{type: sqlite, path: ../data/online.db}")
    assert store_url(repo) == f"sqlite://{tmp_path}/data/online.db"
    repo = configured(tmp_path / "c", "{type: sqlite, path: '/var/online ?.db'}")
    assert store_url(repo) == "sqlite:///var/online%20%3F.db"


@pytest.mark.parametrize(
    ("online_store", "says"),
    [
        ('{type: redis, redis_type: redis_cluster, connection_string: "a:1,db=2"}', "options db"),
        ('{type: redis, redis_type: redis_sentinel, connection_string: "a:1,sentinel_kwargs={}x"}', "kwargs"),
        ('{type: redis, connection_string: "a:1,b:2"}', "2 servers"),
        ('{type: redis, connection_string: "a:1,unix_socket_path=/x"}', "unix_socket_path"),
        ("{type: dynamodb, region: eu-north-1}", "dynamodb"),
        ("{type: remote, path: 'http://there:6566'}", "online store is remote"),
    ],
)
def test_stores_that_workers_cannot_read_are_refused(
    tmp_path: Path, online_store: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FeaturesRefused, match=says):
        store_url(configured(tmp_path, online_store))
    if "redis" in online_store:
        monkeypatch.setenv("FEATURES_URL", "redis://elsewhere/0")
        assert store_url(tmp_path) == "redis://elsewhere/0"
