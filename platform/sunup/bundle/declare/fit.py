"""Where a function's declaration meets the model: do the columns fit, and how do outputs become response fields?"""

import json
from collections.abc import Iterable, Sequence

import msgspec

from sunup.bundle.declare.cache import check_cache
from sunup.bundle.declare.image import as_sent
from sunup.bundle.declare.lines import closest
from sunup.bundle.declare.spec import ResponseSpec, Spec
from sunup.errors import UsageError
from sunup.types import Field, ResponseField, Tensor


def fit(spec: Spec, columns: Sequence[Field], features: Sequence[Field], hooks: Sequence[str] = ()) -> Spec:
    """`spec` checked against the model's input columns and the feature columns its read plan gives.

    `hooks`: of its handler.py. With a preprocess, columns may be missing or of another type (it makes them); with any,
    request fields need not be the model's. Without a [request] table the request becomes every model input no feature
    gives. Raises UsageError: one paragraph naming what is missing, ambiguous or of another type, with the closest
    names.
    """
    if hooks and spec.image is not None:
        raise UsageError(
            f"The function {spec.name} takes images, and a handler.py works on columns. Leave one of them out."
        )
    columns = as_sent(spec, columns)
    if not spec.request:
        given = {feature.name for feature in features}
        spec = msgspec.structs.replace(spec, request=tuple(c for c in columns if c.name not in given))
    sources = _sources(spec, features)
    if "preprocess" not in hooks:
        _refuse_misfit(spec, columns, sources)
    if spec.features is not None:
        _refuse_unknown_defaults(spec, features)
    elif not hooks:
        _refuse_unused(spec, columns)
    check_cache(spec, columns, features, hooks)
    return spec


def _refuse_misfit(spec: Spec, columns: Sequence[Field], sources: dict[str, Field]) -> None:
    _refuse_missing(spec, columns, sources)
    for column in columns:
        if _kind(column) != _kind(sources[column.name]):
            source = sources[column.name]
            raise UsageError(
                f"The model {spec.model} takes `{column.name}` as {column.dtype}, but {spec.name} gives it "
                f"{source.dtype}. Change the type in [request], or the feature view's field."
            )


def response_fields(spec: Spec, outputs: Sequence[Tensor]) -> tuple[ResponseField, ...]:
    """How each response field is made from the model's outputs. Without [response]: each output under its own name.

    Raises UsageError naming the outputs there are.
    """
    entries = spec.response or tuple(ResponseSpec(output.name, source=output.name) for output in outputs)
    made: dict[str, ResponseField] = {}
    for entry in entries:
        made[entry.name] = _decision(entry, made) if entry.decision else _from_output(entry, outputs)
    return tuple(made.values())


def _sources(spec: Spec, features: Sequence[Field]) -> dict[str, Field]:
    sources = {field.name: field for field in spec.rows}
    both = [feature.name for feature in features if feature.name in sources]
    if both:
        raise UsageError(
            f"{_list(both)} of {spec.name} would come both from the caller and from the feature service. Remove it "
            "from [request], or from the feature service."
        )
    return sources | {feature.name: feature for feature in features}


def _refuse_missing(spec: Spec, columns: Sequence[Field], sources: dict[str, Field]) -> None:
    missing = [column.name for column in columns if column.name not in sources]
    if not missing:
        return
    hint = next((near for near in (closest(name, sources) for name in missing) if near), "")
    where = "[request]" if spec.features is None else f"[request] and the feature service {spec.features.service}"
    raise UsageError(
        f"The model {spec.model} takes {_list(missing)}, which {where} of function {spec.name} do not give.{hint} Add "
        f"{'it' if len(missing) == 1 else 'them'} to [request] in function.toml, or to the feature service."
    )


def _refuse_unused(spec: Spec, columns: Sequence[Field]) -> None:
    used = {column.name for column in columns}
    unused = [field.name for field in spec.request if field.name not in used]
    if unused:
        raise UsageError(
            f"{_list(unused)} in [request] of {spec.name} is no input of the model {spec.model}, and there is no "
            f"[features] that could need it.{closest(unused[0], used)} Remove it, or name the feature service."
        )


def _refuse_unknown_defaults(spec: Spec, features: Sequence[Field]) -> None:
    names = [feature.name for feature in features]
    unknown = [name for name in spec.features.defaults if name not in names] if spec.features else []
    if unknown:
        raise UsageError(
            f"[features] defaults of {spec.name} names {_list(unknown)}, which the feature service does not give."
            f"{closest(unknown[0], names)} Its columns: {', '.join(names)}."
        )


def _from_output(entry: ResponseSpec, outputs: Sequence[Tensor]) -> ResponseField:
    name, _, column = entry.source.partition(":")
    output = next((output for output in outputs if output.name == name), None)
    if output is None:
        names = [output.name for output in outputs]
        raise UsageError(
            f"[response] {entry.name} = {json.dumps(entry.source)}: the model has no output `{name}`."
            f"{closest(name, names)} Its outputs: {', '.join(names)}."
        )
    shape = output.shape[1:]
    if not column:
        return ResponseField(entry.name, output.dtype, output=name, shape=shape)
    width = shape[0] if len(shape) == 1 else 0
    if not column.isdecimal() or int(column) >= width:
        columns = f"columns 0 to {width - 1}" if width else "no columns"
        raise UsageError(f"[response] {entry.name} = {json.dumps(entry.source)}: the output `{name}` has {columns}.")
    return ResponseField(entry.name, output.dtype, output=name, column=int(column))


def _decision(entry: ResponseSpec, made: dict[str, ResponseField]) -> ResponseField:
    assert entry.decision is not None
    on = made.get(entry.decision.field)
    if on is None or on.shape or on.dtype in ("string", "bytes", "bool"):
        numbers = [f.name for f in made.values() if not f.shape and f.dtype not in ("string", "bytes", "bool")]
        raise UsageError(
            f"[response] {entry.name}: field = {json.dumps(entry.decision.field)} is not a number listed above it."
            f"{closest(entry.decision.field, numbers)} There are: {', '.join(numbers) or 'none'}."
        )
    return ResponseField(entry.name, "string", decision=entry.decision)


def _list(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _kind(field: Field) -> tuple[bool, bool]:
    """What cannot stand for one another: text and numbers, a list and a single value."""
    return field.dtype.removesuffix("[]") in ("string", "bytes"), field.dtype.endswith("[]")
