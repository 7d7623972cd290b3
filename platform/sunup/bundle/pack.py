"""From a fetched model and a function's declaration to a bundle in the store: convert, prove, freeze."""

import hashlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from sunup import __version__
from sunup.bundle.declare.fit import fit, response_fields
from sunup.bundle.declare.image import as_taken
from sunup.bundle.declare.ranking import ranked
from sunup.bundle.declare.spec import Spec
from sunup.bundle.environment.conversion import convert
from sunup.bundle.evidence import PARITY
from sunup.bundle.handler.packages import worker_packages
from sunup.bundle.handler.source import Source
from sunup.bundle.handler.trial import add_handler, files_of
from sunup.bundle.job import MODEL, TRAINING, WARMUP, Job, Result
from sunup.bundle.manifest import FEATURES, FEATURES_CODE, FORMAT, Manifest, Model, Retrieval
from sunup.bundle.packager import Packager
from sunup.bundle.parity import ACCEPTED_MAX
from sunup.bundle.retrieval import RETRIEVAL_FILES, add_retrieval
from sunup.bundle.store import MANIFEST, Store, digest_file, verify
from sunup.errors import UsageError
from sunup.settings import TRAINING_SAMPLE
from sunup.types import Field

OnStage = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class SourceModel:
    """A registered model in a local folder. `columns`: its inputs in signature order, as request fields would be."""

    name: str
    version: str
    run_id: str
    flavor: str
    folder: Path
    columns: tuple[Field, ...]
    requirements: tuple[str, ...] = ()

    @property
    def named(self) -> Model:
        """As the manifest names it."""
        return Model(self.name, self.version, self.run_id, self.flavor)


def pack(
    store: Store,
    *,
    spec: Spec,
    model: SourceModel,
    packager: Packager,
    features_json: bytes | None = None,
    features_code: str = "",
    try_features: Callable[[Path], None] = lambda _staged: None,
    feature_columns: Sequence[Field] = (),
    aggregates: Sequence[str] = (),
    beside: Sequence[str] = (),
    example: Mapping[str, Any] | None = None,
    retrieval: SourceModel | None = None,
    rows: Path | None = None,
    accept_difference: float = 0.0,
    handler: Source | None = None,
    on_stage: OnStage = lambda _name, _seconds: None,
) -> str:
    """The digest of the bundle for these inputs, made unless the store has it. Same inputs, same digest.

    `feature_columns`: the columns the read plan in `features_json` gives; `features_code`: the functions of its
    on-demand views, features.py, tried by `try_features` in the folder that holds both; `aggregates`, `beside`: as the
    manifest has them. `example`: values for request fields the model does not take (entity keys). `rows`: a Parquet or
    .npz file of more real rows for the proof. `accept_difference`: a difference beyond the tolerance that is accepted,
    0 for none. `handler`: the function's own code. `retrieval`: the model that names candidates, of a ranking function.
    `on_stage` is told "convert", "prove", "retrieval" and "freeze" with their seconds; nothing when the bundle was
    there already.
    Raises UsageError, ConversionRefused, ParityFailed; the store then holds nothing new.
    """
    _check_accepted(accept_difference, spec)
    spec = fit(spec, model.columns, feature_columns, handler.hooks if handler else ())
    own = _handler_key(handler)
    given = [*feature_columns, *beside]
    key = _key(spec, model, features_json, given, example, rows, accept_difference, own, retrieval)
    if (digest := store.recall(key)) is not None:
        return digest
    with store.stage() as staged:
        result = convert(packager, _job(staged, spec, model, rows, accept_difference), on_stage)
        asked = _add_retrieval(staged, spec, retrieval, packager, on_stage)
        started = time.perf_counter()
        _add_features(staged, features_json, features_code, try_features)
        more: dict[str, Any] = {"aggregates": tuple(aggregates), "beside": tuple(beside), "example": example or {}}
        columns = (*spec.rows, *feature_columns)
        _freeze(staged, spec, model, result, handler=handler, columns=columns, retrieval=asked, **more)
        digest = store.add(staged)
        store.remember(key, digest)
        on_stage("freeze", time.perf_counter() - started)
    return digest


def inspect(folder: Path) -> dict[str, Any]:
    """What a bundle is, every byte checked: its manifest, the digest of its read plan, its parity proof, its files'
    sizes in bytes.

    Raises BundleDamaged, or UsageError for another format.
    """
    manifest = verify(folder)
    names = (MANIFEST, *sorted(manifest.files))
    asked = RETRIEVAL_FILES[PARITY]
    return {
        "digest": digest_file(folder / MANIFEST),
        "plan": manifest.files.get(FEATURES),
        "manifest": msgspec.json.decode((folder / MANIFEST).read_bytes()),
        "parity": msgspec.json.decode((folder / PARITY).read_bytes()),
        **({"retrieval": msgspec.json.decode((folder / asked).read_bytes())} if asked in manifest.files else {}),
        "files": {name: (folder / name).stat().st_size for name in names},
    }


def _add_features(staged: Path, plan: bytes | None, code: str, attempt: Callable[[Path], None]) -> None:
    """The read plan, and the functions it needs: tried, for they are part of it by their digest."""
    if plan is not None:
        (staged / FEATURES).write_bytes(plan)
    if code:
        (staged / FEATURES_CODE).write_text(code, "utf-8")
        attempt(staged)


def _job(staged: Path, spec: Spec, model: SourceModel, rows: Path | None, accept: float) -> Job:
    return Job(
        folder=str(model.folder.resolve()),
        flavor=model.flavor,
        columns=as_taken(spec, model.columns),
        requirements=model.requirements,
        tolerance=spec.tolerance,
        out=str(staged.resolve()),
        rows=str(rows.resolve()) if rows else "",
        accept=accept,
        trusted=spec.trusted,
        training=True,
    )


def _add_retrieval(
    staged: Path, spec: Spec, model: SourceModel | None, packager: Packager, on_stage: OnStage
) -> Retrieval | None:
    if model is None:
        return None
    return add_retrieval(
        staged,
        spec,
        model.named,
        packager,
        folder=model.folder,
        columns=model.columns,
        requirements=model.requirements,
        on_stage=on_stage,
    )


def _freeze(
    staged: Path,
    spec: Spec,
    model: SourceModel,
    result: Result,
    *,
    handler: Source | None,
    columns: tuple[Field, ...],
    aggregates: tuple[str, ...],
    beside: tuple[str, ...],
    example: Mapping[str, Any],
    retrieval: Retrieval | None,
) -> None:
    """Try the handler and put it in, if there is one, then write the manifest over what is staged."""
    response, hooks = response_fields(spec, result.outputs), None
    if handler is not None:
        hooks, response, tried = add_handler(staged, handler, result=result, fields=columns, response=response)
        example = {**tried, **example}
    given = {**result.example, **example}
    manifest = Manifest(
        format=FORMAT,
        sunup=__version__,
        function=spec.name,
        model=model.named,
        request=spec.request,
        inputs=result.inputs,
        outputs=result.outputs,
        response=response,
        tolerance=spec.tolerance,
        scale=spec.scale,
        limits=spec.limits,
        example={
            field.name: given.get(field.name, _some(field, given.get(row.name)))
            for field, row in zip(spec.request, spec.rows, strict=True)
        },
        files={name: digest_file(staged / name) for name in sorted(_names(staged, retrieval))},
        stream=spec.stream,
        accept_difference=result.accepted,
        handler=hooks,
        image=spec.image,
        rank=ranked(spec, response, retrieval),
        cache=spec.cache,
        log=spec.features.log if spec.features else None,
        aggregates=aggregates,
        beside=beside,
        kubernetes=spec.kubernetes,
    )
    (staged / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def _names(staged: Path, retrieval: Retrieval | None) -> list[str]:
    """The files the manifest names."""
    names = [MODEL, WARMUP, PARITY, *files_of(staged)]
    names += [name for name in (FEATURES, FEATURES_CODE, TRAINING) if (staged / name).exists()]
    return names + (list(RETRIEVAL_FILES.values()) if retrieval else [])


def _handler_key(handler: Source | None) -> list[Any] | None:
    """What else a bundle with a handler depends on: Python, and what workers have already."""
    if handler is None:
        return None
    return [msgspec.structs.replace(handler, folder=""), sys.version_info[:2], worker_packages()]


def _check_accepted(accepted: float, spec: Spec) -> None:
    if accepted and not spec.tolerance < accepted <= ACCEPTED_MAX:
        raise UsageError(
            f"--accept-difference {accepted:g} is not between the tolerance of {spec.name}, {spec.tolerance:g}, and "
            f"{ACCEPTED_MAX:g}. Give the number that the refusal names."
        )


def _some(field: Field, element: Any) -> Any:
    """A value of a field the model does not take; `element`: of a list, what the model's example has for one of it."""
    values: dict[str, str | bool | int | float] = {"string": "a", "bytes": "YQ==", "bool": False}
    scalar = field.dtype.removesuffix("[]")
    some = values.get(scalar, 1.0 if scalar.startswith("float") else 1)
    if scalar == field.dtype:
        return some
    return [some if element is None else element]


def _key(spec: Spec, model: SourceModel, features: bytes | None, *more: Any) -> str:
    """What a bundle depends on. MLmodel stands for what is in the model's files: MLflow puts an id of its own there."""
    columns, example, rows, accepted, handler, retrieval = more
    parts = {
        "sunup": [__version__, FORMAT],
        "spec": spec,
        **_model_key(model),
        "retrieval": _model_key(retrieval) if retrieval else None,
        "features": [hashlib.sha256(features).hexdigest() if features is not None else None, list(columns)],
        "example": dict(example or {}),
        "rows": digest_file(rows) if rows else None,
        "accepted": accepted,
        "handler": handler,
    }
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()


def _model_key(model: SourceModel) -> dict[str, Any]:
    # When a registered model is loaded, MLflow notes its name in the folder; that is no part of the model.
    files = sorted(p for p in model.folder.rglob("*") if p.is_file() and p.name != "registered_model_meta")
    return {
        "model": [model.named, model.columns, model.requirements],
        "files": [[path.relative_to(model.folder).as_posix(), path.stat().st_size] for path in files],
        "MLmodel": digest_file(model.folder / "MLmodel"),
        "sample": digest_file(sample) if (sample := model.folder / TRAINING_SAMPLE).is_file() else None,
    }
