"""The same questions to Feast and to a Lookup, on every store: every value type, key type and kind of view.

A case is one row of a call. Each is asked of us twice, alone and among hundreds, and of Feast once; values, their types
and what is there and what is not have to be equal, of every feature of the row.
"""

import asyncio
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from feast import FeatureStore
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.protos.feast.types.Value_pb2 import Value
from tests.feast_repo import everything, write
from tests.postgres_fixture import DATABASE, PASSWORD, USER
from tests.random_values import MEMBER, random_value, value_of

from sunup.lookup.compile.service import compile_service
from sunup.lookup.join import Lookup
from sunup.lookup.plan import Entity, ReadPlan, View, load
from sunup.lookup.plan import dump as dump_plan
from sunup.lookup.stores.open import open_store
from sunup.types import Features, Field

Ask: TypeAlias = tuple[Any, ...]

SEED = 20260202
CASES = 5000  # rows per store
FEAST_ROWS = 1000  # in one call of Feast, which costs it a millisecond a row
CALL_ROWS = 250  # in one large call of ours
REQUEST = [
    Field("noise", "float64"),
    Field("user_id", "int64"),
    Field("shop_name", "string"),
    Field("item_no", "int32"),
    Field("blob_key", "bytes"),
    Field("hour", "int64"),
    Field("seller_id", "int64"),
    Field("buyer_id", "int64"),
]
USERS = [0, 1, 2, 127, 128, -1, 2**63 - 1, -(2**63), *range(1000, 1016)]
SHOPS = ["", "a", "käse", "日本語 😀", "x" * 300, 'it\'s "quoted"', "a\x00b", "%s {} $1"]
ITEMS = [0, 1, -1, 2**31 - 1, -(2**31), 77]
BLOBS = [b"\x00\xff", b"key", b"\xc3", b"\\x00"]  # no b"": Feast writes that key and cannot ask for it
HOURS = [0, 1, 1_700_000_000, 253_402_300_799]
KNOWN: dict[str, list[Any]] = {
    "user_id": USERS, "shop_name": SHOPS, "item_no": ITEMS, "blob_key": BLOBS, "hour": HOURS,
    "seller_id": USERS, "buyer_id": USERS,
}  # fmt: skip
ABSENT = {
    "user_id": 4711, "shop_name": "nowhere", "item_no": 99, "blob_key": b"none", "hour": 7,
    "seller_id": 4712, "buyer_id": 4712,
}  # fmt: skip


@dataclass
class Both:
    """One filled repository, read by Feast and by us."""

    feast: FeatureStore
    plan: ReadPlan
    url: str

    def from_feast(self, rows: Sequence[Ask]) -> list[dict[str, tuple[Any, bool, int]]]:
        """Per row and feature: the value, whether Feast says that it is present, and its event time in seconds."""
        entity_rows = [{f.name: v for f, v in zip(REQUEST[1:], row[1:], strict=True)} for row in rows]
        service = self.feast.get_feature_service("all")
        response = self.feast.get_online_features(features=service, entity_rows=entity_rows, full_feature_names=True)
        values, proto = response.to_dict(), response.proto
        found: list[dict[str, tuple[Any, bool, int]]] = [{} for _ in rows]
        for name, vector in zip(proto.metadata.feature_names.val, proto.results, strict=True):
            answers = zip(values[name], vector.statuses, vector.event_timestamps, strict=True)
            for one, (value, status, at) in zip(found, answers, strict=True):
                one[name] = (_plain(value), status == FieldStatus.PRESENT and value is not None, at.seconds)
        return found

    async def from_us(self, calls: Sequence[Sequence[Ask]]) -> list[Features]:
        lookup = Lookup(self.plan, open_store(self.url, self.plan), REQUEST)
        await lookup.open()
        try:
            return [await self._read(lookup, rows) for rows in calls]
        finally:
            await lookup.close()

    async def _read(self, lookup: Lookup, rows: Sequence[Ask]) -> Features:
        features = await lookup.read(rows, now=time.monotonic(), wall=time.time())
        if lookup.inline:
            again = lookup.read_now(rows, now=time.monotonic(), wall=time.time())
            assert (again.defaulted, again.stale) == (features.defaulted, features.stale)
            assert repr(list(again.values)) == repr(list(features.values))
        return features


def _plain(value: Any) -> Any:
    """Feast's value as ours: times are whole seconds since the epoch."""
    if isinstance(value, datetime):
        return round(value.timestamp())
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value


def _value(rng: random.Random, kind: str, store: str) -> Value:
    value = random_value(rng, kind)
    if kind in ("DOUBLE", "FLOAT") and rng.random() < 0.05:
        setattr(value, MEMBER[kind], math.nan)
    if store == "postgres" and "\x00" in value.string_val:  # which Feast cannot write there: it keeps a copy as text
        value.string_val = value.string_val.replace("\x00", "0")
    return value


def _rows_of(rng: random.Random, entity: Entity, view: View, store: str) -> list[Any]:
    """Values of the view for some of the keys there are, some NULL, some not written at all."""
    rows = {}
    for _ in range(60):
        keys = {
            key.name: value_of(key.value_type, rng.choice(KNOWN[key.field]) if key.field else "")
            for key in entity.join_keys
        }
        values = {f.name: _value(rng, f.value_type, store) for f in view.features if rng.random() < 0.9}
        # Once per key: of features written at different times Feast's SQLite store reports any one's time.
        if values:
            rows[repr(keys)] = (keys, values, datetime.now(UTC) - timedelta(seconds=rng.randrange(3600)))
    return list(rows.values())


def online_store(request: pytest.FixtureRequest) -> str:
    """`online_store` of feature_store.yaml."""
    if request.param == "redis":
        address = request.getfixturevalue("redis_url").split("//")[1].split("/")[0]
        return f'{{type: redis, connection_string: "{address},db=5"}}'
    if request.param == "postgres":
        port = request.getfixturevalue("postgres").port
        return (
            f"{{type: postgres, host: 127.0.0.1, port: {port}, database: {DATABASE}, db_schema: feast, "
            f"user: {USER}, password: '{PASSWORD}', sslmode: disable}}"
        )
    return "{type: sqlite, path: data/online.db}"


@pytest.fixture(scope="module", params=["sqlite", "redis", "postgres"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp(f"feast_{request.param}")
    store = everything(folder, online_store(request))
    plan, url, *_ = compile_service(
        folder, "all", request=REQUEST, defaults={}, max_age={}, deadline_ms=5000, on_missing="default"
    )
    assert load(dump_plan(plan)) == plan
    rng = random.Random(SEED)
    for entity in plan.entities:
        for view in entity.views:
            rows = _rows_of(rng, entity, view, request.param)
            if view.name == "moved@v1":  # other values in the version before, which nobody asks for
                write(store, "moved@v0", [(keys, {"moved_count": Value(int64_val=-99)}, at) for keys, _, at in rows])
            if view.name != "sellers":  # who are stored where the buyers are
                write(store, "people" if view.name == "buyers" else view.name, rows)
    yield Both(store, plan, url)
    connection = getattr(store._get_provider().online_store, "_conn", None)
    if connection is not None:
        connection.close()  # Feast itself never does


def random_row(rng: random.Random) -> Ask:
    """A call's one row."""
    row = [0.5, *(ABSENT[f.name] if rng.random() < 0.15 else rng.choice(KNOWN[f.name]) for f in REQUEST[1:])]
    if rng.random() < 0.2:  # somebody who buys from himself
        row[-1] = row[-2]
    return tuple(row)


def compare(row: Sequence[Any], missing: Sequence[str], names: Sequence[str], expected: Any, asked: Ask) -> int:
    """One case; how many of its values were present."""
    for name, value in zip(names, row, strict=True):
        wanted, present, _ = expected[name]
        assert present is (name not in missing), (name, asked)
        if present:  # by repr, which tells 0.0 from -0.0 and 1 from True, and finds NaN equal to itself
            assert repr(value) == repr(wanted), (name, asked)
        else:
            assert value is None or math.isnan(value), (name, asked)
    return len(names) - len(missing)


def test_equal_values_and_equal_absences(both: Both) -> None:
    rng = random.Random(SEED + 1)
    cases = [random_row(rng) for _ in range(CASES)]
    expected = [
        one for start in range(0, CASES, FEAST_ROWS) for one in both.from_feast(cases[start : start + FEAST_ROWS])
    ]
    calls = [cases[start : start + CALL_ROWS] for start in range(0, CASES, CALL_ROWS)] + [[case] for case in cases]
    names = [column.name for column in both.plan.columns]
    at = present = total = 0
    for rows, features in zip(calls, asyncio.run(both.from_us(calls)), strict=True):
        assert not any(features.stale or ())
        for index, row in enumerate(features.values):
            missing = features.defaulted[index] if features.defaulted else ()
            present += compare(row, missing, names, expected[at % CASES], rows[index])
            total += len(names)
            at += 1
    assert at == 2 * CASES
    assert 0.3 < present / total < 0.7  # neither the one nor the other by chance


def test_ages_are_those_of_feasts_event_times(both: Both) -> None:
    """Feast's event time of each view's values, as an age, on every store."""
    rng = random.Random(SEED + 2)
    for _ in range(20):
        row = (0.5, *(rng.choice(KNOWN[field.name]) for field in REQUEST[1:]))
        wall = time.time()
        (features,) = asyncio.run(both.from_us([[row]]))
        (expected,) = both.from_feast([row])
        for view in both.plan.views:
            stored = expected[view.features[0].column][2]
            if stored:
                assert features.ages[view.name] == pytest.approx(wall - stored, abs=1.5)
            else:
                assert view.name not in features.ages


def test_what_feast_calls_present_is_stale_here_after_its_ttl(both: Both) -> None:
    """The one difference: Feast returns a value older than its view's ttl, a Lookup does not."""
    user, old = 31337, datetime.now(UTC) - timedelta(days=2)
    write(both.feast, "scalars", [({"user_id": Value(int64_val=user)}, {"an_int64": Value(int64_val=5)}, old)])
    row = (0.5, user, "a", 0, b"key", 0, 0, 0)
    assert both.from_feast([row])[0]["scalars__an_int64"][:2] == (5, True)
    (features,) = asyncio.run(both.from_us([[row]]))
    assert features.stale is not None
    assert features.stale[0] == ("scalars__an_int64",)
    assert features.ages["scalars"] == pytest.approx(2 * 86400, abs=5)
    assert "an_int64" in features.failed[0].message  # no default was declared for a whole number


def test_nothing_of_the_place_is_in_the_plan(both: Both, tmp_path: Path) -> None:
    text = dump_plan(both.plan).decode()
    assert both.url not in text
    assert str(tmp_path.parent) not in text
    assert "online" not in text
    assert PASSWORD not in text
