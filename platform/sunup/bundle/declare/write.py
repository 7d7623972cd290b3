"""A declaration nobody wrote: from the model's signature alone, and as the text of a function.toml."""

import json
from collections.abc import Mapping, Sequence

import msgspec

from sunup.bundle.declare.cache import table as cache_table
from sunup.bundle.declare.image import derived, table
from sunup.bundle.declare.kubernetes.table import table as kubernetes_table
from sunup.bundle.declare.quantity import format_bytes, format_seconds
from sunup.bundle.declare.scale import table as scale_table
from sunup.bundle.declare.spec import NAME, TOLERANCE_DEFAULT, ResponseSpec, Spec
from sunup.bundle.declare.stream.table import table as stream_table
from sunup.bundle.manifest import Limits, Scale
from sunup.errors import UsageError
from sunup.types import Field


def derive(name: str, columns: Sequence[Field], *, model: str | None = None) -> Spec:
    """The Spec of a function without a folder: every model input is a request field, every output is sent.

    Raises UsageError when the model's name cannot be a function's name or its signature names no columns.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be a function's name (letters, digits, - and _ only). Write "
            f"functions/<name>/function.toml with [function] name and model = {json.dumps(name)}."
        )
    if not columns:
        raise UsageError(
            f"The model {name} was registered without input columns in its signature. Log it with "
            "signature=mlflow.models.infer_signature(inputs, outputs), inputs as a DataFrame."
        )
    request, image = derived(columns)
    return Spec(name=name, model=model or name, request=request, image=image)


def write(spec: Spec) -> str:
    """The text of a function.toml that reads back as `spec`; defaults are left out."""
    lines = ["[function]", f"name = {json.dumps(spec.name)}", f"model = {json.dumps(spec.model)}"]
    lines += [f"trusted = {json.dumps(spec.trusted)}"] if spec.trusted else []
    lines += ["", "[request]"]
    lines += [f"{_key(field.name)} = {json.dumps(field.dtype)}" for field in spec.request]
    if spec.image:
        lines += ["", *table(spec.image)]
    if spec.features:
        lines += ["", *_features_table(spec)]
    if spec.rank:
        asked = msgspec.structs.asdict(spec.rank)
        lines += ["", "[rank]", *(f"{key} = {json.dumps(value)}" for key, value in asked.items() if value)]
    if spec.cache:
        lines += ["", *cache_table(spec.cache)]
    if spec.response:
        lines += ["", "[response]", *(_response_line(entry) for entry in spec.response)]
    if spec.tolerance != TOLERANCE_DEFAULT:
        lines += ["", "[parity]", f"tolerance = {spec.tolerance!r}"]
    if spec.scale != Scale():
        lines += ["", *scale_table(spec.scale)]
    if spec.limits != Limits():
        lines += ["", "[limits]", f'body_max = "{format_bytes(spec.limits.body_bytes)}"']
        lines += [f'timeout = "{format_seconds(spec.limits.timeout_s)}"']
    if spec.stream:
        lines += ["", *stream_table(spec.stream)]
    if spec.kubernetes:
        lines += ["", *kubernetes_table(spec.kubernetes)]
    return "\n".join(lines) + "\n"


def _features_table(spec: Spec) -> list[str]:
    assert spec.features is not None
    features = spec.features
    lines = ["[features]", f"service = {json.dumps(features.service)}", f"deadline_ms = {features.deadline_ms:g}"]
    lines.append(f"on_missing = {json.dumps(features.on_missing)}")
    if features.defaults:
        lines.append(f"defaults = {_inline(features.defaults)}")
    if features.max_age_s:
        ages = {view: format_seconds(seconds) for view, seconds in features.max_age_s.items()}
        lines.append(f"max_age = {_inline(ages)}")
    if features.cache_s:
        kept = {view: format_seconds(seconds) for view, seconds in features.cache_s.items()}
        lines.append(f"cache = {_inline(kept)}")
    if features.entities:
        lines.append(f"entities = {_inline(features.entities)}")
    if features.log:
        log = msgspec.structs.asdict(features.log)
        log["rotate"], log["size"] = format_seconds(log.pop("rotate_s")), format_bytes(log["size"])
        lines.append(f"log = {_inline(log)}")
    return lines


def _response_line(entry: ResponseSpec) -> str:
    if entry.decision is None:
        return f"{_key(entry.name)} = {json.dumps(entry.source)}"
    return f"{_key(entry.name)} = {_inline(msgspec.structs.asdict(entry.decision))}"


def _inline(values: Mapping[str, str | bool | int | float]) -> str:
    # TOML writes strings, booleans and finite numbers as JSON does.
    return "{ " + ", ".join(f"{_key(key)} = {json.dumps(value)}" for key, value in values.items()) + " }"


def _key(name: str) -> str:
    return name if name.replace("_", "a").replace("-", "a").isalnum() and name.isascii() else json.dumps(name)
