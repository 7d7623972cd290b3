"""A Feast stream feature view as a plan has it. Feast declares its aggregations and computes none; whoever scores its
topic does. What is refused here is refused when a function is deployed, so that a stream worker never meets it."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Final, NamedTuple

from feast import KafkaSource, PushSource
from feast.aggregation import Aggregation as FeastAggregation
from feast.feature_view import DUMMY_ENTITY_NAME
from feast.stream_feature_view import StreamFeatureView

from sunup.errors import FeaturesRefused
from sunup.limits import (
    AGGREGATE_ENTITY_BYTES_MAX,
    AGGREGATE_LATE_SECONDS_DEFAULT,
    AGGREGATE_LATE_SECONDS_MAX,
    AGGREGATE_TILES_MAX,
    AGGREGATE_WINDOW_SECONDS_MAX,
    AGGREGATE_WINDOW_SECONDS_MIN,
)
from sunup.lookup.compile.names import closest
from sunup.types import Aggregated, Aggregation

EVENT_ID: Final = "sunup.event_id"
TAGS: Final = (EVENT_ID,)
_HOP: Final = timedelta(minutes=5)  # Feast's own, where a view with tiles names none

_WHOLE: Final = ("INT64", "INT32")
_NUMBERS: Final = ("DOUBLE", "FLOAT", *_WHOLE)
# What a feature may be in Feast, by the function that makes it; and what a tile holds for it of a column.
_KINDS: Final = {"sum": _NUMBERS, "count": _WHOLE, "min": _NUMBERS, "max": _NUMBERS, "mean": ("DOUBLE", "FLOAT")}
_PARTS: Final = {"sum": ("sum",), "count": ("count",), "min": ("min",), "max": ("max",), "mean": ("sum", "count")}
_PART_BYTES: Final = 8


class Scored(NamedTuple):
    """The topic a function scores, as far as its views depend on it: [stream] of its function.toml.

    `aggregate`: the views it is to aggregate, None for all that are made of its topic. `item`: the field that stands
    for one element of a list, of a ranking function.
    """

    topic: str
    guarantee: str = "exactly-once"
    content: str = "auto"
    aggregate: tuple[str, ...] | None = None
    item: str = ""


def aggregated_of(view: StreamFeatureView) -> Aggregated:
    """How a view is made of the events of its topic, with an aggregation for each of its features.

    Raises FeaturesRefused, a sentence that says what to change.
    """
    for problem in _of_source(view):
        _refuse(view, problem)
    source = view.stream_source
    hop = _hop(view)
    found = [_aggregation(view, each, hop) for each in view.aggregations]
    _check_schema(view, [each.feature for each in found])
    late = source.kafka_options.watermark_delay_threshold
    made = Aggregated(
        topic=source.kafka_options.topic,
        timestamp=view.timestamp_field,
        hop_s=hop,
        late_s=AGGREGATE_LATE_SECONDS_DEFAULT if late is None else late.total_seconds(),
        event_id=view.tags.get(EVENT_ID, ""),
        aggregations=tuple(found),
    )
    for problem in _of_spec(view, made):
        _refuse(view, problem)
    return made


def aggregates(scored: Scored | None, name: str, spec: Aggregated) -> bool:
    """Whether the function that scores `scored` aggregates the view called `name`.

    Raises FeaturesRefused where it should and cannot.
    """
    named = scored is not None and scored.aggregate is not None and name in scored.aggregate
    if scored is None or not (named or (scored.aggregate is None and scored.topic == spec.topic)):
        return False
    without = "or take it out of [stream] aggregate" if named else "or write `aggregate = []` under [stream]"
    if scored.topic != spec.topic:
        raise FeaturesRefused(
            f"[stream] aggregate names {name}, which is made of the topic {spec.topic}, and the function scores "
            f"{scored.topic}. Take it out of [stream] aggregate, or correct the topic of its KafkaSource."
        )
    if scored.guarantee != "exactly-once":
        raise FeaturesRefused(
            f"The function aggregates {name}, and tiles and positions move together only exactly once. Write "
            f'guarantee = "exactly-once" under [stream] in function.toml, {without}, which leaves {name} to another '
            "function."
        )
    if scored.content == "image":
        raise FeaturesRefused(
            f"The function aggregates {name}, and records that are pictures hold no event. Write another content "
            f"under [stream] in function.toml, {without}."
        )
    return True


def other_topics(scored: Scored | None, views: Mapping[str, Aggregated | None]) -> str:
    """What to say of views that are made of another topic than the one that is scored: a typing error in one of the
    two looks like a function that only reads them. "": nothing."""
    if scored is None or scored.aggregate is not None:
        return ""
    return "; ".join(
        f"{name} is made of the topic {spec.topic}, and this function scores {scored.topic}: it reads {name} from the "
        "store, where a function that scores that topic writes it"
        for name, spec in views.items()
        if spec is not None and spec.topic != scored.topic
    )


def _refuse(view: StreamFeatureView, problem: str) -> None:
    raise FeaturesRefused(f"The stream feature view {view.name} cannot be aggregated: {problem}")


def _of_source(view: StreamFeatureView) -> Iterator[str]:
    """What is wrong with where events come from, the worst first; each ends with what to change."""
    source = view.stream_source
    if source is None:
        yield "it is made of another view. Give it a KafkaSource with the topic of its events."
    elif isinstance(source, PushSource):
        yield "its PushSource names no topic. Give it a KafkaSource with the topic of its events."
    elif not isinstance(source, KafkaSource):
        yield f"its source is a {type(source).__name__}. Give it a KafkaSource with the topic of its events."
    elif not source.kafka_options.topic:
        yield f"its KafkaSource {source.name} names no topic. Write topic= there."
    elif source.field_mapping:
        yield (
            f"its KafkaSource {source.name} has a field_mapping. Leave it out, and name fields as the events of the "
            "topic do."
        )
    elif source.timestamp_field and source.timestamp_field != view.timestamp_field:
        yield (
            f"its timestamp_field is {view.timestamp_field}, and that of its KafkaSource is {source.timestamp_field}. "
            "Write the same in both."
        )
    if view.udf is not None or view.feature_transformation is not None:
        yield "it has a transformation, which nothing runs. Leave it out, and aggregate fields of the events."
    if not view.aggregations:
        yield "it has no aggregations. Add some, or make it a feature view that is materialized."
    if view.entities == [DUMMY_ENTITY_NAME] or not view.entities:
        yield "it has no entities, and each partition of its topic would have a value of its own. Give it entities."
    unknown = [tag for tag in view.tags if tag.startswith("sunup.") and tag not in TAGS]
    if unknown:
        yield f"its tag {unknown[0]} is unknown.{closest(unknown[0], TAGS)} Correct it, or take it out."
    if EVENT_ID in view.tags and not view.tags[EVENT_ID]:
        yield f"its tag {EVENT_ID} is empty. Name the event field there, or take the tag out."


def _hop(view: StreamFeatureView) -> int:
    """The width of a tile in seconds."""
    if not view.enable_tiling:
        _refuse(view, "it has no tiles. Write enable_tiling=True, and tiling_hop_size=timedelta(...) if not 5 minutes.")
    hop = _seconds(view.tiling_hop_size or _HOP)
    if hop is None or hop < 1:
        _refuse(view, "its tiling_hop_size is not in whole seconds. Write timedelta(seconds=1) or a multiple of it.")
    return hop or 1


def _aggregation(view: StreamFeatureView, given: FeastAggregation, hop: int) -> Aggregation:
    """One of a view's aggregations, by the name of its feature."""
    named = given.name or f"{given.function}_{given.column}"
    if given.function not in _KINDS:
        known = ", ".join(_KINDS)
        _refuse(view, f"the function of {named} is {given.function or 'not named'}. Take one of {known}.")
    if not given.column:
        _refuse(view, f"{named} names no column. Write the event field it is made of.")
    window = _seconds(given.time_window) if given.time_window else None
    lowest, highest = AGGREGATE_WINDOW_SECONDS_MIN, AGGREGATE_WINDOW_SECONDS_MAX
    if window is None or not lowest <= window <= highest:
        has = "no time_window" if given.time_window is None else f"a time_window of {_text(given.time_window)}"
        _refuse(view, f"{named} has {has}. Give it one of {lowest} to {highest} whole seconds.")
    assert window is not None
    if window % hop:
        _refuse(
            view,
            f"the time_window of {named}, {window} s, is no multiple of tiling_hop_size, {hop} s. Change one of them.",
        )
    if window // hop > AGGREGATE_TILES_MAX:
        _refuse(
            view,
            f"the time_window of {named} is {window // hop} tiles of {hop} s, and at most {AGGREGATE_TILES_MAX} are "
            f"kept. Widen tiling_hop_size.",
        )
    # Feast fills it in with the time_window.
    if given.slide_interval not in (None, given.time_window, timedelta(seconds=hop)):
        slide = _text(given.slide_interval)
        _refuse(view, f"{named} is to slide by {slide}, and windows slide by tiling_hop_size, {hop} s. Leave it out.")
    return Aggregation(_feature(view, given, named), given.function, given.column, window)


def _feature(view: StreamFeatureView, given: FeastAggregation, named: str) -> str:
    """The field of the schema that an aggregation fills: as Feast names it with its window, or without."""
    kinds = {each.name: each.dtype.to_value_type().name for each in view.features}
    names = list(dict.fromkeys([given.resolved_name(given.time_window), named]))
    name = next((each for each in names if each in kinds), "")
    if not name:
        _refuse(
            view, f"its schema has no field {' or '.join(names)} for the {given.function} of {given.column}. Add it."
        )
    if kinds[name] not in _KINDS[given.function]:
        fits = " or ".join(_KINDS[given.function])
        _refuse(view, f"{name} is {kinds[name]}, and a {given.function} is {fits}. Change the field of the schema.")
    return name


def _check_schema(view: StreamFeatureView, made: list[str]) -> None:
    twice = [name for at, name in enumerate(made) if name in made[:at]]
    if twice:
        _refuse(view, f"two aggregations make {twice[0]}. Give each a name of its own.")
    keys = {each.name for each in view.entity_columns}
    without = [each.name for each in view.features if each.name not in keys and each.name not in made]
    if without:
        _refuse(view, f"no aggregation makes {', '.join(without)}. Add one, or take it out of the schema.")


def _of_spec(view: StreamFeatureView, spec: Aggregated) -> Iterator[str]:
    """What is wrong with a view as a whole."""
    if not 0 <= spec.late_s <= AGGREGATE_LATE_SECONDS_MAX:
        yield (
            f"its KafkaSource waits {spec.late_s:g} s for late events (watermark_delay_threshold). Give it 0 to "
            f"{AGGREGATE_LATE_SECONDS_MAX:g} s."
        )
    age = view.ttl.total_seconds() if view.ttl else 0.0
    if age and age < age_s_min(spec):
        yield (
            f"its ttl is {age:g} s, and a value that does not change is not written again for up to "
            f"{age_s_min(spec):g} s, its longest window and a tile. Give it that, or none."
        )
    if entity_bytes(spec) > AGGREGATE_ENTITY_BYTES_MAX:
        yield (
            f"each entity would take up to {entity_bytes(spec) / 1024:.0f} KiB, and "
            f"{AGGREGATE_ENTITY_BYTES_MAX / 1024:.0f} KiB is the most. Widen tiling_hop_size."
        )


def age_s_min(spec: Aggregated) -> float:
    """How old a value may become that is right: nothing of an entity changes between its last event and the moment at
    which that leaves the longest window."""
    return float(spec.window_s_max + spec.hop_s)


def entity_bytes(spec: Aggregated) -> int:
    """What the tiles of an entity take that has an event in each of them: 8 bytes for a tile's number, and 8 for each
    number it holds of a column."""
    parts = {(each.column, part) for each in spec.aggregations for part in _PARTS[each.function]}
    tiles = int((spec.window_s_max + spec.late_s) // spec.hop_s) + 1
    return tiles * (1 + len(parts)) * _PART_BYTES


def _seconds(given: timedelta) -> int | None:
    """Whole seconds; None where there is a fraction."""
    return given // timedelta(seconds=1) if not given % timedelta(seconds=1) else None


def _text(given: timedelta | None) -> str:
    return f"{given.total_seconds():g} s" if given is not None else "nothing"
