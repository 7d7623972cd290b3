"""The process that tries a handler, `python -m sunup.bundle.handler.child SECONDS`: a task on standard input, a verdict
as the last line of standard output. It goes the way a worker's calls go, with the same code."""

import contextlib
import math
import os
import resource
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import packages_distributions
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from sunup.batch.handled import Handled
from sunup.bundle.environment.uv import canonical
from sunup.bundle.handler.source import HANDLER, LIB
from sunup.bundle.handler.trial import Task, Verdict
from sunup.bundle.job import MODEL
from sunup.errors import BundleDamaged
from sunup.execute.handler import Handler, HookFailed
from sunup.execute.onnx import OnnxExecutor
from sunup.types import Field

_DTYPES: Final = {"b": "bool", "i": "int64", "u": "int64", "f": "float64", "O": "string"}
_KEPT: Final = ("bool", "int32", "int64", "float32", "float64")


def judge(task: Task) -> Verdict:
    """Import the handler, run all rows together and each alone, see what it gives and what it imported."""
    folder = Path(task.folder)
    before = set(sys.modules)  # what starting Python and a worker's code brought
    executor = OnnxExecutor(folder / MODEL, optimised=True)
    try:
        hooks = _Watched(folder / HANDLER)
        handled = Handled(
            hooks,
            executor.run,
            inputs=task.inputs,
            fields=task.fields,
            outputs=task.outputs,
            given=() if "postprocess" in task.hooks else None,
        )
        together = _run(handled, hooks, task.rows)
        for place, row in enumerate(task.rows):
            _check_alone(together, _run(handled, hooks, [row]), place)
    except (HookFailed, BundleDamaged, ValueError, TypeError) as error:
        return Verdict(_explain(error))
    if foreign := _foreign(folder / LIB, before, task.workers):
        return Verdict(f"it imports {foreign}, which a worker does not have. Name it in requirements.txt beside it")
    if "postprocess" not in task.hooks:
        return Verdict()
    return Verdict(response=tuple(_field(name, column) for name, column in together.items()))


class _Watched(Handler):
    """The handler, which remembers what its last postprocess gave."""

    given: dict[str, NDArray[Any]]

    def postprocess(
        self, columns: dict[str, NDArray[Any]], outputs: dict[str, NDArray[Any]], count: int
    ) -> dict[str, NDArray[Any]]:
        self.given = super().postprocess(columns, outputs, count)
        return self.given


def _run(handled: Handled, hooks: _Watched, rows: Sequence[tuple[Any, ...]]) -> dict[str, NDArray[Any]]:
    """What callers would get of the hooks: response columns, or the model's outputs by their place."""
    hooks.given = {}
    outputs = handled(rows)
    given = hooks.given or {str(place): output for place, output in enumerate(outputs)}
    if not given:
        raise HookFailed("postprocess returned no columns")
    for name, column in given.items():
        _field(name, column)
    return given


def _check_alone(together: dict[str, NDArray[Any]], alone: dict[str, NDArray[Any]], place: int) -> None:
    """Calls run together, so a row must get the same answer whoever is beside it."""
    for name, column in together.items():
        want, got = column[place], alone.get(name, np.array([None]))[0]
        close = np.all(want == got) if column.dtype.kind in "Ob" else np.allclose(want, got, equal_nan=True)
        if not close:
            raise HookFailed(
                f"row {place} gets {got!r} alone and {want!r} together with others. Calls run together, so each row "
                "must be worked out by itself"
            )


def _field(name: str, column: NDArray[Any]) -> Field:
    dtype = _DTYPES.get(column.dtype.kind)
    texts = dtype != "string" or all(isinstance(value, str) for value in column.flat)
    if dtype is None or not texts or (dtype == "string" and column.ndim > 1):
        raise HookFailed(
            f"postprocess returned a column {name!r} of {column.dtype if texts else 'mixed values'}; numbers, "
            "booleans and text can be sent"
        )
    return Field(name, column.dtype.name if column.dtype.name in _KEPT else dtype, tuple(column.shape[1:]))


def _explain(error: BaseException) -> str:
    """The last line of a traceback, and where in the handler it happened."""
    cause = error.__cause__ or error
    line = _line(cause.__traceback__)
    if isinstance(cause, SyntaxError | HookFailed | BundleDamaged) or cause is error:
        text = str(error)
    else:
        text = "".join(traceback.format_exception_only(cause)).strip().splitlines()[-1]
    return f"{f'line {line}: ' if line else ''}{text.rstrip('.')}"


def _line(trace: TracebackType | None) -> int | None:
    lines = [frame.lineno for frame in traceback.extract_tb(trace) if Path(frame.filename).name == HANDLER]
    return lines[-1] if lines else None


def _foreign(lib: Path, before: set[str], workers: Sequence[str]) -> str:
    """A package that was imported since `before` and that no worker has, or ""."""
    homes = packages_distributions()
    for name in sorted(set(sys.modules) - before):
        file = getattr(sys.modules[name], "__file__", None)
        top = name.partition(".")[0]
        owners = {canonical(owner) for owner in homes.get(top, ())}
        if file and owners and not owners & set(workers) and top != "sunup" and not Path(file).is_relative_to(lib):
            return top
    return ""


def main(seconds: float) -> None:
    """Limits, then the trial; what the handler prints goes to standard error."""
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), math.ceil(seconds) + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    answers = os.dup(1)
    os.dup2(2, 1)
    with contextlib.redirect_stdout(sys.stderr):
        verdict = judge(task)
    os.write(answers, b"\n" + msgspec.json.encode(verdict))


if __name__ == "__main__":
    main(float(sys.argv[1]))
