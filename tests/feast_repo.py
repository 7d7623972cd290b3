"""A small Feast repository with every value type, for tests that compare with Feast itself."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow
import pyarrow.parquet
from feast import Entity, FeatureService, FeatureStore, FeatureView, FileSource, ValueType, types
from feast import Field as FeastField
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

PROJECT = "dïff"

# One entity's keys and values, and when they were true.
Write: TypeAlias = tuple[Mapping[str, Value], Mapping[str, Value], datetime]

SCALARS = {
    "a_bytes": types.Bytes,
    "a_string": types.String,
    "an_int32": types.Int32,
    "an_int64": types.Int64,
    "a_double": types.Float64,
    "a_float": types.Float32,
    "a_bool": types.Bool,
    "a_time": types.UnixTimestamp,
}
LISTS = {f"{name}_list": types.Array(kind) for name, kind in SCALARS.items()}
USER = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
SHOP = Entity(name="shop", join_keys=["shop_name"], value_type=ValueType.STRING)
ITEM = Entity(name="item", join_keys=["item_no"], value_type=ValueType.INT32)
BLOB = Entity(name="blob", join_keys=["blob_key"], value_type=ValueType.BYTES)
HOUR = Entity(name="hour", join_keys=["hour"], value_type=ValueType.UNIX_TIMESTAMP)


def view(
    name: str, entities: list[Entity], features: Mapping[str, Any], *, ttl: timedelta = timedelta(0), **more: Any
) -> FeatureView:
    """A feature view over `source`, with its join keys in the schema as Feast wants them."""
    keys = [FeastField(name=each.join_key, dtype=types.from_value_type(each.value_type)) for each in entities]
    schema = keys + [FeastField(name=name, dtype=kind) for name, kind in features.items()]
    return FeatureView(name=name, entities=entities, ttl=ttl, schema=schema, **more)


def repository(
    folder: Path, online_store: str, *, project: str = PROJECT, registry: str = "registry.db"
) -> FeatureStore:
    """An empty repository in `folder`; `online_store` and `registry` are those parts of feature_store.yaml, in YAML's
    flow style."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "feature_store.yaml").write_text(
        f"project: {project}\nprovider: local\nregistry: {registry}\nonline_store: {online_store}\n"
        "offline_store: {type: file}\nentity_key_serialization_version: 3\n"
    )
    return FeatureStore(repo_path=str(folder))


def source(folder: Path) -> FileSource:
    """An offline source that holds nothing: these tests write to the online store directly."""
    path = folder / "empty.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"event_timestamp": pyarrow.array([], pyarrow.timestamp("us"))}), path)
    return FileSource(name=f"nothing_{folder.name}", path=str(path), timestamp_field="event_timestamp")


def everything(folder: Path, online_store: str) -> FeatureStore:
    """The repository of the differential test: service `all` over every type, key type and kind of view.

    It has versions: of view `moved` there are two, in tables of their own, of which the service asks for the newer.
    """
    versions = "{registry_type: file, path: registry.db, enable_online_feature_view_versioning: true}"
    store = repository(folder, online_store, registry=versions)
    empty = source(folder)
    scalars = view("scalars", [USER], SCALARS, source=empty, ttl=timedelta(days=1))
    lists = view("lists", [USER], LISTS, source=empty)
    pairs = view("päirs", [USER, SHOP], {"pair_score": types.Float64, "pair_name": types.String}, source=empty)
    shops = view("shops", [SHOP], {"shop_count": types.Int64, "unused": types.Int64}, source=empty)
    items = view("items", [ITEM], {"item_price": types.Float32}, source=empty)
    blobs = view("blobs", [BLOB], {"blob_size": types.Int64}, source=empty)
    world = view("world", [], {"mood": types.String}, source=empty)
    hours = view("hours", [HOUR, ITEM], {"sold": types.Int64}, source=empty)
    people = view("people", [USER], {"trust": types.Float64}, source=empty)
    for features in ({"moved_count": types.Int64}, {"moved_count": types.Int64, "moved_mean": types.Float64}):
        moved = view("moved", [USER], features, source=empty)
        store.apply([USER, moved])
    service = FeatureService(
        name="all",
        features=[
            scalars,
            pairs,
            lists,
            shops[["shop_count"]],
            items,
            blobs,
            world,
            hours,
            "moved@v1",
            people.with_name("sellers").with_join_key_map({"user_id": "seller_id"}),
            people.with_name("buyers").with_join_key_map({"user_id": "buyer_id"}),
        ],
    )
    views = [scalars, lists, pairs, shops, items, blobs, world, hours, people]
    store.apply([USER, SHOP, ITEM, BLOB, HOUR, *views])
    store.apply([service])
    return store


def write(store: FeatureStore, name: str, rows: Iterable[Write]) -> None:
    """Write entities' values of view `name` with Feast's own writer: of its newest version, or that of `name@v0`."""
    name, _, version = name.partition("@v")
    newest = store.get_feature_view(name)
    table = store.registry.get_feature_view_by_version(name, store.project, int(version)) if version else newest
    made = [
        (EntityKey(join_keys=list(keys), entity_values=list(keys.values())), dict(values), at, None)
        for keys, values, at in rows
    ]
    store._get_provider().online_write_batch(store.config, table, made, None)
