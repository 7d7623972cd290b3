"""One job from beginning to end: load the original, convert it, prove the conversion, write what a bundle keeps."""

import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sunup.bundle.convert.examples import feeds, real_rows, training_profile
from sunup.bundle.convert.images import image_example, image_rows, in_parts, real_images, takes_image
from sunup.bundle.convert.onnx import OnnxModel
from sunup.bundle.convert.original import Original, check_requirements, load
from sunup.bundle.convert.sklearn.pipeline import candidates
from sunup.bundle.convert.skops import check_types
from sunup.bundle.convert.trees.model import Converted
from sunup.bundle.convert.trials import count, invent, proof_rows
from sunup.bundle.evidence import PARITY
from sunup.bundle.job import MODEL, TRAINING, WARMUP, Job, Result
from sunup.bundle.parity import Arrays, prove
from sunup.errors import ConversionRefused
from sunup.execute.onnx import OnnxExecutor, optimise
from sunup.limits import WARMUP_ROWS
from sunup.served.skew.profile import dump
from sunup.types import PIXELS, Field

Converter = tuple[Converted, OnnxExecutor, bytes]


def run(job: Job, on_stage: Callable[[str, float], None]) -> Result:
    """Do a job. `on_stage` is told each stage and its seconds. Raises ConversionRefused or ParityFailed."""
    started = time.perf_counter()
    check_requirements(job.requirements)
    types = check_types(Path(job.folder), job.flavor, job.trusted)
    original = load(Path(job.folder), job.flavor, job.columns)
    pictured = takes_image(job.columns)
    real = (real_images if pictured else real_rows)(Path(job.folder), job.columns, job.rows)
    converted, executor, model = _convert(original, job.columns, real)
    on_stage("convert", time.perf_counter() - started)
    started = time.perf_counter()
    rows, counts = (image_rows if pictured else proof_rows)(original, converted, job.columns, real)
    names = [output.name for output in converted.outputs]

    def ask(asked: Arrays) -> Arrays:
        return dict(zip(names, executor.run(feeds(converted.inputs, asked), names), strict=True))

    both = (in_parts(original.answer), in_parts(ask)) if pictured else (original.answer, ask)
    proof, answers = prove(*both, rows, tolerance=job.tolerance, accept=job.accept, **counts)
    proof = msgspec.structs.replace(proof, types=types)
    on_stage("prove", time.perf_counter() - started)
    out = Path(job.out)
    (out / MODEL).write_bytes(model)
    (out / PARITY).write_bytes(msgspec.json.format(msgspec.json.encode(proof), indent=2) + b"\n")
    if job.training and not pictured:
        (out / TRAINING).write_bytes(dump(training_profile(Path(job.folder), job.columns)))
    few = {name: array[:WARMUP_ROWS] for name, array in rows.items()}
    kept = {f"in:{name}": array for name, array in feeds(converted.inputs, few).items()}
    kept |= {f"out:{name}": answers[name][:WARMUP_ROWS] for name in names}
    arrays: dict[str, Any] = {name: _plain(array) for name, array in kept.items()}
    np.savez(out / WARMUP, allow_pickle=False, **arrays)
    return Result(converted.inputs, converted.outputs, _example(rows, job.columns), proof.accepted)


def _convert(original: Original, columns: Sequence[Field], real: Arrays) -> Converter:
    """The first conversion that the runtime loads and runs, optimised."""
    reasons = []
    for way in _ways(original, columns):
        try:
            converted = way()
            model = optimise(converted.model)
            executor = OnnxExecutor(model, optimised=True, layout=takes_image(columns))  # as a worker will
            trial = {name: array[:1] for name, array in (real if count(real) else invent(columns, None)).items()}
            executor.run(feeds(converted.inputs, trial), [output.name for output in converted.outputs])
        except (ConversionRefused, MemoryError):
            raise
        except Exception as error:  # converters raise what they like; the next way may do
            reasons.append(_reason(error))
        else:
            return converted, executor, model
    kind = type(original.model).__name__
    raise ConversionRefused(
        f"This {kind} cannot be converted to ONNX ({reasons[0]}). Use estimators that skl2onnx knows, or log the parts "
        "it does not know outside the pipeline."
    )


def _reason(error: Exception) -> str:
    unknown = re.search(r"(?:shape calculator|converter) for type '<class '([\w.]+)'>'", str(error))
    if unknown:
        return f"there is no converter for {unknown[1].rpartition('.')[2]}"
    return f"{type(error).__name__}: {error}".split("\n", 1)[0][:300]


def _ways(original: Original, columns: Sequence[Field]) -> Iterable[Callable[[], Converted]]:
    if isinstance(original.model, OnnxModel):
        return [lambda: original.model.converted]
    return candidates(original.model, columns)


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    """Without objects, which numpy could only keep as a pickle."""
    return array.astype(str) if array.dtype.kind == "O" else array


def _example(rows: Arrays, columns: Sequence[Field]) -> dict[str, str | bool | int | float]:
    """The first row as values to send; a missing number, which JSON cannot say, becomes 0."""
    example: dict[str, str | bool | int | float] = {}
    for column in columns:
        value = rows[column.name][0]
        if column.dtype == PIXELS:
            example[column.name] = image_example(value)
        elif column.dtype == "string":
            example[column.name] = str(value)
        else:
            number = float(np.nan_to_num(value, posinf=0.0, neginf=0.0))
            whole = {"bool": bool, "int32": int, "int64": int}.get(column.dtype, float)
            example[column.name] = whole(number)
    return example
