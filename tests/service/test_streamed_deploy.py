"""A stream feature view as a project has it: defined in a file, applied and materialized around with Feast's own
command line, made part of a bundle, and read by Feast's SDK."""

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from tests.fraud_fixture import feast
from tests.service.test_cli import Ran, platform
from tests.stream_view import EXPERIMENTAL

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of importing Feast: its own
    from feast import FeatureStore
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

from sunup.bundle.manifest import FEATURES
from sunup.bundle.packager import Packager
from sunup.bundle.store import read_manifest
from sunup.cli.compose import features
from sunup.lookup.plan import ReadPlan, load
from sunup.settings import Project
from sunup.types import Aggregated, Aggregation

pytestmark = [pytest.mark.timeout(400), pytest.mark.filterwarnings(EXPERIMENTAL)]

STORE = """\
project: shop
provider: local
registry: data/registry.db
online_store: {type: sqlite, path: data/online.db}
offline_store: {type: file}
entity_key_serialization_version: 3
"""
VIEWS = """
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, KafkaSource, ValueType
from feast.aggregation import Aggregation
from feast.data_format import JsonFormat
from feast.stream_feature_view import StreamFeatureView
from feast.types import Float64, Int64

card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.INT64)
limits = FeatureView(
    name="card_limits",
    entities=[card],
    source=FileSource(name="limits", path="data/limits.parquet", timestamp_field="event_timestamp"),
    schema=[Field(name="card_id", dtype=Int64), Field(name="card_limit", dtype=Float64)],
)
card_tx = StreamFeatureView(
    name="card_tx",
    entities=[card],
    source=KafkaSource(
        name="transactions",
        topic="transactions",
        timestamp_field="at",
        message_format=JsonFormat(schema_json=""),
        watermark_delay_threshold=timedelta(minutes=1),
        batch_source=FileSource(name="card_tx_history", path="data/card_tx.parquet", timestamp_field="event_timestamp"),
    ),
    schema=[
        Field(name="card_id", dtype=Int64),
        Field(name="card_tx_count_1h", dtype=Int64),
        Field(name="card_amount_sum_24h", dtype=Float64),
    ],
    aggregations=[
        Aggregation(column="amount", function="count", time_window=timedelta(hours=1), name="card_tx_count_1h"),
        Aggregation(column="amount", function="sum", time_window=timedelta(hours=24), name="card_amount_sum_24h"),
    ],
    timestamp_field="at",
    enable_tiling=True,
    tiling_hop_size=timedelta(minutes=1),
    tags={"sunup.event_id": "transaction_id"},
    online=False,  # `feast materialize` leaves it alone
)
cards = FeatureService(name="cards", features=[card_tx])
"""
FUNCTION = """
[request]
amount = "float64"
card_id = "int64"

[features]
service = "cards"
defaults = { card_tx_count_1h = 0 }

[stream]
broker = "embedded"
input = "transactions"
"""


class Shop:
    """A project whose model takes the features of a stream feature view."""

    def __init__(self, root: Path) -> None:
        self.root, self.project = root, Project(root)

    def define(self, views: str) -> None:
        (self.root / "features" / "views.py").write_text(views)
        feast(self.root, "apply")

    def bundle(self, function: str = FUNCTION) -> Ran:
        folder = self.root / "functions" / "cards"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "function.toml").write_text(function)
        return platform(self.root, "bundle", "cards", "--json")

    def plan(self, ran: Ran) -> ReadPlan:
        return load((self.project.bundles / ran.json["digest"] / FEATURES).read_bytes())

    def write(self, name: str, card: int, **values: Value) -> None:
        """With Feast's own writer."""
        store = FeatureStore(repo_path=str(self.root / "features"))
        key = EntityKey(join_keys=["card_id"], entity_values=[Value(int64_val=card)])
        view = store.registry.get_any_feature_view(name, store.project)
        store._get_provider().online_write_batch(store.config, view, [(key, values, datetime.now(UTC), None)], None)

    def read(self, card: int, *features: str) -> dict[str, Any]:
        """With Feast's SDK."""
        store = FeatureStore(repo_path=str(self.root / "features"))
        found = store.get_online_features(features=list(features), entity_rows=[{"card_id": card}]).to_dict()
        return {name: values[0] for name, values in found.items()}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    root = tmp_path_factory.mktemp("shop")
    (root / "functions").mkdir()
    (root / "features" / "data").mkdir(parents=True)
    (root / "features" / "feature_store.yaml").write_text(STORE)
    at = pyarrow.array([datetime.now(UTC) - timedelta(hours=1)], pyarrow.timestamp("us", tz="UTC"))
    rows = pyarrow.table({"event_timestamp": at, "card_id": [7], "card_limit": [500.0]})
    pyarrow.parquet.write_table(rows, root / "features" / "data" / "limits.parquet")
    shop = Shop(root)
    shop.define(VIEWS)
    model = Path(__file__).parents[1] / "card_model.py"
    subprocess.run([sys.executable, str(model)], cwd=root, check=True, capture_output=True)
    yield shop
    platform(root, "down")  # and the packager with it


def test_a_definition_in_features_is_enough(shop: Shop) -> None:
    ran = shop.bundle()
    (card_tx,) = shop.plan(ran).views
    assert card_tx.aggregated == Aggregated(
        topic="transactions",
        timestamp="at",
        hop_s=60,
        late_s=60.0,
        event_id="transaction_id",
        aggregations=(
            Aggregation("card_tx_count_1h", "count", "amount", 3_600),
            Aggregation("card_amount_sum_24h", "sum", "amount", 86_400),
        ),
    )
    assert read_manifest(shop.project.bundles / ran.json["digest"]).aggregates == ("shop/card_tx",)


def test_a_function_that_leaves_it_to_another_one_reads_the_view(shop: Shop) -> None:
    ran = shop.bundle(FUNCTION + "aggregate = []\n")
    assert [view.aggregated for view in shop.plan(ran).views] == [None]
    assert read_manifest(shop.project.bundles / ran.json["digest"]).aggregates == ()


def test_what_cannot_be_is_said_before_anything_is_made(shop: Shop) -> None:
    wrong = FUNCTION + 'guarantee = "at-least-once"\n'
    assert "tiles and positions move together only exactly once" in shop.bundle(wrong).refused(1)
    wrong = FUNCTION + 'aggregate = ["card_txs"]\n'
    assert "[stream] aggregate names card_txs, which is no stream feature view" in shop.bundle(wrong).refused(1)


@pytest.mark.parametrize("more", ["", "aggregate = []\n"])
def test_a_bundle_made_before_is_of_the_same_features(shop: Shop, more: str) -> None:
    """As `deploy DIR` asks: what the function scores is part of the question."""
    digest = shop.bundle(FUNCTION + more).json["digest"]
    packager = Packager()
    assert features(shop.project, digest=digest, packager=packager, on_stage=lambda *_: None)["note"] == ""


def test_another_definition_is_another_bundle_and_applied_again_it_is_the_same(shop: Shop) -> None:
    first = shop.bundle().json["digest"]
    shop.define(VIEWS.replace("tiling_hop_size=timedelta(minutes=1)", "tiling_hop_size=timedelta(minutes=5)"))
    second = shop.bundle()
    (card_tx,) = shop.plan(second).views
    assert card_tx.aggregated is not None
    assert card_tx.aggregated.hop_s == 300
    assert second.json["digest"] != first
    shop.define(VIEWS)
    assert shop.bundle().json["digest"] == first


def test_feast_materializes_the_other_views_and_reads_this_one(shop: Shop) -> None:
    until = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    shop.write("card_tx", 7, card_tx_count_1h=Value(int64_val=3))
    feast(shop.root, "materialize-incremental", until)
    assert shop.read(7, "card_tx:card_tx_count_1h", "card_limits:card_limit") == {
        "card_id": 7, "card_tx_count_1h": 3, "card_limit": 500.0,
    }  # fmt: skip


def test_materializing_everything_fails_where_the_view_is_online_and_by_name_it_does_not(shop: Shop) -> None:
    """What docs/features.md says of it; Feast 0.67 refuses windows when it has materialized the other views."""
    shop.define(VIEWS.replace("    online=False,", "    online=True,"))
    try:
        store = FeatureStore(repo_path=str(shop.root / "features"))
        span = {"start_date": datetime.now(UTC) - timedelta(days=1), "end_date": datetime.now(UTC)}
        with pytest.raises(ValueError, match="Time window aggregation is not supported"):
            store.materialize(**span)
        store.materialize(**span, feature_views=["card_limits"])
    finally:
        shop.define(VIEWS)
    assert json.dumps(shop.read(7, "card_limits:card_limit")) == '{"card_id": 7, "card_limit": 500.0}'
