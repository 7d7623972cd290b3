"""Every stream feature view that cannot be aggregated, and what its owner is told to change."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas
import pytest
from feast import types
from feast.aggregation import Aggregation as Aggregating
from feast.stream_feature_view import StreamFeatureView
from tests.feast_repo import source
from tests.stream_view import EXPERIMENTAL, FIELDS, aggregation, aggregations, applied, kafka, pushed, stream_view
from tests.unit.test_lookup_streamed import compiled

from sunup.errors import FeaturesRefused
from sunup.lookup.compile.streamed import aggregated_of

pytestmark = pytest.mark.filterwarnings(EXPERIMENTAL)


def nested(folder: Path) -> StreamFeatureView:
    return stream_view(folder, source=stream_view(folder), sink_source=source(folder), name="nested")


def of(**change: Any) -> Callable[[Path], StreamFeatureView]:
    return lambda folder: stream_view(folder, **change)


def of_kafka(**change: Any) -> Callable[[Path], StreamFeatureView]:
    return lambda folder: stream_view(folder, source=kafka(folder, **change))


def of_one(
    function: str = "count", hours: float = 1.0, kind: Any = types.Int64, hop: float = 60, **more: Any
) -> Callable[[Path], StreamFeatureView]:
    """A view of one aggregation, n. `hop`: seconds."""
    made = [aggregation(function, hours, **{"name": "n", **more})]
    return of(fields={"n": kind}, aggregations=made, tiling_hop_size=timedelta(seconds=hop))


def doubled(rows: pandas.DataFrame) -> pandas.DataFrame:
    return rows


REFUSED: dict[str, tuple[Callable[[Path], StreamFeatureView], str]] = {
    "pushed": (pushed, "its PushSource names no topic. Give it a KafkaSource with the topic of its events."),
    "nested": (nested, "it is made of another view. Give it a KafkaSource with the topic of its events."),
    "topic": (of_kafka(topic=""), "its KafkaSource transactions_stream names no topic. Write topic= there."),
    "mapped": (
        of_kafka(field_mapping={"value": "amount"}),
        "its KafkaSource transactions_stream has a field_mapping. Leave it out, and name fields as the events of the "
        "topic do.",
    ),
    "times": (
        of_kafka(timestamp_field="ts"),
        "its timestamp_field is at, and that of its KafkaSource is ts. Write the same in both.",
    ),
    "udf": (
        of(udf=doubled, udf_string="doubled", mode="pandas"),
        "it has a transformation, which nothing runs. Leave it out, and aggregate fields of the events.",
    ),
    "none": (
        of(aggregations=[]),
        "it has no aggregations. Add some, or make it a feature view that is materialized.",
    ),
    "entities": (
        of(entities=()),
        "it has no entities, and each partition of its topic would have a value of its own. Give it entities.",
    ),
    "tag": (
        of(tags={"sunup.eventid": "id"}),
        "its tag sunup.eventid is unknown. There is sunup.event_id. Correct it, or take it out.",
    ),
    "empty tag": (
        of(tags={"sunup.event_id": ""}),
        "its tag sunup.event_id is empty. Name the event field there, or take the tag out.",
    ),
    "tiling": (
        of(enable_tiling=False),
        "it has no tiles. Write enable_tiling=True, and tiling_hop_size=timedelta(...) if not 5 minutes.",
    ),
    "hop": (
        of(tiling_hop_size=timedelta(seconds=1.5)),
        "its tiling_hop_size is not in whole seconds. Write timedelta(seconds=1) or a multiple of it.",
    ),
    "function": (
        of_one("count_distinct"),
        "the function of n is count_distinct. Take one of sum, count, min, max, mean.",
    ),
    "column": (of_one(column=""), "n names no column. Write the event field it is made of."),
    "no window": (
        of(fields={"n": types.Int64}, aggregations=[Aggregating(column="amount", function="count", name="n")]),
        "n has no time_window. Give it one of 60 to 604800 whole seconds.",
    ),
    "short": (
        of_one(hours=30 / 3600, hop=1),
        "n has a time_window of 30 s. Give it one of 60 to 604800 whole seconds.",
    ),
    "long": (
        of_one(hours=8 * 24),
        "n has a time_window of 691200 s. Give it one of 60 to 604800 whole seconds.",
    ),
    "multiple": (
        of_one(hop=7),
        "the time_window of n, 3600 s, is no multiple of tiling_hop_size, 7 s. Change one of them.",
    ),
    "tiles": (
        of_one(hours=24, hop=5),
        "the time_window of n is 17280 tiles of 5 s, and at most 10080 are kept. Widen tiling_hop_size.",
    ),
    "slide": (
        of_one(slide_interval=timedelta(minutes=10)),
        "n is to slide by 600 s, and windows slide by tiling_hop_size, 60 s. Leave it out.",
    ),
    "no field": (
        of(fields={"card_tx_count_1h": types.Int64}),
        "its schema has no field sum_amount_86400s or sum_amount for the sum of amount. Add it.",
    ),
    "no field of its name": (
        of(fields={"sum_amount_86400s": types.Float64}),
        "its schema has no field card_tx_count_1h for the count of amount. Add it.",
    ),
    "no aggregation": (
        of(fields={**FIELDS, "country": types.String}),
        "no aggregation makes country. Add one, or take it out of the schema.",
    ),
    "twice": (
        of(aggregations=[*aggregations(), aggregation("sum", name="sum_amount_86400s")]),
        "two aggregations make sum_amount_86400s. Give each a name of its own.",
    ),
    "count": (
        of_one(kind=types.Float64),
        "n is DOUBLE, and a count is INT64 or INT32. Change the field of the schema.",
    ),
    "mean": (
        of_one("mean"), "n is INT64, and a mean is DOUBLE or FLOAT. Change the field of the schema.",
    ),
    "sum": (
        of_one("sum", kind=types.String),
        "n is STRING, and a sum is DOUBLE or FLOAT or INT64 or INT32. Change the field of the schema.",
    ),
    "late": (
        of_kafka(watermark_delay_threshold=timedelta(days=1)),
        "its KafkaSource waits 86400 s for late events (watermark_delay_threshold). Give it 0 to 3600 s.",
    ),
    "ttl": (
        of(ttl=timedelta(days=1)),
        "its ttl is 86400 s, and a value that does not change is not written again for up to 86460 s, its longest "
        "window and a tile. Give it that, or none.",
    ),
    "bytes": (
        of(
            fields={f"n{at}": types.Float64 for at in range(6)},
            aggregations=[aggregation("sum", 7 * 24, f"c{at}", name=f"n{at}") for at in range(6)],
        ),
        "each entity would take up to 551 KiB, and 512 KiB is the most. Widen tiling_hop_size.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_aggregated_is_refused_with_what_to_change(case: str, tmp_path: Path) -> None:
    make, says = REFUSED[case]
    made = make(tmp_path)
    with pytest.raises(FeaturesRefused) as refused:
        aggregated_of(made)
    assert refused.value.message == f"The stream feature view {made.name} cannot be aggregated: {says}"


def test_a_view_that_nobody_could_aggregate_is_refused_to_whoever_reads_it(tmp_path: Path) -> None:
    applied(tmp_path, pushed(tmp_path))
    with pytest.raises(FeaturesRefused, match="its PushSource names no topic"):
        compiled(tmp_path, None)


def test_a_view_that_feast_stores_under_a_version_is_refused(tmp_path: Path) -> None:
    """For it counts one whenever it is applied."""
    versions = "{registry_type: file, path: registry.db, enable_online_feature_view_versioning: true}"
    applied(tmp_path, stream_view(tmp_path), registry=versions)
    store = applied(tmp_path, stream_view(tmp_path), registry=versions)
    assert store.get_stream_feature_view("card_tx").current_version_number == 1
    with pytest.raises(FeaturesRefused) as refused:
        compiled(tmp_path)
    assert refused.value.message == (
        "Feast would store the stream feature view card_tx under a version, and counts one at every `feast apply`, "
        "changed or not. Leave enable_online_feature_view_versioning out of feature_store.yaml."
    )
