"""What is written here, read by Feast's SDK and by our own Lookup; and compared with what Feast writes itself."""

import asyncio
import math
import random
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import psycopg
import pytest
import redis
from feast import types
from feast.protos.feast.types.Value_pb2 import Value
from psycopg import sql
from tests.feast_repo import USER, everything, repository, source, write
from tests.feast_repo import view as feast_view
from tests.random_values import random_scalar, value_of
from tests.service.test_feast_differential import KNOWN, REQUEST, Both, compare, online_store, random_row
from tests.writer_fill import aggregated, version

from sunup.lookup.compile.service import compile_service
from sunup.lookup.keys import key_maker
from sunup.lookup.plan import Entity, Feature, JoinKey, ReadPlan, View, entity_columns
from sunup.lookup.writing.open import open_writer
from sunup.lookup.writing.target import NOBODY, OWN
from sunup.lookup.writing.writer import Write

Dump: TypeAlias = dict[Any, Any]

SEED = 20261122
CASES = 2000
KEYS = 400  # of each view that are written, some of them twice
LISTS = "lists"  # no aggregation gives a list


@dataclass
class Written:
    """A repository whose store we wrote, the rows by view and key, and the store as Feast wrote the same."""

    both: Both
    rows: dict[str, dict[bytes, tuple[dict[str, Any], Write]]]
    ours: Dump
    feasts: Dump


def plan_of(folder: Path) -> tuple[ReadPlan, str]:
    plan, url, *_ = compile_service(
        folder, "all", request=REQUEST, defaults={}, max_age={}, deadline_ms=5000, on_missing="default"
    )

    def made(view: View) -> View:
        streamed = None if view.name == LISTS else aggregated(*(feature.name for feature in view.features))
        return msgspec.structs.replace(view, aggregated=streamed)

    entities = tuple(Entity(each.join_keys, tuple(map(made, each.views))) for each in plan.entities)
    return msgspec.structs.replace(plan, entities=entities), url


def values_of(rng: random.Random, view: View, store: str) -> tuple[Any, ...]:
    """Values of the view, some null, some NaN."""
    values = []
    for feature in view.features:
        value: Any = random_scalar(rng, feature.value_type)
        if feature.value_type in ("DOUBLE", "FLOAT") and rng.random() < 0.05:
            value = math.nan
        if store == "postgres" and feature.value_type == "STRING":  # it has no text with a zero in it
            value = value.replace("\x00", "0")
        values.append(None if rng.random() < 0.15 else value)
    return tuple(values)


def rows_of(rng: random.Random, entity: Entity, view: View, store: str) -> dict[bytes, tuple[dict[str, Any], Write]]:
    fields = list(dict.fromkeys(key.field for key in entity.join_keys if key.field))
    make = key_maker(entity.join_keys, {field: place for place, field in enumerate(fields)})
    rows = {}
    for number in range(KEYS):
        asked = {field: somebody(rng, field) for field in fields}
        at = time.time() - rng.randrange(3600) - 0.25
        row = Write(make(tuple(asked.values())), values_of(rng, view, store), at, version(number))
        rows[row.key] = ({key.name: asked.get(key.field, "") for key in entity.join_keys}, row)
    return rows


def somebody(rng: random.Random, field: str) -> Any:
    return rng.randrange(10_000) if field.endswith("r_id") and rng.random() < 0.8 else rng.choice(KNOWN[field])


def as_feast(view: View, entity: Entity, keys: dict[str, Any], row: Write) -> Any:
    """The same for Feast's own writer."""
    kinds = {key.name: key.value_type for key in entity.join_keys}
    names = {name: value_of(kinds[name], value) for name, value in keys.items()}
    values = {
        feature.name: Value() if value is None else value_of(feature.value_type, value)
        for feature, value in zip(view.features, row.values, strict=True)
    }
    return names, values, datetime.fromtimestamp(row.at, UTC)


@pytest.fixture(scope="module", params=["sqlite", "redis", "postgres"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Written]:
    folder = tmp_path_factory.mktemp(f"feast_{request.param}")
    if request.param == "redis":
        empty(request.getfixturevalue("redis_url").replace("/0", "/5"), None)
    store = everything(folder, online_store(request))
    plan, url = plan_of(folder)
    rng = random.Random(SEED)
    rows: dict[str, dict[bytes, tuple[dict[str, Any], Write]]] = {}
    written_by_feast = {"sellers": "", "buyers": "people", "moved@v1": "moved"}
    for entity in plan.entities:
        for view in entity.views:
            name = written_by_feast.get(view.name, view.name)
            if name and view.name != LISTS:  # sellers are stored where the buyers are
                rows[view.name] = rows_of(rng, entity, view, request.param)
                write(store, name, [as_feast(view, entity, *each) for each in rows[view.name].values()])
    feasts = dump(url, plan)
    empty(url, plan)
    with closing(open_writer(url, plan)) as writer:
        writer.begin()
        for name, own in rows.items():
            writer.write(name, [row for _, row in own.values()])
        assert not writer.is_lost()
    yield Written(Both(store, plan, url), rows, dump(url, plan), feasts)
    connection = getattr(store._get_provider().online_store, "_conn", None)
    if connection is not None:
        connection.close()  # Feast itself never does


def dump(url: str, plan: ReadPlan) -> Dump:
    """All that is in a store, but for what is only ours."""
    if url.startswith("redis"):
        with redis.Redis.from_url(url) as client:
            hashes = {key: client.hgetall(key) for key in client.scan_iter() if NOBODY not in key}
        return {key: {f: v for f, v in h.items() if not f.startswith(OWN.encode())} for key, h in hashes.items()}
    found: Dump = {}
    for table in tables(plan):
        for key, name, *columns in select(url, table):
            if name != OWN:
                found[table, bytes(key), name] = columns
    return found


def tables(plan: ReadPlan) -> list[str]:
    return sorted({f"{plan.project}_{view.stored}" for view in plan.views})


def select(url: str, table: str) -> list[Any]:
    columns = "entity_key, feature_name, value, value_text, vector_value, event_ts, created_ts"
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite://"))) as connection:
            return connection.execute(f'SELECT {columns} FROM "{table}"').fetchall()
    with psycopg.connect(url.partition("?")[0], options="-c search_path=feast") as client:
        return client.execute(sql.SQL("SELECT {} FROM {}").format(sql.SQL(columns), sql.Identifier(table))).fetchall()


def empty(url: str, plan: ReadPlan | None) -> None:
    if url.startswith("redis"):
        with redis.Redis.from_url(url) as client:
            client.flushdb()
    elif plan is not None and url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite://"))) as connection, connection:
            for table in tables(plan):
                connection.execute(f'DELETE FROM "{table}"')
    elif plan is not None:
        with psycopg.connect(url.partition("?")[0], options="-c search_path=feast") as client:
            for table in tables(plan):
                client.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))


def test_the_store_holds_what_feast_would_have_written(written: Written) -> None:
    assert len(written.ours) > 100
    assert written.ours.keys() == written.feasts.keys()
    for key, found in written.ours.items():
        assert found == written.feasts[key], key


def test_feast_and_a_lookup_read_equal_values(written: Written) -> None:
    rng, both = random.Random(SEED + 1), written.both
    cases = [random_row(rng) for _ in range(CASES)]
    expected = both.from_feast(cases)
    names = [column.name for column in both.plan.columns]
    (features,) = asyncio.run(both.from_us([cases]))
    present = 0
    for case, row, expect in zip(cases, features.values, expected, strict=True):
        index = cases.index(case)
        missing: Sequence[str] = features.defaulted[index] if features.defaulted else ()
        present += compare(row, missing, names, expect, case)
    assert 0.2 < present / (CASES * len(names)) < 0.7


def test_feast_reads_what_was_written(written: Written) -> None:
    """Row by row: every value and its time."""
    both, compared = written.both, 0
    for entity in both.plan.entities:
        for view in entity.views:
            rows = list(written.rows.get(view.name, {}).values())
            if not rows:
                continue
            for (_, row), found in zip(rows, both.from_feast([ask(entity, keys) for keys, _ in rows]), strict=True):
                for feature, value in zip(view.features, row.values, strict=True):
                    wanted, present, at = found[feature.column]
                    assert present is (value is not None)
                    assert not present or repr(wanted) == repr(value), (view.name, feature.name)
                    assert at == int(row.at)
                    compared += 1
    assert compared > 3000


def ask(entity: Entity, keys: dict[str, Any]) -> tuple[Any, ...]:
    """A call that asks for these keys, and for anything of the others."""
    by_field = {key.field: keys[key.name] for key in entity.join_keys}
    return (0.5, *(by_field.get(field.name, KNOWN[field.name][0]) for field in REQUEST[1:]))


@pytest.mark.parametrize("deleted", [["clicks"], ["clicks", "visits"]], ids=["one", "both"])
@pytest.mark.parametrize("kind", ["sqlite", "redis", "postgres"])
def test_what_feast_deletes_is_a_loss(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, deleted: list[str]
) -> None:
    """`feast apply` without a view and then with it again, whether or not another one shares its keys."""
    request.param = kind
    if kind == "redis":
        empty(request.getfixturevalue("redis_url").replace("/0", "/5"), None)
    store, views = repository(tmp_path, online_store(request), project="deleted"), {}
    for name in ("clicks", "visits"):
        views[name] = feast_view(name, [USER], {f"{name}_count": types.Int64}, source=source(tmp_path))
    store.apply([USER, *views.values()])
    kinds = [View(n, n, None, None, (Feature(f"{n}_count", n, "INT64"),), None, aggregated(n)) for n in deleted]
    entities = (Entity((JoinKey("user_id", "user_id", "INT64"),), tuple(kinds)),)
    plan = ReadPlan(1, "deleted", 3, 1000.0, "default", entities, entity_columns(entities))
    key = key_maker(entities[0].join_keys, {"user_id": 0})((7,))
    url = url_of(tmp_path, request)
    with closing(open_writer(url, plan)) as writer:
        writer.begin()
        for name in deleted:
            writer.write(name, [Write(key, (3,), time.time(), version(1))])
        assert not writer.is_lost()
        store.apply([], objects_to_delete=[views[name] for name in deleted], partial=False)
        store.apply(list(views.values()))
        assert writer.is_lost()
        writer.begin()
        for name in deleted:
            writer.write(name, [Write(key, (4,), time.time(), version(1))])
            answer = store.get_online_features([f"{name}:{name}_count"], [{"user_id": 7}]).to_dict()
            assert answer[f"{name}_count"] == [4]
        assert not writer.is_lost()
    connection = getattr(store._get_provider().online_store, "_conn", None)
    if connection is not None:
        connection.close()


def url_of(folder: Path, request: pytest.FixtureRequest) -> str:
    if request.param == "redis":
        url: str = request.getfixturevalue("redis_url").replace("/0", "/5")
        return url
    if request.param == "postgres":
        return f"{request.getfixturevalue('postgres').url}?schema=feast"
    return f"sqlite://{folder}/data/online.db"
