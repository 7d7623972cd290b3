"""One job from beginning to end: load the original, convert it, prove the conversion, write what a bundle keeps."""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from sunup.bundle.convert.examples import feeds, real_rows
from sunup.bundle.convert.onnx import OnnxModel
from sunup.bundle.convert.original import Original, check_requirements, load
from sunup.bundle.convert.sklearn import NUMBERS, candidates
from sunup.bundle.convert.trees.model import Converted
from sunup.bundle.job import MODEL, PARITY, WARMUP, Job, Result
from sunup.bundle.parity import Arrays, prove
from sunup.bundle.rows import grid_of, rows_at_codes, rows_at_splits, rows_between, rows_from_nothing, rows_with_gaps
from sunup.errors import ConversionRefused
from sunup.execute.onnx import OnnxExecutor, optimise
from sunup.limits import PARITY_ROWS_MAX, WARMUP_ROWS
from sunup.types import Field

MIXED_ROWS: Final = 512  # rows mixed from real ones; enough to visit what a few examples do not
INVENTED_ROWS: Final = 256  # rows for a model that came without an example

Converter = tuple[Converted, OnnxExecutor, bytes]


def run(job: Job, on_stage: Callable[[str, float], None]) -> Result:
    """Do a job. `on_stage` is told each stage and its seconds. Raises ConversionRefused or ParityFailed."""
    started = time.perf_counter()
    check_requirements(job.requirements)
    original = load(Path(job.folder), job.flavor, job.columns)
    real = real_rows(Path(job.folder), job.columns, job.rows)
    converted, executor, model = _convert(original, job.columns, real)
    on_stage("convert", time.perf_counter() - started)
    started = time.perf_counter()
    rows, counts = proof_rows(original, converted, job.columns, real)
    names = [output.name for output in converted.outputs]

    def ask(asked: Arrays) -> Arrays:
        return dict(zip(names, executor.run(feeds(converted.inputs, asked), names), strict=True))

    proof, answers = prove(original.answer, ask, rows, tolerance=job.tolerance, **counts)
    on_stage("prove", time.perf_counter() - started)
    out = Path(job.out)
    (out / MODEL).write_bytes(model)
    (out / PARITY).write_bytes(msgspec.json.format(msgspec.json.encode(proof), indent=2) + b"\n")
    few = {name: array[:WARMUP_ROWS] for name, array in rows.items()}
    kept = {f"in:{name}": array for name, array in feeds(converted.inputs, few).items()}
    kept |= {f"out:{name}": answers[name][:WARMUP_ROWS] for name in names}
    arrays: dict[str, Any] = {name: _plain(array) for name, array in kept.items()}
    np.savez(out / WARMUP, allow_pickle=False, **arrays)
    return Result(converted.inputs, converted.outputs, _example(rows, job.columns))


def _convert(original: Original, columns: Sequence[Field], real: Arrays) -> Converter:
    """The first conversion that the runtime loads and runs, optimised."""
    reasons = []
    for way in _ways(original, columns):
        try:
            converted = way()
            model = optimise(converted.model)
            executor = OnnxExecutor(model, optimised=True)
            trial = {name: array[:1] for name, array in (real if _count(real) else _invent(columns, None)).items()}
            executor.run(feeds(converted.inputs, trial), [output.name for output in converted.outputs])
        except (ConversionRefused, MemoryError):
            raise
        except Exception as error:  # converters raise what they like; the next way may do
            reasons.append(f"{type(error).__name__}: {error}".split("\n", 1)[0][:300])
        else:
            return converted, executor, model
    kind = type(original.model).__name__
    raise ConversionRefused(
        f"This {kind} cannot be converted to ONNX ({reasons[0]}). Use estimators that skl2onnx knows, or log the parts "
        "it does not know outside the pipeline."
    )


def _ways(original: Original, columns: Sequence[Field]) -> Iterable[Callable[[], Converted]]:
    if isinstance(original.model, OnnxModel):
        return [lambda: original.model.converted]
    return candidates(original.model, columns)


def proof_rows(
    original: Original, converted: Converted, columns: Sequence[Field], real: Arrays
) -> tuple[Arrays, dict[str, Any]]:
    """The rows to prove with, and what `prove` is told of them: real_rows, threshold_rows, how."""
    found = _count(real)
    base = real if found else _invent(columns, converted.forest if converted.to_trees is None else None)
    if any(column.dtype not in NUMBERS for column in columns):
        rows, picked = base, np.random.default_rng(0).integers(_count(base), size=(len(columns), MIXED_ROWS))
        rows = {c.name: np.concatenate([base[c.name], base[c.name][p]]) for c, p in zip(columns, picked, strict=True)}
        how = f"{_given(found, base)}, {MIXED_ROWS} mixtures of them; {converted.note}"
        return rows, {"real_rows": found, "threshold_rows": 0, "how": how}
    dtypes = [column.dtype for column in columns]
    matrix = np.column_stack([base[column.name] for column in columns])
    gaps = rows_with_gaps(matrix, dtypes, missing=True)
    missing = original.takes(_columns(gaps[-1:], columns))
    if not missing:
        gaps = rows_with_gaps(matrix, dtypes, missing=False)
    first = np.concatenate([matrix, rows_between(matrix, dtypes, MIXED_ROWS), gaps])[: PARITY_ROWS_MAX * 3 // 4]
    at_splits = _split_rows(converted, dtypes, matrix, PARITY_ROWS_MAX - len(first), missing=missing)
    how = (
        f"{_given(found, base)}, {MIXED_ROWS} mixtures of them, {len(gaps)} with zeros"
        f"{' and missing values' if missing else ''}, {len(at_splits)} on both sides of splits; {converted.note}"
    )
    rows = _columns(np.concatenate([first, at_splits]), columns)
    return rows, {"real_rows": found, "threshold_rows": len(at_splits), "how": how}


def _split_rows(
    converted: Converted, dtypes: Sequence[str], base: NDArray[np.float64], budget: int, *, missing: bool
) -> NDArray[np.float64]:
    forest = converted.forest
    if forest is None:
        return np.empty((0, base.shape[1]))
    if converted.to_trees is None or converted.to_input is None:
        grid = grid_of(dtypes, forest)
        codes = rows_at_codes(forest, base, grid, budget=budget // 3, missing=missing)
        rows = rows_at_splits(forest, base, grid, budget=budget - len(codes), missing=missing)
        return np.concatenate([codes, rows])
    # Behind other steps the trees see fractions, whatever the columns are.
    grid = grid_of(["float64"] * len(dtypes), forest)
    rows = rows_at_splits(forest, converted.to_trees(base), grid, budget=budget, missing=missing)
    back = converted.to_input(rows) if len(rows) else rows
    return np.where(np.isin(np.array(dtypes), ("bool", "int32", "int64")), np.round(np.nan_to_num(back)), back)


def _invent(columns: Sequence[Field], forest: Any) -> Arrays:
    numbers = rows_from_nothing([column.dtype for column in columns], forest, INVENTED_ROWS)
    rows = _columns(numbers, columns)
    text = {c.name: np.array(["a"] * INVENTED_ROWS, dtype=object) for c in columns if c.dtype not in NUMBERS}
    return {**rows, **text}


def _columns(matrix: NDArray[np.float64], columns: Sequence[Field]) -> dict[str, NDArray[Any]]:
    values = {column.name: matrix[:, i] for i, column in enumerate(columns)}
    return {c.name: values[c.name].clip(0, 1) if c.dtype == "bool" else values[c.name] for c in columns}


def _given(found: int, base: Arrays) -> str:
    return f"{found} real rows" if found else f"no example, {_count(base)} invented rows"


def _count(rows: Arrays) -> int:
    return len(next(iter(rows.values())))


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    """Without objects, which numpy could only keep as a pickle."""
    return array.astype(str) if array.dtype.kind == "O" else array


def _example(rows: Arrays, columns: Sequence[Field]) -> dict[str, str | bool | int | float]:
    """The first row as values to send; a missing number, which JSON cannot say, becomes 0."""
    example: dict[str, str | bool | int | float] = {}
    for column in columns:
        value = rows[column.name][0]
        if column.dtype == "string":
            example[column.name] = str(value)
        else:
            number = float(np.nan_to_num(value, posinf=0.0, neginf=0.0))
            whole = {"bool": bool, "int32": int, "int64": int}.get(column.dtype, float)
            example[column.name] = whole(number)
    return example
