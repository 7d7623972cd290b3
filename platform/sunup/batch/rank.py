"""Ranking: a record with a list of candidates becomes one row each for the model run, and one answer again behind it.

    (user, [7, 3, 9])  --expand-->  (user, 7), (user, 3), (user, 9)  --run-->  score per row
                       --regroup-->  {"item_id": [9, 7], "score": [0.9, 0.4]}     best first, cut to `top`

Pure: what is between the two is the pipeline's, the same as for any function. A candidate named twice is ranked once,
at its first place. A record whose list is empty or absent gets its candidates of a retrieval, if the function has one.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from sunup.errors import BadRequest, CallError
from sunup.limits import CANDIDATES_MAX, RANK_ROWS_MAX
from sunup.types import Call, Column, Field, GivenRows, Reply, Row

Notes = Sequence[tuple[str, ...]] | None


class Expanded(NamedTuple):
    """A call of candidates. `call`: one row per candidate, in the records' order; `ends[i]`: where record i's rows end,
    counted over the records that have any; `positions[i]`: that record's index in the original call; `failed`: why the
    others have none."""

    call: Call
    ends: Sequence[int]
    positions: Sequence[int]
    failed: dict[int, CallError]


class Ranking:
    """How the calls of one function are expanded and grouped again.

    `request`: its request fields; `listed`: the one that holds the candidates; `item`: what one of them is called in
    the reply; `by`: the response field to sort by; `top`: how many are returned at most; `retrieves`: whether a record
    may come without candidates.
    """

    def __init__(
        self, request: Sequence[Field], *, listed: str, item: str, by: str, top: int, retrieves: bool = False
    ) -> None:
        self._at = next(at for at, field in enumerate(request) if field.name == listed)
        self._listed, self._item, self._by, self._top = listed, item, by, top
        self._retrieves = retrieves

    def __repr__(self) -> str:
        return f"Ranking({self._listed} -> {self._item} by {self._by}, top {self._top})"

    def wanting(self, call: Call) -> list[int]:
        """Which rows of a call have no candidates and are to be given some; none for a function without retrieval."""
        if not self._retrieves:
            return []
        at = self._at
        return [place for place, row in enumerate(call.rows) if type(row[at]) is not list or not row[at]]

    def completed(self, call: Call, places: Sequence[int], found: NDArray[Any]) -> Call:
        """The call with candidates for the rows at `places`: found [len(places), k]."""
        rows, at = list(call.rows), self._at
        for place, items in zip(places, found.tolist(), strict=True):
            row = rows[place]
            rows[place] = (*row[:at], items, *row[at + 1 :])
        given = call.rows.given if isinstance(call.rows, GivenRows) else None
        return msgspec.structs.replace(call, rows=rows if given is None else GivenRows(rows, given))

    def expand(self, call: Call) -> Expanded:
        """One row per candidate. A record with none, or too many, fails alone. Raises BadRequest for a call that has
        more than RANK_ROWS_MAX of them. About 0.1 us a row.
        """
        at, failed = self._at, dict(call.failed)
        positions = range(call.count) if not failed else [i for i in range(call.count) if i not in failed]
        rows: list[Row] = []
        origins: list[tuple[str, int]] = []
        sizes: list[int] = []
        kept: list[int] = []
        source = call.rows if isinstance(call.rows, GivenRows) else None  # a candidate has what its record was given
        values: list[Row] = []
        for place, (position, row) in enumerate(zip(positions, call.rows, strict=True)):
            given = row[at]
            if type(given) is not list or not given:
                failed[position] = self._none_given()
            elif len(given) > CANDIDATES_MAX:
                failed[position] = self._too_many(len(given))
            else:
                before, behind = row[:at], row[at + 1 :]
                items = dict.fromkeys(given)
                rows += [(*before, one, *behind) for one in items]
                origins += [call.origins[place] if call.origins else (call.id, position)] * len(items)
                sizes.append(len(items))
                kept.append(position)
                if source is not None:
                    values += [source.given[place]] * len(items)
            if len(rows) > RANK_ROWS_MAX:
                raise BadRequest(
                    f"more than {RANK_ROWS_MAX} candidates in one call; send its records in several calls",
                    code="too_many_candidates",
                    field=self._listed,
                )
        expanded = msgspec.structs.replace(
            call,
            rows=rows if source is None else GivenRows(rows, values),
            count=len(rows),
            failed={},
            single=False,
            wanted=self._needed(call.wanted),
            origins=origins,
        )
        return Expanded(expanded, list(accumulate(sizes)), kept, failed)

    def regroup(self, call: Call, expanded: Expanded, reply: Reply) -> Reply:
        """The reply to `call`: per record the best `top` candidates, best first; equal ones in the order they were
        sent, those without a number last. `defaulted` and `stale` are those of the candidates returned.

        A record one of whose candidates failed (features missing, and function.toml says reject) fails with it.
        Raises the error of a call's only record.
        """
        failed = dict(expanded.failed)
        answered = _answered(expanded, reply, failed)
        if call.single and failed:
            raise failed[0]
        by = np.asarray(reply.columns[self._by]) if answered else np.empty(0)
        picks = [_best(by, rows, self._top) for _, rows in answered]
        items = [row[self._at] for row in expanded.call.rows] if not reply.failed else _items(expanded, reply, self._at)
        columns: dict[str, Column] = {self._item: [[items[row] for row in pick] for pick in picks]}
        for name, column in reply.columns.items():
            values = column.tolist() if isinstance(column, np.ndarray) else column
            columns[name] = [[values[row] for row in pick] for pick in picks]
        if call.wanted:
            columns = {name: columns[name] for name in call.wanted}
        return Reply(
            call,
            columns,
            [position for position, _ in answered],
            failed,
            _union(reply.defaulted, picks),
            _union(reply.stale, picks),
            reply.timings,
        )

    def _needed(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """The response fields to make: what callers want of them, and what is sorted by."""
        return tuple(dict.fromkeys((*(name for name in wanted if name != self._item), self._by))) if wanted else ()

    def _none_given(self) -> BadRequest:
        message = f"field {self._listed!r} holds no candidates, and the function has no retrieval that would name some"
        if self._retrieves:
            message = f"the function's retrieval names no candidates for this record; send {self._listed}"
        return BadRequest(message, code="no_candidates", field=self._listed)

    def _too_many(self, count: int) -> BadRequest:
        message = f"field {self._listed!r} holds {count} candidates; at most {CANDIDATES_MAX} are ranked for one record"
        return BadRequest(message, code="too_many_candidates", field=self._listed)


def _answered(expanded: Expanded, reply: Reply, failed: dict[int, CallError]) -> list[tuple[int, range]]:
    """Per answered record its position and its rows in the reply; what failed with a candidate goes into `failed`."""
    answered: list[tuple[int, range]] = []
    start = lost = 0  # lost: rows before that have no place in the reply's columns
    for position, end in zip(expanded.positions, expanded.ends, strict=True):
        errors = [error for row in range(start, end) if (error := reply.failed.get(row))] if reply.failed else []
        if errors:
            failed[position] = errors[0]
        else:
            answered.append((position, range(start - lost, end - lost)))
        lost += len(errors)
        start = end
    return answered


def _items(expanded: Expanded, reply: Reply, at: int) -> list[Any]:
    """The candidates of the answered rows."""
    return [expanded.call.rows[row][at] for row in reply.positions]


def _best(by: NDArray[Any], rows: range, top: int) -> list[int]:
    """The rows of one record to return, best first. Stable, NaN last."""
    values = by[rows.start : rows.stop]
    # Whole numbers are turned round by ~, which cannot overflow and tells apart what float64 would not.
    order = np.argsort(-values if values.dtype.kind == "f" else ~values, kind="stable")[:top]
    picked: list[int] = (order + rows.start).tolist()
    return picked


def _union(notes: Notes, picks: Sequence[Sequence[int]]) -> Notes:
    """Per record, every name once that is noted of one of its rows."""
    if notes is None or not any(notes):
        return None
    merged: list[tuple[str, ...]] = []
    for pick in picks:
        names: Mapping[str, None] = dict.fromkeys(name for row in pick for name in notes[row])
        merged.append(tuple(names))
    return merged
