"""Model outputs to named response columns, compiled once per function."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from sunup.batch.assemble import Ready
from sunup.types import Call, Column, Decision, Reply, ResponseField, Timings


class Response:
    """The response fields of a function. `outputs`: the model outputs they need, to be asked for in this order."""

    def __init__(self, fields: Sequence[ResponseField]) -> None:
        self._made = tuple(field for field in fields if field.decision is None)
        self._decided = tuple((field.name, field.decision) for field in fields if field.decision is not None)
        self.outputs: Final[tuple[str, ...]] = tuple(dict.fromkeys(field.output for field in self._made))
        self.empty: Final[dict[str, Column]] = {field.name: [] for field in fields}  # the reply to no rows
        self._place = {name: place for place, name in enumerate(self.outputs)}

    def __repr__(self) -> str:
        return f"Response({', '.join(self.outputs)} -> {', '.join(field.name for field in self._made)})"

    def columns(self, outputs: Sequence[NDArray[Any]]) -> dict[str, Column]:
        """Every response field's values, one per row. `outputs` are those of `self.outputs`, first dimension rows.

        A decision compares in float64 (Python's own float), as the caller would who reads the field from the reply.
        """
        columns: dict[str, Column] = {}
        for field in self._made:
            values = outputs[self._place[field.output]]
            if field.column is not None:
                values = values[:, field.column]
            elif not field.shape and values.ndim > 1:
                values = values.reshape(len(values))  # a regressor's [n, 1]
            columns[field.name] = values
        for name, decision in self._decided:
            columns[name] = _decide(decision, columns[decision.field])
        return columns


class Log(Protocol):
    """Where what was served is kept. Called on the event loop, behind the answer; must not wait, nor raise."""

    def note(self, call: Call, ready: Ready, columns: Mapping[str, Column]) -> None:
        """`columns`: every response field, wanted or not, aligned with `ready.rows`."""
        ...

    def close(self) -> None:
        """Nothing more comes. May wait."""
        ...


def reply(call: Call, ready: Ready, columns: Mapping[str, Column], timings: Timings) -> Reply:
    """The reply to a call, whose rows have these response columns."""
    if call.wanted:
        columns = {name: columns[name] for name in call.wanted}
    return Reply(call, columns, ready.positions, ready.failed, ready.defaulted, ready.stale, timings)


def split(outputs: Sequence[NDArray[Any]], sizes: Sequence[int]) -> list[list[NDArray[Any]]]:
    """The outputs of one run, cut into those of the calls that shared it (views, no copies)."""
    parts: list[list[NDArray[Any]]] = []
    start = 0
    for size in sizes:
        parts.append([output[start : start + size] for output in outputs])
        start += size
    return parts


def joined(parts: Sequence[list[NDArray[Any]]]) -> list[NDArray[Any]]:
    """The outputs of runs that share one call, put together again."""
    return parts[0] if len(parts) == 1 else [np.concatenate(same) for same in zip(*parts, strict=True)]


def _decide(decision: Decision, column: Column) -> Column:
    values = column.tolist() if isinstance(column, np.ndarray) else column
    return [decision.then if value > decision.above else decision.otherwise for value in values]
