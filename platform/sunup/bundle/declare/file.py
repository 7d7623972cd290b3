"""Reading function.toml. A table or key that does not exist is an error that names the closest one that does, with its
line."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from sunup.bundle.declare.cache import CacheTable, cache_spec
from sunup.bundle.declare.image import ImageTable, image_spec
from sunup.bundle.declare.kubernetes.table import KubernetesTable, kubernetes_spec
from sunup.bundle.declare.lines import Lines, closest
from sunup.bundle.declare.quantity import BYTES, declared, format_bytes, format_seconds
from sunup.bundle.declare.ranking import request_fields
from sunup.bundle.declare.scale import ScaleTable, scale_spec
from sunup.bundle.declare.spec import (
    FOLDER,
    NAME,
    TOLERANCE_DEFAULT,
    FeatureSpec,
    RankSpec,
    ResponseSpec,
    Scalar,
    Spec,
)
from sunup.bundle.declare.stream.table import refuse_unknown as refuse_unknown_security
from sunup.bundle.declare.stream.table import stream_spec
from sunup.bundle.manifest import Limits, LogSpec, StreamSpec
from sunup.errors import UsageError
from sunup.limits import (
    BODY_BYTES_DEFAULT,
    FEATURE_DEADLINE_MS_DEFAULT,
    SERVED_ROTATE_SECONDS_DEFAULT,
    SERVED_SIZE_BYTES_DEFAULT,
    SERVED_SIZE_BYTES_MAX,
    SERVED_SIZE_BYTES_MIN,
    TIMEOUT_SECONDS_DEFAULT,
)
from sunup.types import SCALARS, Decision


# The tables as they stand in the file; their fields are the only keys there are.
class _Function(msgspec.Struct):
    name: str | None = None
    model: str | None = None
    trusted: tuple[str, ...] = ()


class _Log(msgspec.Struct, forbid_unknown_fields=True):
    path: Annotated[str, msgspec.Meta(pattern=FOLDER)]
    rotate: str = format_seconds(SERVED_ROTATE_SECONDS_DEFAULT)
    size: str = format_bytes(SERVED_SIZE_BYTES_DEFAULT)
    sample: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0


class _Features(msgspec.Struct):
    service: Annotated[str, msgspec.Meta(min_length=1)]
    deadline_ms: Annotated[float, msgspec.Meta(gt=0, le=60_000)] = FEATURE_DEADLINE_MS_DEFAULT
    on_missing: Literal["default", "reject"] = "default"
    defaults: dict[str, Scalar] = {}
    max_age: dict[str, str] = {}
    entities: dict[str, str] = {}
    cache: dict[str, str] = {}
    log: _Log | None = None


class _Parity(msgspec.Struct):
    tolerance: Annotated[float, msgspec.Meta(gt=0, le=0.1)] = TOLERANCE_DEFAULT


class _Limits(msgspec.Struct):
    body_max: str = f"{BODY_BYTES_DEFAULT}B"
    timeout: str = f"{TIMEOUT_SECONDS_DEFAULT:g}s"


class _Decision(msgspec.Struct):
    field: str
    above: float
    then: str
    otherwise: str


class _File(msgspec.Struct):
    function: _Function = msgspec.field(default_factory=_Function)
    request: dict[str, str] = {}
    image: ImageTable | None = None
    features: _Features | None = None
    response: dict[str, str | _Decision] = {}
    parity: _Parity = msgspec.field(default_factory=_Parity)
    scale: ScaleTable = msgspec.field(default_factory=ScaleTable)
    limits: _Limits = msgspec.field(default_factory=_Limits)
    stream: StreamSpec | None = None
    rank: RankSpec | None = None
    cache: CacheTable | None = None
    kubernetes: KubernetesTable | None = None


_TABLES: Final[Mapping[str, type[msgspec.Struct] | None]] = {
    "function": _Function,
    "request": None,  # the keys are the caller's names
    "image": ImageTable,
    "features": _Features,
    "response": None,
    "parity": _Parity,
    "scale": ScaleTable,
    "limits": _Limits,
    "stream": StreamSpec,
    "rank": RankSpec,
    "cache": CacheTable,
    "kubernetes": KubernetesTable,
}


def read(path: Path) -> Spec:
    """The Spec of a function.toml; the function's name defaults to the folder's. Raises UsageError."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}.") from error
    return parse(text, source=str(path), name=path.parent.name)


def parse(text: str, *, source: str, name: str) -> Spec:
    """The Spec of a function.toml's text. `source` stands in error messages; `name` is the default function name.

    Raises UsageError: one paragraph with file and line, the closest known key where one is unknown.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{source} is not valid TOML: {error}.") from error
    where = Lines(source, text)
    _refuse_unknown(tables, where)
    try:
        file = msgspec.convert(tables, _File)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$.")
        table, key = [*re.sub(r"\[[^]]*]", "", path.rstrip("`")).split("."), "", ""][:2]
        key = key or next((name for name in tables[table] if _is_wrong(table, name, tables[table][name])), "")
        raise where.error(table, key, f"{f'[{table}] {key}'.strip()}: {reason[:1].lower()}{reason[1:]}") from error
    return _resolve(file, where, name)


def _is_wrong(table: str, key: str, value: Any) -> bool:
    """Whether this entry of a table with free keys is the wrong one; msgspec does not say which is."""
    try:
        msgspec.convert({table: {key: value}}, _File)
    except msgspec.ValidationError:
        return _TABLES[table] is None
    return False


def _refuse_unknown(tables: dict[str, Any], where: Lines) -> None:
    for table, values in tables.items():
        if table not in _TABLES:
            raise where.error(table, "", f"unknown table [{table}].{_known(table, _TABLES)}")
        if not isinstance(values, dict):
            raise where.error(table, "", f"`{table}` must be a table: write [{table}] above its keys")
        struct = _TABLES[table]
        known = struct.__struct_fields__ if struct else tuple(values)
        for key in values:
            if key not in known:
                raise where.error(table, key, f"unknown key `{key}` in [{table}].{_known(key, known)}")
    refuse_unknown_security(tables.get("stream", {}), where)
    for key, value in tables.get("response", {}).items():
        for part in value if isinstance(value, dict) else ():
            if part not in _Decision.__struct_fields__:
                near = _known(part, _Decision.__struct_fields__)
                raise where.error("response", key, f"unknown key `{part}` in [response] {key}.{near}")


def _known(word: str, names: Iterable[str]) -> str:
    return f"{closest(word, names)} Known here: {', '.join(names)}"


def _resolve(file: _File, where: Lines, name: str) -> Spec:
    name = file.function.name or name
    if not NAME.fullmatch(name):
        raise where.error("function", "name", f"{name!r} cannot be a function's name: use letters, digits, - and _.")
    for field, dtype in file.request.items():
        if dtype.removesuffix("[]") not in SCALARS:
            known = f"{', '.join(SCALARS)}, and each with [] for a list"
            message = f"[request] {field}: unknown type {dtype!r}.{closest(dtype, SCALARS)} Known: {known}"
            raise where.error("request", field, message)
    if file.image is not None and file.rank is not None:
        raise where.error("rank", "", "[rank] does not go with [image]: candidates are not pictures")
    return Spec(
        name=name,
        model=file.function.model or name,
        request=request_fields(file.request, file.rank, file.features.entities if file.features else {}, where),
        features=_features(file.features, where),
        response=tuple(_response(field, value) for field, value in file.response.items()),
        tolerance=file.parity.tolerance,
        scale=scale_spec(file.scale, where),
        limits=Limits(
            body_bytes=int(declared(where, "limits", "body_max", file.limits.body_max, units=BYTES)),
            timeout_s=declared(where, "limits", "timeout", file.limits.timeout),
        ),
        stream=stream_spec(file.stream, where, name, features=file.features is not None),
        trusted=file.function.trusted,
        image=image_spec(file.image, file.request, where),
        rank=file.rank,
        cache=cache_spec(file.cache, where),
        kubernetes=kubernetes_spec(file.kubernetes, where),
    )


def _response(name: str, value: str | _Decision) -> ResponseSpec:
    if isinstance(value, str):
        return ResponseSpec(name, source=value)
    return ResponseSpec(name, decision=Decision(value.field, value.above, value.then, value.otherwise))


def _features(table: _Features | None, where: Lines) -> FeatureSpec | None:
    if table is None:
        return None
    ages = {view: declared(where, "features", "max_age", age) for view, age in table.max_age.items()}
    kept = {view: declared(where, "features", "cache", time) for view, time in table.cache.items()}
    log = None if table.log is None else _log(table.log, where)
    return FeatureSpec(
        table.service, table.deadline_ms, table.on_missing, table.defaults, ages, table.entities, kept, log
    )


def _log(table: _Log, where: Lines) -> LogSpec:
    rotate = declared(where, "features", "log", table.rotate)
    size = declared(where, "features", "log", table.size, units=BYTES)
    if not SERVED_SIZE_BYTES_MIN <= size <= SERVED_SIZE_BYTES_MAX or rotate < 1:
        sizes = " to ".join(map(format_bytes, (SERVED_SIZE_BYTES_MIN, SERVED_SIZE_BYTES_MAX)))
        raise where.error("features", "log", f"[features] log: size is {sizes}, rotate a second at least")
    return LogSpec(table.path, rotate, int(size), table.sample)
