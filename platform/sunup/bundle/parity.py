"""The proof that a converted model gives the original's answers: both are asked the same rows and compared.

Numbers must agree within a tolerance: absolute up to 1, relative beyond. Labels must be equal, except where the
original itself has two classes within that tolerance of each other (or an outlier's score that close to its limit).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import floor, log10
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sunup.bundle.evidence import Proof
from sunup.errors import ParityFailed

Arrays = Mapping[str, NDArray[Any]]
Answer = Callable[[Arrays], Arrays]

BATCHES: Final = (1, 2, 7, 64)  # sizes the converted model is also asked in, beside all rows at once
BATCHED_ROWS: Final = 128  # rows asked in those sizes, evenly chosen
LARGE: Final = 1e6  # answers beyond it count in shares only: the last digit of a huge one is huge itself
ACCEPTED_MAX: Final = 1.0  # the largest --accept-difference: beyond it a probability may be anything
SHOWN_COLUMNS: Final = 6
SHOWN_TEXT: Final = 60


def prove(
    original: Answer,
    converted: Answer,
    rows: Arrays,
    *,
    real_rows: int,
    threshold_rows: int,
    tolerance: float,
    how: str,
    refused: tuple[str, ...] = (),
    accept: float = 0.0,
) -> tuple[Proof, Arrays]:
    """Ask both, compare, return the proof and the answers a machine is to give later: the original's or, where a
    difference beyond the tolerance was accepted, the converted model's.

    `rows`: column name -> values [n]. Answers: output name -> [n] or [n, classes]. `accept`: a difference beyond the
    tolerance that is accepted, 0 for none. Raises ParityFailed with the largest difference, its row, and what to do.
    """
    wanted = original(rows)
    try:
        given = converted(rows)
    except MemoryError:
        raise
    except Exception as error:  # whatever the runtime says
        reason = str(error).split("\n", 1)[0][:300]
        raise ParityFailed(f"The converted model fails on rows that the original answers: {reason}") from error
    count = len(next(iter(rows.values())))
    found = list(_compare(wanted, given, rows, tolerance))
    hopeless = [difference for difference in found if difference.largest > ACCEPTED_MAX]
    batched = [] if hopeless else _batched(converted, wanted, rows, count, tolerance)
    beyond = [difference for difference in (*hopeless, *found, *batched) if difference.largest > tolerance]
    largest = max((difference.largest for difference in (*found, *batched)), default=0.0)
    if largest > max(tolerance, accept):
        raise _failure(beyond[0], tolerance=tolerance, needed=largest)
    labels = [difference.wanted != difference.given for difference in found if difference.name == "label"]
    proof = Proof(
        rows=count,
        real_rows=real_rows,
        threshold_rows=threshold_rows,
        max_abs=max((difference.max_abs for difference in found), default=0.0),
        max_rel=max((difference.max_rel for difference in found), default=0.0),
        label_agreement=1.0 - float(np.mean(labels[0])) if labels else 1.0,
        tolerance=tolerance,
        how=how,
        refused=refused,
        max_difference=largest,
        label_differences=int(np.sum(labels[0])) if labels else 0,
        accepted=accept if beyond else 0.0,
    )
    return proof, given if beyond else wanted


def _batched(converted: Answer, wanted: Arrays, rows: Arrays, count: int, tolerance: float) -> list["_Difference"]:
    """The differences of some rows, asked in batches of each size."""
    chosen = np.linspace(0, count - 1, min(count, BATCHED_ROWS)).astype(np.int64)
    few = {name: array[chosen] for name, array in rows.items()}
    expected = {name: array[chosen] for name, array in wanted.items()}
    return [
        difference
        for size in BATCHES
        for difference in _compare(expected, _in_batches(converted, few, len(chosen), size), few, tolerance, size)
    ]


def _in_batches(answer: Answer, rows: Arrays, count: int, size: int) -> Arrays:
    parts = [answer(_part(rows, start, min(start + size, count))) for start in range(0, count, size)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _part(arrays: Arrays, start: int, stop: int) -> Arrays:
    return {name: array[start:stop] for name, array in arrays.items()}


class _Difference(NamedTuple):
    """How one output differs. `excess`: per value, absolute up to 1 and relative beyond; of labels see `_doubt`."""

    name: str
    wanted: NDArray[Any]
    given: NDArray[Any]
    excess: NDArray[np.float64]
    rows: Arrays
    batch: int | None
    max_abs: float = 0.0
    max_rel: float = 0.0

    @property
    def largest(self) -> float:
        return float(self.excess.max(initial=0.0))


def _compare(
    wanted: Arrays, given: Arrays, rows: Arrays, tolerance: float, batch: int | None = None
) -> Iterator[_Difference]:
    """The difference of every output, numbers first. Raises ParityFailed for another shape."""
    exact = [name for name in wanted if name == "label" or wanted[name].dtype.kind != "f"]
    for name in (n for n in wanted if n not in exact):
        a, b = _alike(name, wanted[name], given[name])
        apart = _apart(a, b)
        excess = apart / np.maximum(1.0, np.nan_to_num(np.abs(a), nan=1.0, posinf=1.0))
        max_abs = float(apart[np.abs(a) <= LARGE].max(initial=0.0))
        # A share of next to nothing says nothing.
        sized = np.abs(a) >= tolerance
        max_rel = float((apart[sized] / np.abs(a[sized])).max(initial=0.0))
        yield _Difference(name, a, b, excess, rows, batch, max_abs, max_rel)
    for name in exact:
        a, b = _alike(name, wanted[name], given[name])
        other = (a != b).astype(np.float64)
        yield _Difference(name, a, b, other * _doubt(wanted) if name == "label" else other, rows, batch)


def _alike(name: str, wanted: NDArray[Any], given: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    if wanted.shape != given.shape:
        raise ParityFailed(
            f"The converted model gives {name} with shape {list(given.shape)} where the original gives "
            f"{list(wanted.shape)}. This model cannot be deployed as it is; log it as a single estimator or pipeline."
        )
    return wanted, given


def _apart(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        apart = np.abs(a.astype(np.float64) - b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart))


def _doubt(wanted: Arrays) -> NDArray[np.float64] | float:
    """By row, what the original's label hangs on: the distance of its two likeliest classes, or of a score from its
    limit. 1 where nothing says."""
    if "probability" in wanted and wanted["probability"].shape[1] > 1:
        top = np.sort(wanted["probability"], axis=1)[:, -2:].astype(np.float64)
        between: NDArray[np.float64] = top[:, 1] - top[:, 0]
        return between
    return np.abs(wanted["score"].astype(np.float64)) if "score" in wanted else 1.0


def _failure(difference: _Difference, *, tolerance: float, needed: float) -> ParityFailed:
    name, wanted, given, excess, rows, batch = difference[:6]
    by_row = excess.reshape(len(excess), -1)
    row = int(by_row.max(axis=1).argmax())
    count = int((by_row > tolerance).any(axis=1).sum())
    values = [f"{column} = {_short(array[row])}" for column, array in rows.items()]
    shown = ", ".join(values[:SHOWN_COLUMNS]) + (", ..." if len(values) > SHOWN_COLUMNS else "")
    whole = name == "label" or wanted.dtype.kind != "f"
    apart = "" if whole else f" (largest difference {by_row.max():.3g}, allowed {tolerance:.3g})"
    asked = f", asked {batch} at a time" if batch else ""
    return ParityFailed(
        f"The converted model does not give the original's answers: on {count} of {len(by_row)} rows{asked} the output "
        f"{name} differs{apart}. At row {row} ({shown}) the original gives {_plain(wanted[row])}, the converted one "
        f"{_plain(given[row])}. {_todo(whole, needed)}."
    )


def _todo(whole: bool, needed: float) -> str:
    flag = f"--accept-difference {_rounded_up(needed)}" if needed <= ACCEPTED_MAX else ""
    if whole:
        other = f", or, if that is harmless, accept it with {flag}" if flag else ""
        return f"Train so that no two classes lie this close, or deploy another version{other}"
    if not flag:
        return "No --accept-difference goes as far; deploy another version"
    return (
        f"If that difference is harmless, accept it with {flag}, or raise tolerance in [parity] of function.toml; else "
        "deploy another version"
    )


def _rounded_up(number: float) -> str:
    """At least `number`, in two digits; no more than 1."""
    step = 10.0 ** (floor(log10(number)) - 1)
    return f"{min(ACCEPTED_MAX, (floor(number / step) + 1) * step):.2g}"


def _short(value: Any) -> str:
    if np.ndim(value):  # an image
        value = f"{list(value.shape)} from {value.min()} to {value.max()}"
    text = repr(value.item() if hasattr(value, "item") else value)
    return text if len(text) <= SHOWN_TEXT else f"{text[:SHOWN_TEXT]}..."


def _plain(answer: Any) -> str:
    value: Sequence[Any] | Any = answer.tolist() if hasattr(answer, "tolist") else answer
    return repr(value)
