"""A Feast feature service as a read plan. Importing Feast takes four to six seconds: call this from a warm process."""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from feast import FeatureService, FeatureStore
from feast.errors import FeastObjectNotFoundException

from sunup.errors import FeaturesRefused
from sunup.lookup.compile.address import features_url, remedy
from sunup.lookup.compile.names import closest
from sunup.lookup.compile.on_demand.demand import Demanded
from sunup.lookup.compile.on_demand.source import render
from sunup.lookup.compile.streamed import Scored, other_topics
from sunup.lookup.compile.views import Readings, Wanted, wanted_view
from sunup.lookup.plan import KEY_VERSION, VERSION, OnDemand, ReadPlan, digest, plan_columns
from sunup.types import Field


class Compiled(NamedTuple):
    """A read plan, the features URL of its store, and the text of features.py ("" without on-demand views).

    `left_out`: columns of stream feature views of the service that are not in the plan. `beside`: what a record of the
    function's topic may hold beside the request: the fields of events that stream feature views of the service need.
    `note`: what may surprise whoever deploys it, or "".
    """

    plan: ReadPlan
    url: str
    code: str
    left_out: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    note: str = ""


def compile_service(
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
    scored: Scored | None = None,
    takes: Collection[str] | None = None,
) -> Compiled:
    """The read plan of feature service `service` in the Feast repository `repo_dir`.

    `request`: the function's request fields, which must hold every join key and what on-demand views ask of a request.
    `defaults`: column -> value; `max_age`: view -> seconds; `cache`: view -> seconds for which a value may be used
    again. Columns are named as `get_online_features` does: by feature, or `view__feature` for all when two views of the
    service have a feature of the same name or `full_names` asks for it. `scored`: the topic the function scores, whose
    stream feature views it aggregates; others are read as any view. `takes`: the model's columns; None: all there are.
    Raises FeaturesRefused, one paragraph that says what to change.
    """
    store = _checked(_opened(repo_dir))
    named = [wanted_view(store, service, each) for each in _service(store, service).feature_view_projections]
    wanted, left_out = _parted(named, takes, scored)
    demanded = [Demanded(store, service, each) for each in wanted if each.computed]
    full = full_names or _clashing(wanted)
    defaults = {name: value for name, value in defaults.items() if name not in left_out}
    _check_views({"max_age": max_age, "cache": cache}, named, demanded)
    _check_aggregate(scored, wanted, demanded)
    readings = Readings(request, defaults, max_age, cache, full=full, views=wanted, scored=scored)
    on_demand, code = _on_demand(demanded, readings, request, defaults, full=full)
    entities, unseen = readings.entities, tuple(readings.unseen)
    plan = ReadPlan(
        version=VERSION,
        project=store.project,
        key_version=KEY_VERSION,
        deadline_ms=float(deadline_ms),
        on_missing="reject" if on_missing == "reject" else "default",
        entities=entities,
        columns=plan_columns(entities, on_demand, unseen),
        on_demand=on_demand,
        unseen=unseen,
        code=hashlib.sha256(code.encode()).hexdigest() if code else "",
        service=service,
    )
    _check_plan(plan, request, defaults, on_missing)
    beside, note = _beside(named, request, scored), other_topics(scored, {each.name: each.spec for each in wanted})
    return Compiled(plan, features_url(store.config), code, left_out, beside, note)


def _check_plan(plan: ReadPlan, request: Sequence[Field], defaults: Mapping[str, Any], on_missing: str) -> None:
    _check_names("defaults", defaults, [column.name for column in plan.columns], "a feature of the service")
    _check_clash(plan.service, plan.columns, request)
    if on_missing not in ("default", "reject"):
        raise FeaturesRefused(f'on_missing is "default" or "reject", not "{on_missing}".')


def changed_since(
    repo_dir: Path,
    plan: ReadPlan,
    request: Sequence[Field],
    scored: Scored | None = None,
    takes: Collection[str] | None = None,
) -> str:
    """Whether the repository would give another plan today than `plan`, and so another bundle: a line that says so, or
    "". `request`, `scored`, `takes`: of the function the plan is of."""
    stored = [feature for view in plan.views for feature in view.features if feature.column not in plan.unseen]
    made = stored + [feature for view in plan.on_demand for feature in view.features]
    try:
        again = compile_service(
            repo_dir,
            plan.service,
            request=request,
            defaults={each.column: each.default for each in made if each.default is not None},
            max_age={view.name: view.max_age_s for view in plan.views if view.max_age_s is not None},
            cache={view.name: view.cache_s for view in plan.views if view.cache_s is not None},
            deadline_ms=plan.deadline_ms,
            on_missing=plan.on_missing,
            full_names=any(each.column != each.name for each in made),
            scored=scored,
            takes=takes,
        )
    except FeaturesRefused as refused:
        return f"the features have changed since this bundle was made, and would be refused now: {refused.message}"
    if digest(again.plan) == digest(plan):
        return ""
    return "the features have changed since this bundle was made; make it again to serve them as they are now"


def check_columns(plan: ReadPlan, model: str, inputs: Sequence[Field]) -> None:
    """Raises FeaturesRefused where a column of the plan cannot stand for the input of its name of `model`: text for a
    number, or a list for one value."""
    takes = {each.name: each for each in inputs}
    given = [(view.name, feature) for view in plan.views for feature in view.features]
    given += [(view.name, feature) for view in plan.on_demand for feature in view.features]
    for view, feature in given:
        wanted = takes.get(feature.column)
        if wanted is not None and _kind(wanted.dtype) != _kind(feature.dtype):
            raise FeaturesRefused(
                f"The feature service {plan.service} gives {feature.column} of feature view {view} as {feature.dtype}, "
                f"and the model {model} takes it as {wanted.dtype}. Change the field of the view, or train the model "
                "with it as it is."
            )


def _kind(dtype: str) -> tuple[bool, bool]:
    return dtype.removesuffix("[]") in ("string", "bytes"), dtype.endswith("[]")


def store_url(repo_dir: Path) -> str:
    """The features URL of the Feast repository `repo_dir`, for a bundle that was made elsewhere.

    Raises FeaturesRefused as `compile_service` does for the repository and its store.
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


def _checked(store: FeatureStore) -> FeatureStore:
    version = store.config.entity_key_serialization_version
    if version != KEY_VERSION:
        raise FeaturesRefused(
            f"The feature repository writes entity keys in serialization version {version}, and workers read version "
            f"{KEY_VERSION}. Set entity_key_serialization_version: {KEY_VERSION} in feature_store.yaml and materialize "
            "again."
        )
    return store


def _service(store: FeatureStore, name: str) -> FeatureService:
    try:
        return store.get_feature_service(name)
    except FeastObjectNotFoundException as error:
        known = [service.name for service in store.list_feature_services()]
        raise FeaturesRefused(
            f"There is no feature service {name} in the feature repository.{closest(name, known)} If it is defined "
            "there, run `feast apply`; otherwise correct [features] service in function.toml."
        ) from error
    except OSError as error:
        raise FeaturesRefused(
            f"The Feast registry cannot be read: {error}. If the repository is new, run `feast apply` in it."
        ) from error


def _clashing(wanted: Sequence[Wanted]) -> bool:
    """Whether two views of the service have a feature of the same name."""
    names = Counter(feature.name for each in wanted for feature in each.features)
    return any(count > 1 for count in names.values())


def _parted(
    named: Sequence[Wanted], takes: Collection[str] | None, scored: Scored | None
) -> tuple[list[Wanted], tuple[str, ...]]:
    """The views of the service that a plan is of, and the columns, by either name they may have, of those it is not of.

    A stream feature view that gives nothing the model takes is left out, unless [stream] aggregate names it: versions
    of a model from before the view go on as they were.
    """
    kept, left_out = [], []
    for each in named:
        columns = [name for feature in each.features for name in (feature.name, f"{each.name}__{feature.name}")]
        asked = scored is not None and each.name in (scored.aggregate or ())
        if takes is None or each.spec is None or asked or any(name in takes for name in columns):
            kept.append(each)
        else:
            left_out += columns
    return kept, tuple(left_out)


def _beside(named: Sequence[Wanted], request: Sequence[Field], scored: Scored | None) -> tuple[str, ...]:
    topic = scored.topic if scored is not None else None
    specs = [each.spec for each in named if each.spec is not None and each.spec.topic == topic]
    names = {name for spec in specs for name in (spec.timestamp, spec.event_id, *spec.columns)}
    return tuple(sorted(names - {field.name for field in request} - {""}))


def _on_demand(
    demanded: Sequence[Demanded],
    readings: Readings,
    request: Sequence[Field],
    defaults: Mapping[str, Any],
    *,
    full: bool,
) -> tuple[tuple[OnDemand, ...], str]:
    """As the plan has them, and the text of features.py."""
    inputs = [each.inputs(readings, request) for each in demanded]  # all that is read is known after this
    keys = {key.field: key.value_type for entity in readings.entities for key in entity.join_keys if key.field}
    planned = tuple(
        each.planned(place, inputs[place], keys, each.features(defaults, full=full))
        for place, each in enumerate(demanded)
    )
    return planned, render([each.code for each in demanded]) if demanded else ""


def _check_views(
    tables: Mapping[str, Mapping[str, float]], wanted: Sequence[Wanted], demanded: Sequence[Demanded]
) -> None:
    known = [each.name for each in wanted if not each.computed]
    known += [source.name for each in demanded for source in each.sources]
    for table, given in tables.items():
        _check_names(table, given, known, "a view of the service")


def _check_aggregate(scored: Scored | None, wanted: Sequence[Wanted], demanded: Sequence[Demanded]) -> None:
    read = [*wanted, *(source for each in demanded for source in each.sources)]
    known = [each.name for each in read if each.spec is not None]
    for name in (scored.aggregate or ()) if scored is not None else ():
        if name not in known:
            raise FeaturesRefused(
                f"[stream] aggregate names {name}, which is no stream feature view of the service."
                f"{closest(name, known)} Correct function.toml."
            )


def _check_names(table: str, given: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    for name in given:
        if name not in known:
            raise FeaturesRefused(
                f"[features] {table} names {name}, which is not {what}.{closest(name, known)} Correct function.toml."
            )


def _check_clash(service: str, columns: Sequence[Field], request: Sequence[Field]) -> None:
    clash = sorted({column.name for column in columns} & {field.name for field in request})
    if clash:
        raise FeaturesRefused(
            f"{', '.join(clash)} is both a request field and a feature of {service}. Rename the request field in "
            "function.toml, or take the feature out of the service."
        )
