"""A stream feature view of card transactions for tests, in a real Feast repository."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from feast import Entity, FeatureService, FeatureStore, KafkaSource, PushSource, ValueType, types
from feast import Field as FeastField
from feast.aggregation import Aggregation
from feast.data_format import JsonFormat
from feast.stream_feature_view import StreamFeatureView
from tests.feast_repo import repository, source

CARD = Entity(name="card", join_keys=["card_id"], value_type=ValueType.INT64)
TOPIC = "transactions"
SQLITE = "{type: sqlite, path: data/online.db}"
# What the schema of the view below holds beside its key.
FIELDS = {"card_tx_count_1h": types.Int64, "sum_amount_86400s": types.Float64}
# Feast says so of any; a test that wants one ignores it.
EXPERIMENTAL = "ignore:Stream feature views are experimental features:RuntimeWarning"


def aggregation(function: str, hours: float = 1.0, column: str = "amount", **more: Any) -> Aggregation:
    return Aggregation(column=column, function=function, time_window=timedelta(hours=hours), **more)


def aggregations() -> list[Aggregation]:
    """Of the features in FIELDS, one with a name and one that Feast names."""
    return [aggregation("count", name="card_tx_count_1h"), aggregation("sum", 24)]


def kafka(folder: Path, **change: Any) -> KafkaSource:
    given: dict[str, Any] = {
        "name": "transactions_stream",
        "topic": TOPIC,
        "timestamp_field": "at",
        "message_format": JsonFormat(schema_json=""),
        "batch_source": source(folder),
        "watermark_delay_threshold": timedelta(seconds=30),
    }
    return KafkaSource(**{**given, **change})


def stream_view(folder: Path, *, entities: Sequence[Entity] = (CARD,), **change: Any) -> StreamFeatureView:
    """The view `card_tx`. `change`: of its arguments; `fields` instead of the schema."""
    fields = change.pop("fields", FIELDS)
    keys = [FeastField(name=each.join_key, dtype=types.from_value_type(each.value_type)) for each in entities]
    given: dict[str, Any] = {
        "name": "card_tx",
        "source": change["source"] if "source" in change else kafka(folder),
        "schema": keys + [FeastField(name=name, dtype=kind) for name, kind in fields.items()],
        "aggregations": aggregations(),
        "timestamp_field": "at",
        "enable_tiling": True,
        "tiling_hop_size": timedelta(minutes=1),
        "ttl": timedelta(days=30),
        "tags": {"sunup.event_id": "transaction_id", "team": "risk"},
    }
    return StreamFeatureView(entities=list(entities), **{**given, **change})


def pushed(folder: Path) -> StreamFeatureView:
    """The view with a source that names no topic."""
    return stream_view(folder, source=PushSource(name="pushed", batch_source=source(folder)))


def applied(
    folder: Path, view: StreamFeatureView, *more: Any, service: Sequence[Any] | None = None, **more_of: str
) -> FeatureStore:
    """A repository with `view`, what is in `more`, and the service `cards`, of the view or of `service`. `more_of`: as
    `repository`."""
    made = repository(folder, SQLITE, **more_of)
    cards = FeatureService(name="cards", features=list(service if service is not None else [view]))
    made.apply([CARD, view, *more, cards])
    return made
