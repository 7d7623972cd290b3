"""The same questions to Feast and to a Lookup, on SQLite and on Redis: every value type, key type and kind of view."""

import asyncio
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from feast import FeatureStore
from feast.protos.feast.types.Value_pb2 import Value
from tests.feast_repo import everything, write
from tests.random_values import random_value, value_of

from sunup.lookup.compile.service import compile_plan
from sunup.lookup.join import Lookup
from sunup.lookup.plan import ReadPlan, load
from sunup.lookup.plan import dump as dump_plan
from sunup.lookup.stores.open import open_store
from sunup.types import Features, Field

SEED = 20260202
CASES = 150  # calls per store, of up to six rows each
REQUEST = [
    Field("noise", "float64"),
    Field("user_id", "int64"),
    Field("shop_name", "string"),
    Field("item_no", "int32"),
    Field("blob_key", "bytes"),
    Field("seller_id", "int64"),
]
USERS = [0, 1, 2, 127, 128, -1, 2**63 - 1, -(2**63)]
SHOPS = ["", "a", "käse", "日本語 😀", "x" * 300, 'it\'s "quoted"']
ITEMS = [0, 1, -1, 2**31 - 1]
BLOBS = [b"\x00\xff", b"key", b"\xc3"]  # no b"": Feast writes that key and cannot ask for it
ABSENT = {"user_id": 4711, "shop_name": "nowhere", "item_no": 99, "blob_key": b"none", "seller_id": 4712}
KNOWN: dict[str, list[Any]] = {
    "user_id": USERS, "shop_name": SHOPS, "item_no": ITEMS, "blob_key": BLOBS, "seller_id": USERS,
}  # fmt: skip


@dataclass
class Both:
    """One filled repository, read by Feast and by us."""

    feast: FeatureStore
    plan: ReadPlan
    url: str

    def from_feast(self, rows: Sequence[tuple[Any, ...]]) -> list[dict[str, Any]]:
        entity_rows = [{f.name: v for f, v in zip(REQUEST[1:], row[1:], strict=True)} for row in rows]
        service = self.feast.get_feature_service("all")
        columns = self.feast.get_online_features(features=service, entity_rows=entity_rows).to_dict()
        return [{name: _plain(values[i]) for name, values in columns.items()} for i in range(len(rows))]

    async def from_us(self, calls: Sequence[Sequence[tuple[Any, ...]]]) -> list[Features]:
        lookup = Lookup(self.plan, open_store(self.url, self.plan), REQUEST)
        await lookup.open()
        try:
            return [await self._read(lookup, rows) for rows in calls]
        finally:
            await lookup.close()

    async def _read(self, lookup: Lookup, rows: Sequence[tuple[Any, ...]]) -> Features:
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


def _fill(store: FeatureStore, plan: ReadPlan, rng: random.Random) -> None:
    """Give most known keys of every view values of its types, some NULL, some not written at all."""
    now, written = datetime.now(UTC), set()
    for entity in plan.entities:
        for view in entity.views:
            for _ in range(16):
                keys = {
                    key.name: value_of(key.value_type, rng.choice(KNOWN[key.field]) if key.field else "")
                    for key in entity.join_keys
                }
                values = {f.name: random_value(rng, f.value_type) for f in view.features if rng.random() < 0.9}
                # Once per key: of features written at different times Feast's SQLite store reports any one's time.
                if values and (view.stored, repr(keys)) not in written:
                    written.add((view.stored, repr(keys)))
                    write(store, view.stored, keys, values, now - timedelta(seconds=rng.randrange(3600)))


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    folder = tmp_path_factory.mktemp(f"feast_{request.param}")
    config = "{type: sqlite, path: data/online.db}"
    if request.param == "redis":
        address = request.getfixturevalue("redis_url").split("//")[1].split("/")[0]
        config = f'{{type: redis, connection_string: "{address},db=5"}}'
    store = everything(folder, config)
    plan, url = compile_plan(
        folder, "all", request=REQUEST, defaults={}, max_age={}, deadline_ms=5000, on_missing="default"
    )
    assert load(dump_plan(plan)) == plan
    _fill(store, plan, random.Random(SEED))
    return Both(store, plan, url)


def _rows(rng: random.Random) -> list[tuple[Any, ...]]:
    return [
        (0.5, *(ABSENT[f.name] if rng.random() < 0.15 else rng.choice(KNOWN[f.name]) for f in REQUEST[1:]))
        for _ in range(rng.choice([1, 1, 1, 2, 6]))
    ]


def test_equal_values_and_equal_absences(both: Both) -> None:
    rng = random.Random(SEED + 1)
    calls = [_rows(rng) for _ in range(CASES)]
    names = [column.name for column in both.plan.columns]
    seen = {"present": 0, "missing": 0}
    for rows, features in zip(calls, asyncio.run(both.from_us(calls)), strict=True):
        expected = both.from_feast(rows)
        for index, row in enumerate(features.values):
            missing = features.defaulted[index] if features.defaulted else ()
            assert not (features.stale and features.stale[index])
            for name, value in zip(names, row, strict=True):
                if name in missing:
                    assert expected[index][name] is None
                    assert value is None or math.isnan(value)
                    seen["missing"] += 1
                else:
                    assert value == expected[index][name], (name, rows[index])
                    assert type(value) is type(expected[index][name])
                    seen["present"] += 1
    assert min(seen.values()) > 1000, seen


def test_ages_are_those_of_feasts_event_times(both: Both) -> None:
    """Feast's event time of each view's values, as an age, on both stores."""
    rng = random.Random(SEED + 2)
    for _ in range(20):
        row = (0.5, *(rng.choice(KNOWN[field.name]) for field in REQUEST[1:]))
        wall = time.time()
        (features,) = asyncio.run(both.from_us([[row]]))
        entity_rows = [{f.name: v for f, v in zip(REQUEST[1:], row[1:], strict=True)}]
        service = both.feast.get_feature_service("all")
        response = both.feast.get_online_features(features=service, entity_rows=entity_rows).proto
        times = {
            name: vector.event_timestamps[0].seconds
            for name, vector in zip(response.metadata.feature_names.val, response.results, strict=True)
        }
        for view in both.plan.views:
            stored = times[view.features[0].name]
            if stored:
                assert features.ages[view.name] == pytest.approx(wall - stored, abs=1.5)
            else:
                assert view.name not in features.ages


def test_what_feast_calls_present_is_stale_here_after_its_ttl(both: Both) -> None:
    """The one difference: Feast returns a value older than its view's ttl, a Lookup does not."""
    user, old = 31337, datetime.now(UTC) - timedelta(days=2)
    write(both.feast, "scalars", {"user_id": Value(int64_val=user)}, {"an_int64": Value(int64_val=5)}, old)
    row = (0.5, user, "a", 0, b"key", 0)
    assert both.from_feast([row])[0]["an_int64"] == 5
    (features,) = asyncio.run(both.from_us([[row]]))
    assert features.stale is not None
    assert features.stale[0] == ("an_int64",)
    assert features.ages["scalars"] == pytest.approx(2 * 86400, abs=5)
    assert "an_int64" in features.failed[0].message  # no default was declared for a whole number


def test_nothing_of_the_place_is_in_the_plan(both: Both, tmp_path: Path) -> None:
    text = dump_plan(both.plan).decode()
    assert both.url not in text
    assert str(tmp_path.parent) not in text
    assert "online" not in text
