"""The proof that a converted model gives the original's answers: both are asked the same rows and compared.

Numbers must agree within a tolerance: absolute up to 1, relative beyond. Labels must be equal, except where the
original itself has two classes within that tolerance of each other (or an outlier's score that close to its limit).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from sunup.errors import ParityFailed

Arrays = Mapping[str, NDArray[Any]]
Answer = Callable[[Arrays], Arrays]

BATCHES: Final = (1, 2, 7, 64)  # sizes the converted model is also asked in, beside all rows at once
BATCHED_ROWS: Final = 128  # rows asked in those sizes, evenly chosen
LARGE: Final = 1e6  # answers beyond it count in shares only: the last digit of a huge one is huge itself
SHOWN_COLUMNS: Final = 6
SHOWN_TEXT: Final = 60


class Proof(msgspec.Struct, frozen=True):
    """parity.json. `real_rows` came from people, `threshold_rows` were made to lie at the model's splits; the rest
    are mixtures and rows with odd values. `label_agreement`: share of rows with the same label, 1.0 without labels.
    `refused`: kinds of values the original refuses to answer; the converted model answers them, with what nobody knows.
    """

    rows: int
    real_rows: int
    threshold_rows: int
    max_abs: float
    max_rel: float
    label_agreement: float
    tolerance: float
    how: str
    refused: tuple[str, ...] = ()


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
) -> tuple[Proof, Arrays]:
    """Ask both, compare, return the proof and the original's answers.

    `rows`: column name -> values [n]. Answers: output name -> [n] or [n, classes]. Raises ParityFailed with the largest
    difference, its row, and what to do.
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
    max_abs, max_rel, agreement = _compare(wanted, given, rows, tolerance)
    chosen = np.linspace(0, count - 1, min(count, BATCHED_ROWS)).astype(np.int64)
    few = {name: array[chosen] for name, array in rows.items()}
    expected = {name: array[chosen] for name, array in wanted.items()}
    for size in BATCHES:
        _compare(expected, _in_batches(converted, few, len(chosen), size), few, tolerance, size)
    proof = Proof(
        rows=count,
        real_rows=real_rows,
        threshold_rows=threshold_rows,
        max_abs=max_abs,
        max_rel=max_rel,
        label_agreement=agreement,
        tolerance=tolerance,
        how=how,
        refused=refused,
    )
    return proof, wanted


def _in_batches(answer: Answer, rows: Arrays, count: int, size: int) -> Arrays:
    parts = [answer(_part(rows, start, min(start + size, count))) for start in range(0, count, size)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _part(arrays: Arrays, start: int, stop: int) -> Arrays:
    return {name: array[start:stop] for name, array in arrays.items()}


def _compare(
    wanted: Arrays, given: Arrays, rows: Arrays, tolerance: float, batch: int | None = None
) -> tuple[float, float, float]:
    """Largest absolute and relative difference of the numbers, share of equal labels. Raises ParityFailed."""
    max_abs = max_rel = 0.0
    exact = [name for name in wanted if name == "label" or wanted[name].dtype.kind != "f"]
    for name in (n for n in wanted if n not in exact):
        a, b = _alike(name, wanted[name], given[name])
        apart = _apart(a, b)
        excess = apart / np.maximum(1.0, np.nan_to_num(np.abs(a), nan=1.0, posinf=1.0))
        if excess.max(initial=0.0) > tolerance:
            raise _failure(name, (a, b), excess, rows, tolerance=tolerance, batch=batch)
        max_abs = max(max_abs, float(apart[np.abs(a) <= LARGE].max(initial=0.0)))
        # A share of next to nothing says nothing.
        sized = np.abs(a) >= tolerance
        max_rel = max(max_rel, float((apart[sized] / np.abs(a[sized])).max(initial=0.0)))
    agreement = 1.0
    for name in exact:
        a, b = _alike(name, wanted[name], given[name])
        other = (a != b).astype(np.float64)
        if name == "label":
            other[_undecided(wanted, tolerance)] = 0.0
            agreement = float(np.mean(a == b))
        if other.any():
            raise _failure(name, (a, b), other, rows, tolerance=0.0, batch=batch)
    return max_abs, max_rel, agreement


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


def _undecided(wanted: Arrays, tolerance: float) -> NDArray[np.bool_]:
    """Rows where the original's label hangs on less than the tolerance: two classes alike, or a score at its limit."""
    undecided = np.zeros(len(wanted["label"]), dtype=np.bool_)
    if "probability" in wanted and wanted["probability"].shape[1] > 1:
        top = np.sort(wanted["probability"], axis=1)[:, -2:]
        undecided = top[:, 1] - top[:, 0] <= tolerance
    elif "score" in wanted:
        undecided = np.abs(wanted["score"]) <= tolerance
    return undecided


def _failure(
    name: str,
    answers: tuple[NDArray[Any], NDArray[Any]],
    excess: NDArray[np.float64],
    rows: Arrays,
    *,
    tolerance: float,
    batch: int | None,
) -> ParityFailed:
    wanted, given = answers
    by_row = excess.reshape(len(excess), -1)
    row = int(by_row.max(axis=1).argmax())
    count = int((by_row > tolerance).any(axis=1).sum())
    values = [f"{column} = {_short(array[row])}" for column, array in rows.items()]
    shown = ", ".join(values[:SHOWN_COLUMNS]) + (", ..." if len(values) > SHOWN_COLUMNS else "")
    apart = "" if tolerance == 0 else f" (largest difference {by_row.max():.3g}, allowed {tolerance:.3g})"
    asked = f", asked {batch} at a time" if batch else ""
    todo = (
        "Train so that no two classes lie this close, or deploy another version"
        if tolerance == 0
        else "If that difference is harmless, raise tolerance in [parity] of function.toml; else deploy another version"
    )
    return ParityFailed(
        f"The converted model does not give the original's answers: on {count} of {len(by_row)} rows{asked} the output "
        f"{name} differs{apart}. At row {row} ({shown}) the original gives {_plain(wanted[row])}, the converted one "
        f"{_plain(given[row])}. {todo}."
    )


def _short(value: Any) -> str:
    text = repr(value.item() if hasattr(value, "item") else value)
    return text if len(text) <= SHOWN_TEXT else f"{text[:SHOWN_TEXT]}..."


def _plain(answer: Any) -> str:
    value: Sequence[Any] | Any = answer.tolist() if hasattr(answer, "tolist") else answer
    return repr(value)
