"""The stored views of a plan: which view a projection of a service means, its key, and what is read of it, once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from feast import FeatureStore, FeatureView
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.stream_feature_view import StreamFeatureView

from sunup.errors import FeaturesRefused
from sunup.lookup.compile.defaults import checked_default
from sunup.lookup.compile.names import closest
from sunup.lookup.compile.streamed import Scored, age_s_min, aggregated_of, aggregates
from sunup.lookup.plan import ENTITYLESS_KEY, KEY_TYPES, VALUE_TYPES, Entity, Feature, JoinKey, View
from sunup.types import Aggregated, Field

# The request dtypes that can stand for a Feast type without changing a value.
FILLS: Final = {
    "BYTES": ("bytes",),
    "STRING": ("string",),
    "INT32": ("int32",),
    "INT64": ("int64", "int32"),
    "UNIX_TIMESTAMP": ("int64", "int32"),
    "DOUBLE": ("float64", "float32"),
    "FLOAT": ("float32",),
    "BOOL": ("bool",),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A projection of the service, or of a source of an on-demand view: the view as stored, and the name callers know
    it by. `computed`: an on-demand view that is worked out when it is read. `spec`: how a stream feature view is made
    of events, by this function or another."""

    name: str
    stored: str
    view: Any
    projection: Any
    computed: bool = False
    spec: Aggregated | None = None

    @property
    def features(self) -> tuple[Any, ...]:
        """What is wanted of it. (Of an on-demand view that is stored, Feast counts the join keys too.)"""
        keys = {column.name for column in self.view.entity_columns}
        return tuple(each for each in self.projection.features if each.name not in keys)


def wanted_view(store: FeatureStore, service: str, projection: Any, *, source: bool = False) -> Wanted:
    """The view of a projection. `source`: of an on-demand view. Raises FeaturesRefused for one no worker can serve."""
    if projection.version_tag is not None:
        view = store.registry.get_feature_view_by_version(projection.name, store.project, projection.version_tag)
    else:
        view = store.registry.get_any_feature_view(projection.name, store.project)
    name = projection.name_to_use()
    reason = _unservable(view, name, projection, source=source)
    if reason:
        raise FeaturesRefused(
            f"The feature service {service} cannot be served by a worker: {reason}. Take it out of the service, or "
            "make it a feature view that is materialized, and run `feast apply`."
        )
    # As Feast's writers name it. (Its reader through a feature service forgets the number and finds nothing.)
    number = projection.version_tag if projection.version_tag is not None else view.current_version_number
    versioned = store.config.registry.enable_online_feature_view_versioning and number
    stored = f"{view.name}_v{number}" if versioned else view.name
    computed = isinstance(view, OnDemandFeatureView) and not view.write_to_online_store
    spec = aggregated_of(view) if isinstance(view, StreamFeatureView) else None
    if spec is not None and store.config.registry.enable_online_feature_view_versioning:
        raise FeaturesRefused(
            f"Feast would store the stream feature view {name} under a version, and counts one at every `feast apply`, "
            "changed or not. Leave enable_online_feature_view_versioning out of feature_store.yaml."
        )
    return Wanted(name, stored, view, projection, computed, spec)


def _unservable(view: Any, name: str, projection: Any, *, source: bool) -> str:
    """Why no worker can serve a view; "" when one can."""
    kind = type(view).__name__
    on_demand = isinstance(view, OnDemandFeatureView)
    reason = ""
    if on_demand and source and not view.write_to_online_store:
        reason = f"is a source of another on-demand view and an {kind} itself"
    elif not on_demand and not isinstance(view, FeatureView):
        reason = f"is a {kind}, which is not read from the online store"
    elif not on_demand and not view.online and not isinstance(view, StreamFeatureView):
        reason = "has online=False, so it is not in the online store"
    elif not getattr(view, "enabled", True):
        reason = "is disabled"
    elif any(each not in view.features for each in projection.features if each not in view.entity_columns):
        reason = "has changed since the service was applied"
    return reason and f"{name} {reason}"


def join_keys(wanted: Wanted, request: Sequence[Field]) -> tuple[JoinKey, ...]:
    """The key a view is read with, filled from request fields. Raises FeaturesRefused for one they cannot fill."""
    fields = {each.name: each.dtype for each in request}
    if [column.name for column in wanted.view.entity_columns] in ([], [ENTITYLESS_KEY]):
        return (JoinKey(ENTITYLESS_KEY, "", "STRING"),)
    keys = []
    for column in sorted(wanted.view.entity_columns, key=lambda column: column.name):
        kind = column.dtype.to_value_type().name
        name = wanted.projection.join_key_map.get(column.name, column.name)
        if kind not in KEY_TYPES:
            reason = f"is {kind}, which is no entity key"
        elif name not in fields:
            reason = f"is not a request field.{closest(name, fields)} Add {name} to [request] in function.toml"
        elif fields[name] not in FILLS[kind]:
            reason = (
                f"is {kind} in Feast and {fields[name]} in the request. "
                f'Write {name} = "{FILLS[kind][0]}" under [request] in function.toml'
            )
        else:
            keys.append(JoinKey(column.name, name, kind))
            continue
        raise FeaturesRefused(f"The join key {name} of feature view {wanted.name} {reason}.")
    return tuple(keys)


def value_type(view: str, each: Any) -> str:
    """The Feast value type of a field of a view. Raises FeaturesRefused for one that workers do not know."""
    kind: str = each.dtype.to_value_type().name
    if kind not in VALUE_TYPES:
        raise FeaturesRefused(
            f"Feature {each.name} of view {view} is {kind}, which workers do not read. They read "
            f"{', '.join(VALUE_TYPES)}. Take it out of the feature service."
        )
    return kind


def feature_of(view: str, each: Any, defaults: Mapping[str, Any], *, full: bool) -> Feature:
    """A field of a view as the plan has it. `full`: its column is called `view__feature`."""
    kind = value_type(view, each)
    column = f"{view}__{each.name}" if full else each.name
    default = checked_default(column, VALUE_TYPES[kind][1], defaults[column]) if column in defaults else None
    return Feature(each.name, column, kind, default)


@dataclass(slots=True)
class _Reading:
    """What is read of one stored view with one key."""

    name: str
    stored: str
    ttl: float | None
    max_age: float | None
    cache: float | None
    spec: Aggregated | None  # of a stream feature view
    mine: bool  # this function aggregates it
    features: list[Feature] = field(default_factory=list)


class Readings:
    """What a plan reads, grouped by key: each view once per key, whichever and how many projections want it.

    `views`: those of the service, of which the stored ones are read; what on-demand views need besides is added by
    `source`. `scored`: the topic the function scores, whose stream feature views it aggregates.
    """

    def __init__(
        self,
        request: Sequence[Field],
        defaults: Mapping[str, Any],
        max_age: Mapping[str, float],
        cache: Mapping[str, float],
        *,
        full: bool,
        views: Sequence[Wanted],
        scored: Scored | None = None,
    ) -> None:
        self._request, self._defaults, self._full, self._scored = request, defaults, full, scored
        self._max_age, self._cache = max_age, cache
        self._by_key: dict[tuple[JoinKey, ...], list[_Reading]] = {}
        self.unseen: list[str] = []
        for wanted in views:
            if not wanted.computed:
                self._add(wanted)

    def __repr__(self) -> str:
        return f"Readings({sum(map(len, self._by_key.values()))} views)"

    @property
    def entities(self) -> tuple[Entity, ...]:
        """As the plan has them. Raises FeaturesRefused for what is known only when all of it is."""
        mine = [each for readings in self._by_key.values() for each in readings if each.mine]
        for at, reading in enumerate(mine):
            _check_once(reading, mine[:at])
        return tuple(
            Entity(key, tuple(_view(reading) for reading in readings)) for key, readings in self._by_key.items()
        )

    def _add(self, wanted: Wanted) -> None:
        """Read a projection of the service: its columns are the function's."""
        features = [feature_of(wanted.name, f, self._defaults, full=self._full) for f in wanted.features]
        names = {feature.name for feature in features}
        fresh = self._readings(wanted, names)
        fresh[0].features += features

    def source(self, wanted: Wanted) -> dict[str, str]:
        """Read a source of an on-demand view: the column each of its features has, by name."""
        same = self._readings(wanted, set())
        columns = {feature.name: feature.column for reading in same for feature in reading.features}
        for each in wanted.features:
            if each.name not in columns:
                feature = Feature(each.name, f"{wanted.name}__{each.name}", value_type(wanted.name, each))
                same[0].features.append(feature)
                self.unseen.append(feature.column)
                columns[feature.name] = feature.column
        return columns

    def _readings(self, wanted: Wanted, names: set[str]) -> list[_Reading]:
        """Those of the same view, key and bound on its age that have none of `names`; a new one if there is none."""
        keys = join_keys(wanted, self._request)
        mine = wanted.spec is not None and aggregates(self._scored, wanted.name, wanted.spec)
        if mine and self._scored is not None:
            _check_keys(wanted.name, keys, self._scored.item)
        readings = self._by_key.setdefault(keys, [])
        age, cache = self._max_age.get(wanted.name), self._cache.get(wanted.name)
        same = [
            each
            for each in readings
            if (each.stored, each.max_age, each.cache, each.mine) == (wanted.stored, age, cache, mine)
            and (age is None is cache or each.name == wanted.name)  # a bound is of a name
            and not names & {f.name for f in each.features}
        ]
        if not same:
            ttl = getattr(wanted.view, "ttl", None)
            lives = (ttl.total_seconds() if ttl else 0.0) or None  # zero means without end, in Feast and here
            same = [_Reading(wanted.name, wanted.stored, lives, age, cache, wanted.spec, mine)]
            readings += same
        return same


def _check_keys(view: str, keys: Sequence[JoinKey], item: str) -> None:
    if item and item in [key.field for key in keys]:
        raise FeaturesRefused(
            f"The function aggregates {view}, whose join key is each candidate's {item}: a record is an event of one "
            "entity. Write `aggregate = []` under [stream] in function.toml, or name the views to aggregate there."
        )


def _check_once(reading: _Reading, others: Sequence[_Reading]) -> None:
    """An event counts once: under one name, with one key."""
    for other in others:
        if other.stored == reading.stored:
            raise FeaturesRefused(
                f"The function aggregates {reading.stored} as {other.name} and as {reading.name}, and events count "
                f'once. Write aggregate = ["{other.name}"] under [stream] in function.toml, with each other view it is '
                "to aggregate; the others are read from the online store."
            )


def _view(reading: _Reading) -> View:
    age = float(reading.max_age) if reading.max_age is not None else None
    made = _whole(reading) if reading.mine else None
    view = View(reading.name, reading.stored, reading.ttl, age, tuple(reading.features), reading.cache, made)
    if reading.spec is not None and view.age_s_max < age_s_min(reading.spec):
        raise FeaturesRefused(
            f"[features] max_age of {reading.name} is {age:g} s, and a value that does not change is not written again "
            f"for up to {age_s_min(reading.spec):g} s, its longest window and a tile. Write that, or take it out of "
            "function.toml."
        )
    if reading.cache is not None and reading.cache > view.age_s_max:
        raise FeaturesRefused(
            f"[features] cache keeps {reading.name} for {reading.cache:g} s; its values are stale after "
            f"{view.age_s_max:g} s, its ttl or max_age. Write a shorter time in function.toml."
        )
    return view


def _whole(reading: _Reading) -> Aggregated:
    """How the view is made, its aggregations in the order of its features: whoever aggregates a view writes it whole"""
    assert reading.spec is not None
    made = {each.feature: each for each in reading.spec.aggregations}
    names = [feature.name for feature in reading.features]
    if left := [name for name in made if name not in names]:
        raise FeaturesRefused(
            f"The function aggregates {reading.name}, and the feature service leaves out {', '.join(left)}: whoever "
            "aggregates a view writes all of it. Take the whole view into the service, or write `aggregate = []` under "
            "[stream] in function.toml and let another function do it."
        )
    return msgspec.structs.replace(reading.spec, aggregations=tuple(made[name] for name in names))
