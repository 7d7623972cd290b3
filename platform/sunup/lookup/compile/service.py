"""A Feast feature service as a read plan. Importing Feast takes four to six seconds: call this from a warm process."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any

from feast import FeatureService, FeatureStore, FeatureView
from feast.errors import FeastObjectNotFoundException

from sunup.errors import FeaturesRefused
from sunup.lookup.compile.address import features_url, remedy
from sunup.lookup.compile.defaults import checked_default
from sunup.lookup.plan import (
    ENTITYLESS_KEY,
    KEY_TYPES,
    KEY_VERSION,
    VALUE_TYPES,
    VERSION,
    Entity,
    Feature,
    JoinKey,
    ReadPlan,
    View,
    entity_columns,
)
from sunup.types import Field

# The request dtypes that can fill a join key of each value type without changing its value.
_FILLS = {
    "BYTES": ("bytes",),
    "STRING": ("string",),
    "INT32": ("int32",),
    "INT64": ("int64", "int32"),
    "UNIX_TIMESTAMP": ("int64", "int32"),
}


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One projection of the service: the view as stored, and the name callers know it by."""

    name: str
    stored: str
    view: Any
    projection: Any


def compile_plan(
    repo_dir: Path,
    service: str,
    *,
    request: Sequence[Field],
    defaults: Mapping[str, Any],
    max_age: Mapping[str, float],
    deadline_ms: float,
    on_missing: str,
    cache: Mapping[str, float] = MappingProxyType({}),
    full_names: bool = False,
) -> tuple[ReadPlan, str]:
    """The read plan of feature service `service` in the Feast repository `repo_dir`, and its features URL.

    `request`: the function's request fields, which must hold every join key. `defaults`: column -> value; `max_age`:
    view -> seconds; `cache`: view -> seconds for which a value may be used again. Columns are named as
    `get_online_features` names them: by feature, or `view__feature` for all when
    two views of the service have a feature of the same name or `full_names` asks for it.
    Raises FeaturesRefused, one paragraph that says what to change.
    """
    store = _opened(repo_dir)
    _check_serialization(store)
    found = _service(store, service)
    wanted = [_view(store, service, projection) for projection in found.feature_view_projections]
    names = Counter(feature.name for each in wanted for feature in each.projection.features)
    full_names = full_names or any(count > 1 for count in names.values())
    for table, given in {"max_age": max_age, "cache": cache}.items():
        _check_names(table, given, [each.name for each in wanted], "a view of the service")
    grouped: dict[tuple[JoinKey, ...], list[View]] = {}
    for each in wanted:
        key = _join_keys(each, request)
        grouped.setdefault(key, []).append(
            _compiled(each, full_names, defaults, max_age.get(each.name), cache.get(each.name))
        )
    entities = tuple(Entity(keys, tuple(views)) for keys, views in grouped.items())
    columns = entity_columns(entities)
    _check_names("defaults", defaults, [column.name for column in columns], "a feature of the service")
    _check_clash(service, columns, request)
    if on_missing not in ("default", "reject"):
        raise FeaturesRefused(f'on_missing is "default" or "reject", not "{on_missing}".')
    plan = ReadPlan(
        version=VERSION,
        project=store.project,
        key_version=KEY_VERSION,
        deadline_ms=float(deadline_ms),
        on_missing="reject" if on_missing == "reject" else "default",
        entities=entities,
        columns=columns,
    )
    return plan, features_url(store.config)


def store_url(repo_dir: Path) -> str:
    """The features URL of the Feast repository `repo_dir`, for a bundle that was made elsewhere.

    Raises FeaturesRefused as `compile_plan` does for the repository and its store.
    """
    return features_url(_opened(repo_dir).config)


def _opened(repo_dir: Path) -> FeatureStore:
    if not (repo_dir / "feature_store.yaml").is_file():
        raise FeaturesRefused(
            f"There is no Feast repository in {repo_dir}: it has no feature_store.yaml. Create one with `feast init`, "
            "or remove [features] from function.toml."
        )
    try:
        return FeatureStore(repo_path=str(repo_dir))
    except Exception as error:  # Feast raises what its parsers raise; the reason is theirs, the advice ours
        raise FeaturesRefused(
            f"The Feast repository in {repo_dir} cannot be opened: {error}. {remedy(error)}"
        ) from error


def _check_serialization(store: FeatureStore) -> None:
    version = store.config.entity_key_serialization_version
    if version != KEY_VERSION:
        raise FeaturesRefused(
            f"The feature repository writes entity keys in serialization version {version}, and workers read version "
            f"{KEY_VERSION}. Set entity_key_serialization_version: {KEY_VERSION} in feature_store.yaml and materialize "
            "again."
        )


def _service(store: FeatureStore, name: str) -> FeatureService:
    try:
        return store.get_feature_service(name)
    except FeastObjectNotFoundException as error:
        known = [service.name for service in store.list_feature_services()]
        raise FeaturesRefused(
            f"There is no feature service {name} in the feature repository.{_closest(name, known)} If it is defined "
            "there, run `feast apply`; otherwise correct [features] service in function.toml."
        ) from error
    except OSError as error:
        raise FeaturesRefused(
            f"The Feast registry cannot be read: {error}. If the repository is new, run `feast apply` in it."
        ) from error


def _view(store: FeatureStore, service: str, projection: Any) -> _Wanted:
    if projection.version_tag is not None:
        view = store.registry.get_feature_view_by_version(projection.name, store.project, projection.version_tag)
    else:
        view = store.registry.get_any_feature_view(projection.name, store.project)
    name = projection.name_to_use()
    reason = ""
    if not isinstance(view, FeatureView):
        reason = f"{name} is an {type(view).__name__}, computed by Feast when it is read"
    elif not view.online:
        reason = f"{name} has online=False, so it is not in the online store"
    elif not getattr(view, "enabled", True):
        reason = f"{name} is disabled"
    elif any(feature not in view.features for feature in projection.features):
        reason = f"{name} has changed since the service was applied"
    if reason:
        raise FeaturesRefused(
            f"The feature service {service} cannot be served by a worker: {reason}. Take it out of the service, or "
            "make it a feature view that is materialized, and run `feast apply`."
        )
    # As Feast's writers name it. (Its reader through a feature service forgets the number and finds nothing.)
    number = projection.version_tag if projection.version_tag is not None else view.current_version_number
    versioned = store.config.registry.enable_online_feature_view_versioning and number
    return _Wanted(name, f"{view.name}_v{number}" if versioned else view.name, view, projection)


def _join_keys(wanted: _Wanted, request: Sequence[Field]) -> tuple[JoinKey, ...]:
    fields = {field.name: field.dtype for field in request}
    if [column.name for column in wanted.view.entity_columns] in ([], [ENTITYLESS_KEY]):
        return (JoinKey(ENTITYLESS_KEY, "", "STRING"),)
    keys = []
    for column in sorted(wanted.view.entity_columns, key=lambda column: column.name):
        kind = column.dtype.to_value_type().name
        name = wanted.projection.join_key_map.get(column.name, column.name)
        if kind not in KEY_TYPES:
            reason = f"is {kind}, which is no entity key"
        elif name not in fields:
            reason = f"is not a request field.{_closest(name, fields)} Add {name} to [request] in function.toml"
        elif fields[name] not in _FILLS[kind]:
            reason = (
                f"is {kind} in Feast and {fields[name]} in the request. "
                f'Write {name} = "{_FILLS[kind][0]}" under [request] in function.toml'
            )
        else:
            keys.append(JoinKey(column.name, name, kind))
            continue
        raise FeaturesRefused(f"The join key {name} of feature view {wanted.name} {reason}.")
    return tuple(keys)


def _compiled(
    wanted: _Wanted, full_names: bool, defaults: Mapping[str, Any], max_age: float | None, cache: float | None
) -> View:
    features = []
    for field in wanted.projection.features:
        kind = field.dtype.to_value_type().name
        if kind not in VALUE_TYPES:
            raise FeaturesRefused(
                f"Feature {field.name} of view {wanted.name} is {kind}, which workers do not read. They read "
                f"{', '.join(VALUE_TYPES)}. Take it out of the feature service."
            )
        column = f"{wanted.name}__{field.name}" if full_names else field.name
        default = checked_default(column, VALUE_TYPES[kind][1], defaults[column]) if column in defaults else None
        features.append(Feature(field.name, column, kind, default))
    # A ttl of zero means without end, in Feast and here.
    ttl = wanted.view.ttl.total_seconds() if wanted.view.ttl else None
    age = float(max_age) if max_age is not None else None
    view = View(wanted.name, wanted.stored, ttl or None, age, tuple(features), cache)
    if cache is not None and cache > view.age_s_max:
        raise FeaturesRefused(
            f"[features] cache keeps {wanted.name} for {cache:g} s; its values are stale after {view.age_s_max:g} s, "
            "its ttl or max_age. Write a shorter time in function.toml."
        )
    return view


def _check_names(table: str, given: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    for name in given:
        if name not in known:
            raise FeaturesRefused(
                f"[features] {table} names {name}, which is not {what}.{_closest(name, known)} Correct function.toml."
            )


def _check_clash(service: str, columns: Sequence[Field], request: Sequence[Field]) -> None:
    clash = sorted({column.name for column in columns} & {field.name for field in request})
    if clash:
        raise FeaturesRefused(
            f"{', '.join(clash)} is both a request field and a feature of {service}. Rename the request field in "
            "function.toml, or take the feature out of the service."
        )


def _closest(name: str, known: Sequence[str] | Mapping[str, str]) -> str:
    near = get_close_matches(name, known, n=3, cutoff=0.5) or sorted(known)[:5]
    return f" There is {', '.join(near)}." if near else " There is none at all."
