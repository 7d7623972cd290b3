"""Where the parts meet: name -> registry -> declaration -> read plan -> bundle, by plain calls. Nothing else composes.

Runs in the resident process (resident.py). Importing this file is cheap; MLflow and Feast come when first needed.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace

from sunup.bundle.declare.file import read as read_spec
from sunup.bundle.declare.spec import Spec
from sunup.bundle.declare.write import derive as derive_spec
from sunup.bundle.declare.write import write
from sunup.bundle.handler.source import HANDLER, Source, read_handler
from sunup.bundle.manifest import FEATURES, StreamSpec
from sunup.bundle.pack import SourceModel, pack
from sunup.bundle.packager import Packager
from sunup.bundle.store import Store, read_manifest
from sunup.lookup.compile.on_demand.trial import try_on_demand
from sunup.lookup.plan import dump, load
from sunup.registry.signature import Signature
from sunup.registry.signature import read as read_signature
from sunup.registry.source import Reference, Resolved, parse
from sunup.registry.source import Source as Registry
from sunup.registry.sqlite import open_sqlite
from sunup.served.schema import Heading
from sunup.served.schema import check as check_heading
from sunup.settings import Project
from sunup.types import Field

if TYPE_CHECKING:
    from sunup.lookup.compile.streamed import Scored

OnStage = Callable[[str, str], None]
NEXT = {"convert": "prove", "prove": "freeze"}


def build(
    project: Project, *, name: str, packager: Packager, on_stage: OnStage, accept_difference: float = 0.0
) -> dict[str, Any]:
    """Make the bundle of a named model and put it into the project's store. `accept_difference`: see pack.

    Returns function, digest, model ("fraud/3"), alias (that was named, or None), settings (what a worker of it gets at
    birth), unchanged and note.
    Raises the CommandError of whichever part refused.
    """
    on_stage("resolve", name)
    source = open_source(project)
    resolved, spec = resolve(project, source, name)
    with tempfile.TemporaryDirectory(prefix="sunup-") as scratch:
        on_stage("fetch", f"{resolved.name}/{resolved.version}")
        folder = source.fetch(resolved, Path(scratch))
        signature = read_signature(folder)
        model = _model(resolved, folder, signature)
        retrieval = _retrieval(source, spec, Path(scratch) / "retrieval", on_stage)
        spec = spec or derive_spec(resolved.name, model.columns)
        handler = handler_of(project, name, resolved.name)
        preprocesses = handler is not None and "preprocess" in handler.hooks
        joined = _features(project, spec, model.columns, on_stage, made_first=preprocesses)
        made: list[str] = []

        def on_done(stage: str, _: float) -> None:
            made.append(stage)
            if stage in NEXT:
                on_stage(NEXT[stage], "")

        on_stage("convert", "")
        digest = pack(
            Store(project.bundles),
            spec=joined.spec,
            model=model,
            packager=packager,
            accept_difference=accept_difference,
            handler=handler,
            retrieval=retrieval,
            on_stage=on_done,
            **joined.given,
        )
    return {
        "function": spec.name,
        "digest": _checked(project.bundles / digest),
        "model": f"{resolved.name}/{resolved.version}",
        "alias": parse(name).alias,
        "settings": joined.settings,
        "unchanged": not made,
        "note": "; ".join(note for note in (resolved.note, joined.note) if note),
    }


def derive(project: Project, *, name: str, packager: Packager, on_stage: OnStage) -> dict[str, Any]:  # noqa: ARG001
    """The text of a function.toml for a named model, from its signature alone: function and text."""
    on_stage("resolve", name)
    source = open_source(project)
    resolved = source.resolve(parse(name))
    with tempfile.TemporaryDirectory(prefix="sunup-") as scratch:
        on_stage("fetch", f"{resolved.name}/{resolved.version}")
        spec = derive_spec(resolved.name, read_signature(source.fetch(resolved, Path(scratch))).fields())
    return {"function": spec.name, "text": write(spec), "note": resolved.note}


def settings(project: Project, *, packager: Packager, on_stage: OnStage) -> dict[str, str]:  # noqa: ARG001
    """What a worker that looks features up gets at birth, for a bundle made elsewhere."""
    on_stage("features", "")
    from sunup.lookup.compile.service import store_url  # imports Feast: 4 to 6 s

    return {"features_url": store_url(project.features)}


def features(project: Project, *, digest: str, packager: Packager, on_stage: OnStage) -> dict[str, Any]:  # noqa: ARG001
    """For a bundle made elsewhere, now in the store: settings as above, and a note when features changed since."""
    on_stage("features", "")
    from sunup.lookup.compile.service import changed_since, store_url  # imports Feast: 4 to 6 s

    folder = Store(project.bundles).open(digest)
    plan = load((folder / FEATURES).read_bytes())
    manifest = read_manifest(folder)
    item = manifest.rank.item if manifest.rank is not None else ""
    scored = _scored(manifest.stream, item)
    takes = None if manifest.handler is not None else [name for tensor in manifest.inputs for name in tensor.columns]
    note = changed_since(project.features, plan, manifest.rows, scored, takes) if plan.service else ""
    return {"settings": {"features_url": store_url(project.features)}, "note": note}


def version(project: Project, *, model: str, alias: str, packager: Packager, on_stage: OnStage) -> dict[str, str]:  # noqa: ARG001
    """The version an alias of a registered model names, asked through MLflow's client: a registry of any kind."""
    return {"version": open_source(project).resolve(Reference(f"{model}@{alias}", model, alias=alias)).version}


def keep(project: Project, *, packager: Packager, on_stage: OnStage) -> dict[str, str]:  # noqa: ARG001
    """Stay warm: whoever asks for this will soon ask for more."""
    packager.keep()
    return {}


def warm(project: Project) -> None:
    """Import now what a build will want: Feast when there is a feature repository, MLflow when it holds the models."""
    open_source(project)
    if project.features.is_dir():
        import sunup.lookup.compile.service  # noqa: F401 - imports Feast: 4 to 6 s, before anybody waits for it


def open_source(project: Project) -> Registry:
    """The project's registry."""
    uri = project.tracking_uri

    def through_mlflow() -> Registry:
        from sunup.registry.mlflow import (
            MlflowSource,
        )  # imports MLflow: 1 to 4 s that the default registry does not need

        return MlflowSource(uri)

    return open_sqlite(uri, through_mlflow) or through_mlflow()


def resolve(project: Project, source: Registry, name: str) -> tuple[Resolved, Spec | None]:
    """The version a name means and the declaration of its function, if functions/ holds one.

    A function's own name stands for its model: `churn@champion` is that alias of whatever model functions/churn names.
    """
    reference = parse(name)
    spec = declared(project, reference.name)
    if spec is not None and spec.model != reference.name:
        reference = Reference(reference.text, spec.model, reference.version, reference.alias)
    resolved = source.resolve(reference)
    if spec is None or spec.model != resolved.name:  # a model registered under just the name that was typed
        spec = declared(project, resolved.name)
    return resolved, spec if spec is not None and spec.model == resolved.name else None


def declared(project: Project, function: str) -> Spec | None:
    """What functions/<function>/function.toml says, or None when there is no such file."""
    path = project.functions / function / "function.toml"
    return read_spec(path) if path.is_file() else None


def handler_of(project: Project, *names: str) -> Source | None:
    """The handler.py of the function that was typed, or of the one of the model's name."""
    for name in (parse(names[0]).name, *names[1:]):
        folder = project.functions / name
        if (folder / "function.toml").is_file() or (folder / HANDLER).is_file():
            return read_handler(folder)
    return None


class _Joined(NamedTuple):
    """`spec` without defaults for what this version of the model is not given; what `pack` is told of the features,
    what a worker gets at birth, and what a person is told."""

    spec: Spec
    given: dict[str, Any] = {}  # noqa: RUF012 - never written to
    settings: dict[str, str] = {}  # noqa: RUF012 - never written to
    note: str = ""


def _features(
    project: Project, spec: Spec, columns: tuple[Field, ...], on_stage: OnStage, *, made_first: bool
) -> _Joined:
    """The features joined into calls of a function. `made_first`: a handler makes the model's columns of them."""
    wanted = spec.features
    if wanted is None:
        return _Joined(spec)
    on_stage("features", wanted.service if "feast" in sys.modules else f"{wanted.service}; importing Feast first")
    # Imports Feast: 4 to 6 s, where there are features.
    from sunup.lookup.compile.service import check_columns, compile_service

    plan, url, code, left_out, beside, note = compile_service(
        project.features,
        wanted.service,
        request=spec.rows or columns,
        defaults=wanted.defaults,
        max_age=wanted.max_age_s,
        cache=wanted.cache_s,
        deadline_ms=wanted.deadline_ms,
        on_missing=wanted.on_missing,
        scored=_scored(spec.stream, spec.items[1] if spec.rank is not None else ""),
        takes=None if made_first else [column.name for column in columns],
    )
    if not made_first:
        check_columns(plan, spec.model, columns)
    aggregates = [f"{plan.project}/{view.stored}" for view in plan.views if view.aggregated is not None]
    given: dict[str, Any] = {"features_json": dump(plan), "features_code": code, "feature_columns": plan.columns}
    given |= {"aggregates": sorted(aggregates), "beside": beside, "try_features": try_on_demand}
    defaults = {name: value for name, value in wanted.defaults.items() if name not in left_out}
    spec = replace(spec, features=replace(wanted, defaults=defaults))
    return _Joined(spec, given, {"features_url": url}, note)


def _scored(stream: StreamSpec | None, item: str) -> "Scored | None":
    """What the compiler is told of [stream]. `item`: see there."""
    # Imports Feast: 4 to 6 s, where there are features.
    from sunup.lookup.compile.streamed import Scored

    return None if stream is None else Scored(stream.input, stream.guarantee, stream.content, stream.aggregate, item)


def _checked(bundle: Path) -> str:
    """A bundle's digest. Refuses a log in which two columns would have one name, before an engine has to."""
    manifest = read_manifest(bundle)
    if manifest.log is not None:
        plan = load((bundle / FEATURES).read_bytes())
        inputs, views = (*manifest.rows, *plan.columns), tuple(view.name for view in plan.views)
        outputs = tuple(field.field for field in manifest.response)
        check_heading(Heading(manifest.function, 0, manifest.model.version, inputs, views, outputs))
    return bundle.name


def _retrieval(source: Registry, spec: Spec | None, scratch: Path, on_stage: OnStage) -> SourceModel | None:
    """The second model of a ranking function that retrieves, fetched."""
    if spec is None or spec.rank is None or not spec.rank.retrieve:
        return None
    resolved = source.resolve(parse(spec.rank.retrieve))
    on_stage("fetch", f"{resolved.name}/{resolved.version}")
    scratch.mkdir()
    folder = source.fetch(resolved, scratch)
    return _model(resolved, folder, read_signature(folder))


def _model(resolved: Resolved, folder: Path, signature: Signature) -> SourceModel:
    return SourceModel(
        name=resolved.name,
        version=resolved.version,
        run_id=resolved.run_id,
        flavor=signature.flavor,
        folder=folder,
        columns=signature.fields(),
        requirements=signature.requirements,
    )
