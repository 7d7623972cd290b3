"""The process that tries on-demand views, `python -m sunup.lookup.compile.on_demand.child SECONDS` in the folder of
features.json and features.py: what is wrong is the last line of standard output, which is empty when nothing is."""

import contextlib
import math
import os
import resource
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from sunup.errors import BundleDamaged, CallError, FeaturesFailed
from sunup.lookup.derive.view import NONE, OnDemandView, load_makers
from sunup.lookup.plan import OnDemand, ReadPlan, load
from sunup.types import Field, Row

_FILE: Final = "features.py"
# The values Feast itself tries such a function with when it is applied (_get_sample_values_by_type), then others.
_SOME: Final[dict[str, tuple[Any, ...]]] = {
    "BYTES": (b"hello world", b"a"),
    "STRING": ("hello world", "a"),
    "INT32": (1, 3),
    "INT64": (1, 3),
    "DOUBLE": (1.0, 2.5),
    "FLOAT": (1.0, 2.5),
    "BOOL": (True, False),
    "UNIX_TIMESTAMP": (1_700_000_000, 1_600_000_000),
}


def judge(plan: ReadPlan, file: Path) -> str:
    """What is wrong with the first view that does not work, or ""."""
    try:
        makers = load_makers(file)
    except BundleDamaged as error:
        return error.message
    for view in plan.on_demand:
        if wrong := _wrong(view, plan, makers):
            return f"The on-demand feature view {view.name} does not work: {wrong}. Correct it and run `feast apply`."
    return ""


def _wrong(view: OnDemand, plan: ReadPlan, makers: Any) -> str:
    asked = {each.column: each.value_type for other in plan.on_demand for each in other.inputs if each.asked}
    tried = OnDemandView(view, plan, [Field(name, "") for name in asked], makers)
    stored = [feature.value_type for each in plan.views for feature in each.features]
    rows = [([_some(kind, n) for kind in asked.values()], [_some(kind, n) for kind in stored]) for n in (0, 1, 0)]
    answers = _answers(tried, rows[:1])
    if isinstance(answers[0], CallError):
        return _explain(answers[0])
    together, alone = _answers(tried, rows), [_answers(tried, [row])[0] for row in rows]
    for place, (one, other) in enumerate(zip(together, alone, strict=True)):
        # What fails with made-up values may be right to: only different answers are wrong.
        if not isinstance(one, CallError) and not isinstance(other, CallError) and repr(one) != repr(other):
            return (
                f"record {place} gets {other[0]!r} alone and {one[0]!r} together with others. Each record must be "
                "worked out by itself"
            )
    return ""


def _answers(view: OnDemandView, rows: Sequence[tuple[list[Any], list[Any]]]) -> list[Any]:
    stored: list[tuple[Row, frozenset[str]]] = [(tuple(values), NONE) for _, values in rows]
    return list(view.answers([tuple(asked) for asked, _ in rows], stored))


def _some(kind: str, place: int) -> Any:
    scalar = _SOME[kind.removesuffix("_LIST")][place]
    return [scalar] if kind.endswith("_LIST") else scalar


def _explain(error: CallError) -> str:
    """The last line of a traceback, and where in features.py it happened."""
    cause = error.__cause__
    if not isinstance(error, FeaturesFailed) or cause is None:
        return f"it gave none of what it must ({error.message})"
    text = "".join(traceback.format_exception_only(cause)).strip().splitlines()[-1].rstrip(".")
    lines = [frame.line for frame in traceback.extract_tb(cause.__traceback__) if Path(frame.filename).name == _FILE]
    return f"{text}{f' in `{lines[-1]}`' if lines and lines[-1] else ''}"


def main(seconds: float) -> None:
    """Limits, then the trial; what the functions print goes to standard error."""
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), math.ceil(seconds) + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.dup(1)
    os.dup2(2, 1)
    with contextlib.redirect_stdout(sys.stderr):
        verdict = judge(load(Path("features.json").read_bytes()), Path(_FILE).resolve())
    os.write(answers, b"\n" + " ".join(verdict.split("\n")).encode())


if __name__ == "__main__":
    main(float(sys.argv[1]))
