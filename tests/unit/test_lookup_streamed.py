"""A stream feature view in a read plan: as it was declared, and every reason for which it is refused."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from feast import types
from tests.feast_repo import SHOP, USER, source, view
from tests.stream_view import CARD, EXPERIMENTAL, FIELDS, TOPIC, aggregation, applied, kafka, stream_view

from sunup.errors import FeaturesRefused
from sunup.limits import AGGREGATE_LATE_SECONDS_DEFAULT
from sunup.lookup.compile.service import changed_since, compile_service
from sunup.lookup.compile.streamed import Scored, aggregated_of, entity_bytes
from sunup.lookup.plan import ReadPlan, digest, dump, load
from sunup.types import Aggregated, Aggregation
from sunup.types import Field as RequestField

pytestmark = pytest.mark.filterwarnings(EXPERIMENTAL)
REQUEST = [RequestField("card_id", "int64"), RequestField("payer_id", "int64"), RequestField("amount", "float64")]
SCORED = Scored(TOPIC)
SPEC = Aggregated(
    topic=TOPIC,
    timestamp="at",
    hop_s=60,
    late_s=30.0,
    event_id="transaction_id",
    aggregations=(
        Aggregation("card_tx_count_1h", "count", "amount", 3_600),
        Aggregation("sum_amount_86400s", "sum", "amount", 86_400),
    ),
)


def compiled(repo: Path, scored: Scored | None = SCORED, **change: Any) -> ReadPlan:
    given: dict[str, Any] = {
        "request": REQUEST, "defaults": {}, "max_age": {}, "deadline_ms": 20.0, "on_missing": "default",
    }  # fmt: skip
    return compile_service(repo, "cards", scored=scored, **{**given, **change})[0]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streamed")
    applied(folder, stream_view(folder))
    return folder


def test_a_view_read_back_from_the_registry_is_aggregated_as_it_was_declared(repo: Path) -> None:
    plan = compiled(repo)
    ((card_tx,),) = (entity.views for entity in plan.entities)
    assert card_tx.aggregated == SPEC
    assert (card_tx.name, card_tx.stored, card_tx.ttl_s) == ("card_tx", "card_tx", 30 * 86_400)
    assert [(each.name, each.value_type) for each in card_tx.features] == [
        ("card_tx_count_1h", "INT64"), ("sum_amount_86400s", "DOUBLE"),
    ]  # fmt: skip
    assert [key.name for key in plan.entities[0].join_keys] == ["card_id"]
    assert load(dump(plan)) == plan
    assert changed_since(repo, plan, REQUEST, Scored(TOPIC)) == ""


@pytest.mark.parametrize(
    "scored", [None, Scored("other"), Scored(TOPIC, aggregate=()), Scored(TOPIC, "at-least-once", aggregate=())]
)
def test_other_functions_read_the_view_from_the_store(repo: Path, scored: Scored | None) -> None:
    (card_tx,) = compiled(repo, scored).views
    assert card_tx.aggregated is None
    assert [each.name for each in card_tx.features] == list(FIELDS)


def test_who_scores_another_topic_is_told_that_the_view_is_only_read(repo: Path) -> None:
    given: Any = {"request": REQUEST, "defaults": {}, "max_age": {}, "deadline_ms": 20.0, "on_missing": "default"}
    notes = {
        scored: compile_service(repo, "cards", scored=scored, **given).note
        for scored in (None, SCORED, Scored("other"), Scored("other", aggregate=()))
    }
    assert f"card_tx is made of the topic {TOPIC}, and this function scores other" in notes.pop(Scored("other"))
    assert not any(notes.values())


def test_the_same_definition_elsewhere_gives_the_same_plan_and_another_one_another(repo: Path, tmp_path: Path) -> None:
    applied(tmp_path, stream_view(tmp_path))
    assert dump(compiled(repo)) == dump(compiled(tmp_path))
    for number, change in enumerate(
        (
            {"tiling_hop_size": timedelta(minutes=5)},
            {"source": kafka(tmp_path, watermark_delay_threshold=timedelta(seconds=5))},
            {"tags": {}},
            {"aggregations": [aggregation("count", 2, name="card_tx_count_1h"), aggregation("sum", 24)]},
        )
    ):
        folder = tmp_path / str(number)
        applied(folder, stream_view(tmp_path, **change))
        assert digest(compiled(folder)) != digest(compiled(repo))
        assert "have changed since" in changed_since(folder, compiled(repo), REQUEST, Scored(TOPIC))


def test_a_view_applied_again_with_another_hop_has_that(tmp_path: Path) -> None:
    """Feast's own idea of what has changed leaves the hop and the source out; it writes the view all the same."""
    applied(tmp_path, stream_view(tmp_path))
    before = compiled(tmp_path)
    source = kafka(tmp_path, watermark_delay_threshold=timedelta(seconds=5))
    applied(tmp_path, stream_view(tmp_path, tiling_hop_size=timedelta(seconds=30), source=source))
    (card_tx,) = compiled(tmp_path).views
    assert card_tx.aggregated is not None
    assert (card_tx.aggregated.hop_s, card_tx.aggregated.late_s) == (30, 5.0)
    assert changed_since(tmp_path, before, REQUEST, Scored(TOPIC))


def test_what_a_view_leaves_out_is_feasts_default_or_ours(tmp_path: Path) -> None:
    left_out: dict[str, Any] = {"tiling_hop_size": None, "tags": None, "ttl": timedelta(0)}
    spec = aggregated_of(stream_view(tmp_path, source=kafka(tmp_path, watermark_delay_threshold=None), **left_out))
    assert (spec.hop_s, spec.late_s, spec.event_id) == (300, AGGREGATE_LATE_SECONDS_DEFAULT, "")
    exact = aggregated_of(stream_view(tmp_path, source=kafka(tmp_path, watermark_delay_threshold=timedelta(0))))
    assert exact.late_s == 0.0


def test_every_function_and_the_features_it_can_make(tmp_path: Path) -> None:
    makes = {
        "count": (types.Int64, types.Int32),
        "sum": (types.Float64, types.Float32, types.Int64, types.Int32),
        "min": (types.Float64, types.Float32, types.Int64, types.Int32),
        "max": (types.Float64, types.Float32, types.Int64, types.Int32),
        "mean": (types.Float64, types.Float32),
    }
    fields = {f"{name}_{at}": kind for name, kinds in makes.items() for at, kind in enumerate(kinds)}
    made = [aggregation(name.partition("_")[0], name=name) for name in fields]
    spec = aggregated_of(stream_view(tmp_path, fields=fields, aggregations=made))
    assert [(each.feature, each.function) for each in spec.aggregations] == [
        (name, name.partition("_")[0]) for name in fields
    ]


def test_a_feature_may_have_feasts_name_without_its_window(tmp_path: Path) -> None:
    spec = aggregated_of(
        stream_view(tmp_path, fields={"mean_amount": types.Float64}, aggregations=[aggregation("mean")])
    )
    assert spec.aggregations == (Aggregation("mean_amount", "mean", "amount", 3_600),)


def test_what_an_entity_takes_at_most() -> None:
    tiles = 86_400 // 60 + 1
    assert entity_bytes(SPEC) == tiles * (1 + 2) * 8  # a number, a count and a sum


def test_a_function_aggregates_exactly_once_or_not_at_all(repo: Path) -> None:
    says = (
        "The function aggregates card_tx, and tiles and positions move together only exactly once. Write guarantee = "
        '"exactly-once" under [stream] in function.toml, or write `aggregate = []` under [stream], which leaves '
        "card_tx to another function."
    )
    with pytest.raises(FeaturesRefused) as refused:
        compiled(repo, Scored(TOPIC, "at-least-once"))
    assert refused.value.message == says


@pytest.mark.parametrize(
    ("scored", "says"),
    [
        (
            Scored("payments", aggregate=("card_tx",)),
            "[stream] aggregate names card_tx, which is made of the topic transactions, and the function scores "
            "payments. Take it out of [stream] aggregate, or correct the topic of its KafkaSource.",
        ),
        (
            Scored(TOPIC, aggregate=("card_txs",)),
            "[stream] aggregate names card_txs, which is no stream feature view of the service. There is card_tx. "
            "Correct function.toml.",
        ),
        (
            Scored(TOPIC, content="image"),
            "The function aggregates card_tx, and records that are pictures hold no event. Write another content under "
            "[stream] in function.toml, or write `aggregate = []` under [stream].",
        ),
        (
            Scored(TOPIC, item="card_id"),
            "The function aggregates card_tx, whose join key is each candidate's card_id: a record is an event of one "
            "entity. Write `aggregate = []` under [stream] in function.toml, or name the views to aggregate there.",
        ),
    ],
)
def test_a_function_that_cannot_aggregate_a_view_is_told_why(repo: Path, scored: Scored, says: str) -> None:
    with pytest.raises(FeaturesRefused) as refused:
        compiled(repo, scored)
    assert refused.value.message == says


def test_a_bound_on_the_age_that_right_values_pass_is_refused(repo: Path) -> None:
    with pytest.raises(FeaturesRefused) as refused:
        compiled(repo, max_age={"card_tx": 60})
    assert refused.value.message == (
        "[features] max_age of card_tx is 60 s, and a value that does not change is not written again for up to 86460 "
        "s, its longest window and a tile. Write that, or take it out of function.toml."
    )
    assert compiled(repo, max_age={"card_tx": 90_000}).views[0].aggregated == SPEC


def test_part_of_a_view_can_be_read_and_not_aggregated(tmp_path: Path) -> None:
    made = stream_view(tmp_path)
    applied(tmp_path, made, service=[made[["sum_amount_86400s"]]])
    assert [each.name for each in compiled(tmp_path, None).views[0].features] == ["sum_amount_86400s"]
    with pytest.raises(FeaturesRefused) as refused:
        compiled(tmp_path)
    assert refused.value.message == (
        "The function aggregates card_tx, and the feature service leaves out card_tx_count_1h: whoever aggregates a "
        "view writes all of it. Take the whole view into the service, or write `aggregate = []` under [stream] in "
        "function.toml and let another function do it."
    )


def test_a_service_may_have_the_features_in_any_order(tmp_path: Path) -> None:
    made = stream_view(tmp_path)
    applied(tmp_path, made, service=[made[["sum_amount_86400s", "card_tx_count_1h"]]])
    (card_tx,) = compiled(tmp_path).views
    assert card_tx.aggregated is not None
    names = [each.name for each in card_tx.features]
    assert names == [each.feature for each in card_tx.aggregated.aggregations] == [*reversed(FIELDS)]


def test_events_count_once_under_one_key(tmp_path: Path) -> None:
    made = stream_view(tmp_path)
    payers = made.with_name("payers").with_join_key_map({"card_id": "payer_id"})
    applied(tmp_path, made, service=[made, payers])
    with pytest.raises(FeaturesRefused) as refused:
        compiled(tmp_path)
    assert refused.value.message == (
        "The function aggregates card_tx as card_tx and as payers, and events count once. Write aggregate = "
        '["card_tx"] under [stream] in function.toml, with each other view it is to aggregate; the others are '
        "read from the online store."
    )
    plan = compiled(tmp_path, Scored(TOPIC, aggregate=("payers",)))
    assert {view.name: view.aggregated is not None for view in plan.views} == {"card_tx": False, "payers": True}


def test_a_view_under_two_names_and_one_key_is_aggregated_once(tmp_path: Path) -> None:
    made = stream_view(tmp_path)
    applied(tmp_path, made, service=[made[["sum_amount_86400s"]], made[["card_tx_count_1h"]].with_name("counts")])
    (card_tx,) = compiled(tmp_path).views
    assert (card_tx.name, card_tx.aggregated is not None) == ("card_tx", True)


def test_beside_views_that_are_materialized(tmp_path: Path) -> None:
    shops = view("shops", [SHOP], {"size": types.Int32}, source=source(tmp_path))
    made = stream_view(tmp_path)
    applied(tmp_path, made, SHOP, shops, service=[made, shops])
    plan = compiled(tmp_path, request=[*REQUEST, RequestField("shop_name", "string")])
    assert {view.name: view.aggregated is not None for view in plan.views} == {"card_tx": True, "shops": False}


def test_a_join_key_is_filled_by_a_request_field_as_of_any_view(repo: Path) -> None:
    with pytest.raises(FeaturesRefused, match="The join key card_id of feature view card_tx is not a request field"):
        compiled(repo, request=REQUEST[1:])


def test_a_composite_key(tmp_path: Path) -> None:
    applied(tmp_path, stream_view(tmp_path, entities=(CARD, USER)), USER)
    plan = compiled(tmp_path, request=[*REQUEST, RequestField("user_id", "int64")])
    assert [key.name for key in plan.entities[0].join_keys] == ["card_id", "user_id"]
    assert plan.views[0].aggregated == SPEC
