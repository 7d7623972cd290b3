"""Two stream feature views of one entity, in a read plan and in Feast, and the model that shows their values.

`recent` has short tiles and little patience with late events, `hour` has long ones and more of it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from feast import Entity as FeastEntity
from feast import FeatureService, FeatureStore, ValueType, types
from onnx import TensorProto, helper
from tests.feast_repo import repository, source, view

from sunup.lookup.plan import Entity, Feature, JoinKey, ReadPlan, View, entity_columns
from sunup.types import Aggregated, Aggregation, Field

PROJECT: Final = "velocity"
NOTHING: Final = -1.0  # the default of a feature that has no value in an empty window
CARD: Final = JoinKey("card_id", "card_id", "INT64")
REQUEST: Final = (
    Field("n", "float64"),
    Field("card_id", "int64"),
    Field("transaction_id", "string"),
    Field("event_time", "string"),
    Field("amount", "float64"),
    Field("fee", "float64"),
)


def recent(topic: str, *, hop_s: int = 20, late_s: float = 20.0, windows: tuple[int, int] = (60, 300)) -> Aggregated:
    short, long = windows
    return Aggregated(
        topic,
        "event_time",
        hop_s,
        late_s,
        "transaction_id",
        (
            Aggregation("count_short", "count", "amount", short),
            Aggregation("sum_long", "sum", "amount", long),
            Aggregation("max_long", "max", "amount", long),
            Aggregation("mean_short", "mean", "amount", short),
        ),
    )


def hour(topic: str) -> Aggregated:
    return Aggregated(
        topic,
        "event_time",
        60,
        60.0,
        "transaction_id",
        (
            Aggregation("fee_count_hour", "count", "fee", 3600),
            Aggregation("fee_sum_hour", "sum", "fee", 3600),
            Aggregation("amount_min_hour", "min", "amount", 3600),
        ),
    )


def kind(function: str) -> str:
    return "INT64" if function == "count" else "DOUBLE"


def default(function: str) -> float:
    """Of a feature without a value."""
    return 0 if function in ("count", "sum") else NOTHING


def plan(specs: dict[str, Aggregated], *, aggregated: bool = True) -> ReadPlan:
    """The read plan of these views; without `aggregated` that of a function that only reads them."""
    views = tuple(
        View(
            name,
            name,
            None,
            None,
            tuple(Feature(a.feature, a.feature, kind(a.function), default(a.function)) for a in spec.aggregations),
            aggregated=spec if aggregated else None,
        )
        for name, spec in specs.items()
    )
    entities = (Entity((CARD,), views),)
    return ReadPlan(1, PROJECT, 3, 1000.0, "default", entities, entity_columns(entities))


def names(specs: dict[str, Aggregated]) -> list[str]:
    """The features, in the plan's order."""
    return [a.feature for spec in specs.values() for a in spec.aggregations]


def times_model(width: int, factor: float) -> bytes:
    """y[n, width] = x[n, width] * factor, in float64: what came in is seen in what comes out."""
    value = helper.make_tensor("factor", TensorProto.DOUBLE, [1], [factor])
    sides = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None, width]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Mul", ["x", "factor"], ["y"])], "times", sides[:1], sides[1:], [value])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def warmup(width: int, factor: float) -> dict[str, np.ndarray]:
    rows = np.arange(3.0 * width).reshape(3, width)
    return {"in:x": rows, "out:y": rows * factor}


def applied(folder: Path, online_store: str, specs: dict[str, Aggregated]) -> FeatureStore:
    """A Feast repository with these views, so that Feast's own tables are there and Feast's SDK can read them."""
    store = repository(folder, online_store, project=PROJECT)
    card = FeastEntity(name="card", join_keys=["card_id"], value_type=ValueType.INT64)
    empty = source(folder)
    kinds = {"INT64": types.Int64, "DOUBLE": types.Float64}
    views = [
        view(name, [card], {a.feature: kinds[kind(a.function)] for a in spec.aggregations}, source=empty)
        for name, spec in specs.items()
    ]
    store.apply([card, *views, FeatureService(name="velocity", features=[*views])])
    return store


def sdk_values(store: FeatureStore, cards: Sequence[int]) -> dict[str, list[float | int | None]]:
    """What Feast's SDK reads of these cards, by feature."""
    service = store.get_feature_service("velocity")
    read = store.get_online_features(features=service, entity_rows=[{"card_id": card} for card in cards]).to_dict()
    return {name: found for name, found in read.items() if name != "card_id"}
