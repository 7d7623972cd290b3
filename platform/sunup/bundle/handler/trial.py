"""handler.py tried before it is deployed: the task of a process of its own, and how that is started."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from sunup.bundle.handler.packages import install, worker_packages
from sunup.bundle.handler.source import EXAMPLES, HANDLER, LIB, LOCK, Source
from sunup.bundle.job import WARMUP, Result
from sunup.bundle.manifest import HandlerSpec
from sunup.errors import ConversionRefused, UsageError
from sunup.limits import HANDLER_SECONDS_MAX
from sunup.types import Field, ResponseField, Tensor

Record = dict[str, Any]

_SOME: Final[dict[str, Any]] = {"string": "a", "bytes": "YQ==", "bool": False}
_PASSED: Final = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "TZ")


class Task(msgspec.Struct, frozen=True):
    """What the process is to try. `folder`: the bundle being written; `fields`: request, then features; `rows`: their
    values; `workers`: the distributions a worker has."""

    folder: str
    inputs: tuple[Tensor, ...]
    fields: tuple[Field, ...]
    outputs: tuple[ResponseField, ...]
    hooks: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    workers: tuple[str, ...]


class Verdict(msgspec.Struct, frozen=True):
    """What came of it: why it cannot be deployed, or "" and the columns postprocess gave."""

    refused: str = ""
    response: tuple[Field, ...] = ()


def add_handler(
    staged: Path,
    source: Source,
    *,
    result: Result,
    fields: Sequence[Field],
    response: tuple[ResponseField, ...],
) -> tuple[HandlerSpec, tuple[ResponseField, ...], Record]:
    """Put a handler with what it requires into the bundle being written, whose model is there, and try it.

    `fields`: request, then features; `response`: what the model's outputs are called. Returns what the manifest says of
    it, the response fields callers get and an example record. Raises ConversionRefused: what requirements.txt names
    cannot be had, or the handler does not work.
    """
    with tempfile.TemporaryDirectory(prefix="sunup-") as scratch:
        install(source, staged, Path(scratch))
    (staged / HANDLER).write_text(source.code, "utf-8")
    records = _records(staged, source, result, fields)
    rows = tuple(tuple(record[field.name] for field in fields) for record in records)
    names = tuple(worker_packages())
    task = Task(str(staged), result.inputs, tuple(fields), response, source.hooks, rows, names)
    verdict = _try(task)
    if verdict.refused:
        raise ConversionRefused(f"{Path(source.folder) / HANDLER} does not work: {verdict.refused}")
    given = response
    if "postprocess" in source.hooks:
        given = tuple(ResponseField(f.name, f.dtype, output=f.name, shape=f.shape) for f in verdict.response)
    return HandlerSpec(source.hooks, response), given, records[0]


def files_of(staged: Path) -> list[str]:
    """The files a handler brought, as the manifest names them."""
    lib = [path.relative_to(staged).as_posix() for path in (staged / LIB).rglob("*") if path.is_file()]
    return [name for name in (HANDLER, LOCK) if (staged / name).is_file()] + sorted(lib)


def _records(staged: Path, source: Source, result: Result, fields: Sequence[Field]) -> list[Record]:
    """Records to try: those of examples.json, completed; the model's own rows, as far as fields are its columns."""
    rows = _model_rows(staged, result.inputs)
    known = {field.name for field in fields}
    for record in source.examples:
        if unknown := [name for name in record if name not in known]:
            raise UsageError(
                f"{Path(source.folder) / EXAMPLES} has `{unknown[0]}`, which is neither a request field nor a feature."
            )
    records = [{**_complete(fields, rows[i % len(rows)]), **one} for i, one in enumerate(source.examples)]
    # Values made up for fields the model does not know may be none that the handler can read.
    if not records or all(field.name in rows[0] for field in fields):
        records += [_complete(fields, row) for row in rows]
    return records


def _model_rows(staged: Path, inputs: Sequence[Tensor]) -> list[Record]:
    columns: dict[str, list[Any]] = {}
    with np.load(staged / WARMUP, allow_pickle=False) as arrays:
        for tensor in inputs:
            values = arrays[f"in:{tensor.name}"]
            matrix = values.reshape(len(values), -1)
            columns |= {name: matrix[:, i].tolist() for i, name in enumerate(tensor.columns)}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _complete(fields: Sequence[Field], row: Record) -> Record:
    return {field.name: _value(field, row.get(field.name)) for field in fields}


def _value(field: Field, value: Any) -> Any:
    whole = field.dtype in ("int32", "int64", "bool")
    if value is None or (isinstance(value, float) and whole and not np.isfinite(value)):
        value = _SOME.get(field.dtype, 1.0 if field.dtype.startswith("float") else 1)
        return [value] if field.dtype.endswith("[]") else value
    return {"int32": int, "int64": int, "bool": bool}.get(field.dtype, lambda same: same)(value)


def _try(task: Task) -> Verdict:
    """In a process that has nothing but what a worker has, no credentials, and ends with the trial."""
    environment = {name: os.environ[name] for name in _PASSED if name in os.environ}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[3]), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        ran = subprocess.run(
            [sys.executable, "-P", "-m", "sunup.bundle.handler.child", str(HANDLER_SECONDS_MAX)],
            input=msgspec.json.encode(task),
            env=environment,
            capture_output=True,
            check=False,
            timeout=HANDLER_SECONDS_MAX + 10,
            cwd=task.folder,
        )
    except subprocess.TimeoutExpired:
        return Verdict(f"it took more than {HANDLER_SECONDS_MAX:.0f} s")
    try:
        return msgspec.json.decode(ran.stdout.rpartition(b"\n")[2], type=Verdict)
    except msgspec.DecodeError:
        said = ran.stderr.decode("utf-8", "replace").strip().splitlines() or [f"code {ran.returncode}"]
        return Verdict(f"the process that tried it ended early ({said[-1][:200]})")
