"""A Feast repository with on-demand feature views of both forms, over scalars, lists, times and the request."""

import asyncio
import random
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of importing Feast: its own
    from feast import FeatureService, FeatureStore, FileSource, RequestSource, types
    from feast import Field as FeastField
    from feast.on_demand_feature_view import on_demand_feature_view
    from feast.protos.feast.types.Value_pb2 import Value
    from tests.feast_repo import LISTS, SCALARS, SHOP, USER, repository, source, view, write
    from tests.random_values import random_value

from sunup.lookup.compile.service import Compiled, compile_service
from sunup.lookup.derive.lookup import DerivedLookup
from sunup.lookup.derive.view import load_makers
from sunup.lookup.plan import dump, load
from sunup.lookup.stores.open import open_store
from sunup.types import Features, Field

SEED = 20261121
REQUEST = [
    Field("user_id", "int64"), Field("shop_name", "string"), Field("amount", "float64"), Field("word", "string"),
]  # fmt: skip
USERS, SHOPS = list(range(20)), ["a", "käse"]


ASKED = RequestSource(
    name="asked",
    schema=[FeastField(name="amount", dtype=types.Float64), FeastField(name="word", dtype=types.String)],
)
EMPTY = FileSource(name="nothing", path="empty.parquet", timestamp_field="event_timestamp")
SCALAR_VIEW = view("scalars", [USER], SCALARS, source=EMPTY, ttl=timedelta(days=1))
LIST_VIEW = view("lists", [USER], LISTS, source=EMPTY)
SHOP_VIEW = view("shops", [SHOP], {"size": types.Int64, "mark": types.Float64}, source=EMPTY)


@on_demand_feature_view(  # type: ignore[untyped-decorator]
    sources=[ASKED, SCALAR_VIEW],
    schema=[
        FeastField(name="ratio", dtype=types.Float64),
        FeastField(name="rough", dtype=types.Float32),
        FeastField(name="whole", dtype=types.Int64),
        FeastField(name="flag", dtype=types.Bool),
        FeastField(name="text", dtype=types.String),
    ],
    mode="python",
)
def together(inputs: dict[str, Any]) -> dict[str, Any]:
    """Lists in, lists out; names short and full, numpy without importing it, as Feast gives it."""
    import math

    made: dict[str, Any] = {"ratio": [], "rough": [], "whole": [], "flag": [], "text": []}
    for amount, an_int, double, text in zip(
        inputs["amount"], inputs["scalars__an_int64"], inputs["a_double"], inputs["a_string"], strict=True
    ):
        known = an_int is not None and double is not None
        made["ratio"].append(float(np.float64(amount) / (1 + math.fabs(double))) if known else None)
        made["rough"].append(np.float32(amount / 3) if known else np.float32("nan"))
        made["whole"].append(an_int // 2 if known else -1)
        made["flag"].append(double is None)
        made["text"].append(None if text is None else text[::-1])
    return made


@on_demand_feature_view(  # type: ignore[untyped-decorator]
    sources=[ASKED, SCALAR_VIEW, LIST_VIEW],
    schema=[
        FeastField(name="hour", dtype=types.Int32),
        FeastField(name="digest", dtype=types.String),
        FeastField(name="seen", dtype=types.UnixTimestamp),
        FeastField(name="raw", dtype=types.Bytes),
        FeastField(name="sorted_list", dtype=types.Array(types.Int64)),
        FeastField(name="words", dtype=types.Array(types.String)),
    ],
    mode="python",
    singleton=True,
)
def alone(inputs: dict[str, Any]) -> dict[str, Any]:
    """One record in, one out; imports of its own."""
    import hashlib
    from datetime import datetime as moment

    at, numbers = inputs["a_time"], inputs["an_int64_list"]
    text: str = inputs["word"]
    return {
        "hour": None if at is None else np.int32(at.hour),
        "digest": hashlib.sha256(text.encode() + str(inputs.get("user_id")).encode()).hexdigest(),
        "seen": None if at is None else moment.combine(at.date(), at.time(), at.tzinfo),
        "raw": inputs["a_bytes"],
        "sorted_list": [sorted(numbers or [])],
        "words": [[text, text.upper()]],
    }


@on_demand_feature_view(  # type: ignore[untyped-decorator]
    sources=[ASKED], schema=[FeastField(name="square", dtype=types.Float64)], mode="python", singleton=True
)
def squared(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"square": inputs["amount"] ** 2}


@on_demand_feature_view(  # type: ignore[untyped-decorator]
    sources=[SHOP_VIEW], schema=[FeastField(name="per_mark", dtype=types.Float64)], mode="python", singleton=True
)
def divided(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"per_mark": inputs["size"] / inputs["mark"]}


def applied(folder: Path, online_store: str = "{type: sqlite, path: data/online.db}") -> FeatureStore:
    """The repository, with services `both` (all forms over stored views), `asked` (the request alone), `shop` (one that
    divides by a stored feature) and `seen` (a source that is also a view of the service)."""
    store = repository(folder, online_store)
    source(folder)  # writes empty.parquet
    services = [
        FeatureService(name="both", features=[together, alone, SHOP_VIEW[["size"]]]),
        FeatureService(name="asked", features=[squared]),
        FeatureService(name="shop", features=[divided]),
        FeatureService(name="seen", features=[SCALAR_VIEW[["a_double", "an_int64"]], together[["ratio"]]]),
    ]
    views = [SCALAR_VIEW, LIST_VIEW, SHOP_VIEW, together, alone, squared, divided]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast's own, that such views are an experiment
        store.apply([USER, SHOP, *views, *services])
    return store


def history(folder: Path, rows: dict[str, Any]) -> None:
    """Write the offline source of every view here: columns of `rows`, event_timestamp among them."""
    pyarrow.parquet.write_table(pyarrow.table(rows), folder / "empty.parquet")


Rows = Sequence[tuple[Any, ...]]


@dataclass
class Place:
    """One filled repository, read by Feast and by us."""

    folder: Path
    feast: FeatureStore

    def compiled(self, service: str, **change: Any) -> Compiled:
        given: dict[str, Any] = {
            "request": REQUEST, "defaults": {}, "max_age": {}, "deadline_ms": 500.0, "on_missing": "default",
        }  # fmt: skip
        return compile_service(self.folder, service, **{**given, **change})

    def ours(self, service: str, *calls: Rows, **change: Any) -> list[Features]:
        made = self.compiled(service, **change)
        code = self.folder / f"{service}.py"
        code.write_text(made.code, "utf-8")
        plan = load(dump(made.plan))
        lookup = DerivedLookup(plan, open_store(made.url, plan), REQUEST, load_makers(code))

        async def read() -> list[Features]:
            await lookup.open()
            try:
                return [await lookup.read(rows, now=time.monotonic(), wall=time.time()) for rows in calls]
            finally:
                await lookup.close()

        return asyncio.run(read())

    def theirs(self, service: str, rows: Rows) -> dict[str, list[Any]]:
        entity_rows = [{field.name: value for field, value in zip(REQUEST, row, strict=True)} for row in rows]
        return dict(
            self.feast.get_online_features(
                features=self.feast.get_feature_service(service), entity_rows=entity_rows
            ).to_dict()
        )


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("demand")
    config = "{type: sqlite, path: data/online.db}"
    if request.param == "redis":
        address = request.getfixturevalue("redis_url").split("//")[1].split("/")[0]
        config = f'{{type: redis, connection_string: "{address},db=6"}}'
    store = applied(folder, config)
    rng = random.Random(SEED)
    now = datetime.now(UTC)
    for user in USERS[:15]:
        key = {"user_id": Value(int64_val=user)}
        for name, kinds in (("scalars", SCALARS), ("lists", LISTS)):
            values = {
                each: Value() if rng.random() < 0.2 else random_value(rng, kind.to_value_type().name)
                for each, kind in kinds.items()
            }
            write(store, name, [(key, values, now)])
    for size, shop in enumerate(SHOPS):
        key = {"shop_name": Value(string_val=shop)}
        values = {"size": Value(int64_val=size + 2), "mark": Value(double_val=float(size))}
        write(store, "shops", [(key, values, now)])
    return Place(folder, store)
