"""The second model of a ranking function: converted, proven and put beside the first, with files of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from sunup.bundle.declare.ranking import retrieval_of
from sunup.bundle.declare.spec import Spec
from sunup.bundle.environment.conversion import convert
from sunup.bundle.evidence import PARITY
from sunup.bundle.job import MODEL, WARMUP, Job
from sunup.bundle.manifest import Model, Retrieval
from sunup.bundle.packager import Packager
from sunup.types import Field

RETRIEVAL_FILES: Final = {MODEL: "retrieve.onnx", WARMUP: "retrieve.npz", PARITY: "retrieve.json"}


def add_retrieval(
    staged: Path,
    spec: Spec,
    model: Model,
    packager: Packager,
    *,
    folder: Path,
    columns: tuple[Field, ...],
    requirements: tuple[str, ...],
    on_stage: Callable[[str, float], None],
) -> Retrieval:
    """Convert the registered `model` in `folder` into `staged`, as RETRIEVAL_FILES. `columns`, `requirements`: see Job.

    `on_stage` is told "retrieval" with the seconds of each part. Raises UsageError where the model does not name
    candidates for this function, ConversionRefused, ParityFailed.
    """
    out = staged / "retrieve"
    out.mkdir()
    job = Job(
        folder=str(folder.resolve()),
        flavor=model.flavor,
        columns=columns,
        requirements=requirements,
        tolerance=spec.tolerance,
        out=str(out.resolve()),
    )
    result = convert(packager, job, lambda _, seconds: on_stage("retrieval", seconds))
    for made, kept in RETRIEVAL_FILES.items():
        (out / made).rename(staged / kept)
    out.rmdir()
    return retrieval_of(spec, model, result.inputs, result.outputs)
