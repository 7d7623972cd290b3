"""Ranking: candidates become rows of the model run, and its rows one answer a record."""

from typing import Any

import numpy as np
import pytest
from tests.unit.test_pipeline import NOW

from sunup.batch.rank import Ranking
from sunup.errors import BadRequest, FeaturesMissing
from sunup.limits import CANDIDATES_MAX, RANK_ROWS_MAX
from sunup.types import Call, Field, Reply, Timings

USER, CARDS = Field("amount", "float64"), Field("cards", "int64[]", (-1,))


def ranking(top: int = 3, *, retrieves: bool = False) -> Ranking:
    return Ranking((USER, CARDS), listed="cards", item="card_id", by="score", top=top, retrieves=retrieves)


def asked(*rows: Any, single: bool = False, **more: Any) -> Call:
    return Call(id="r1", rows=rows, count=len(rows), deadline=NOW + 10, single=single, **more)


def scored(expanded: Any, score: Any, **more: Any) -> Reply:
    kept = [row for row in range(len(expanded.call.rows)) if row not in more.get("failed", {})]
    fields = {"failed": {}, "defaulted": None, "stale": None} | more
    return Reply(expanded.call, {"score": np.array(score)}, kept, timings=Timings(), **fields)


def test_each_candidate_is_a_row_once() -> None:
    expanded = ranking().expand(asked((1.0, [7, 3, 7, 9]), (2.0, [3])))
    assert expanded.call.rows == [(1.0, 7), (1.0, 3), (1.0, 9), (2.0, 3)]
    assert (expanded.call.count, list(expanded.ends), list(expanded.positions)) == (4, [3, 4], [0, 1])
    assert not expanded.failed


def test_best_first_ties_as_sent_missing_last_and_cut() -> None:
    rank = ranking(top=4)
    call = asked((1.0, [1, 2, 3, 4, 5]), (1.0, [6, 7]))
    expanded = rank.expand(call)
    reply = rank.regroup(call, expanded, scored(expanded, [0.5, np.nan, 0.9, 0.5, -np.inf, np.nan, 0.1]))
    assert reply.columns["card_id"] == [[3, 1, 4, 5], [7, 6]]
    assert str(reply.columns["score"]) == "[[0.9, 0.5, 0.5, -inf], [0.1, nan]]"
    assert list(reply.positions) == [0, 1]


def test_whole_numbers_sort_without_overflow() -> None:
    rank = ranking(top=3)
    call = asked((1.0, [1, 2, 3]))
    expanded = rank.expand(call)
    numbers = np.array([-(2**63), 2**63 - 1, 2**63 - 2])
    assert rank.regroup(call, expanded, scored(expanded, numbers)).columns["card_id"] == [[2, 3, 1]]


def test_a_record_without_candidates_or_with_too_many_fails_alone() -> None:
    call = asked((1.0, []), (1.0, None), (1.0, list(range(CANDIDATES_MAX + 1))), (1.0, [4]), (1.0, float("nan")))
    rank = ranking()
    expanded = rank.expand(call)
    assert expanded.call.rows == [(1.0, 4)]
    codes = {position: error.code for position, error in expanded.failed.items()}
    assert codes == {0: "no_candidates", 1: "no_candidates", 2: "too_many_candidates", 4: "no_candidates"}
    assert str(CANDIDATES_MAX) in expanded.failed[2].message
    reply = rank.regroup(call, expanded, scored(expanded, [0.5]))
    assert (list(reply.positions), set(reply.failed)) == ([3], {0, 1, 2, 4})
    with pytest.raises(BadRequest, match="no retrieval"):
        rank.regroup(lonely := asked((1.0, []), single=True), got := rank.expand(lonely), scored(got, []))


def test_a_call_of_too_many_rows_is_refused() -> None:
    record = (1.0, list(range(CANDIDATES_MAX)))
    ranking().expand(asked(*[record] * (RANK_ROWS_MAX // CANDIDATES_MAX)))
    with pytest.raises(BadRequest, match=str(RANK_ROWS_MAX)):
        ranking().expand(asked(*[record] * (RANK_ROWS_MAX // CANDIDATES_MAX + 1)))


def test_what_failed_at_decoding_keeps_its_place() -> None:
    bad = BadRequest("x")
    call = Call(id="r", rows=[(1.0, [5]), (1.0, [6])], count=3, deadline=NOW, failed={1: bad})
    rank = ranking()
    expanded = rank.expand(call)
    reply = rank.regroup(call, expanded, scored(expanded, [0.1, 0.2]))
    assert (list(reply.positions), reply.failed) == ([0, 2], {1: bad})
    assert reply.columns["card_id"] == [[5], [6]]


def test_a_candidate_that_fails_takes_its_record_with_it() -> None:
    call = asked((1.0, [1, 2]), (1.0, [3, 4]), (1.0, [5]))
    rank = ranking()
    expanded = rank.expand(call)
    gone = FeaturesMissing("no")
    reply = rank.regroup(call, expanded, scored(expanded, [0.1, 0.3, 0.4, 0.5], failed={1: gone}))
    assert reply.failed == {0: gone}
    assert reply.columns == {"card_id": [[4, 3], [5]], "score": [[0.4, 0.3], [0.5]]}


def test_notes_are_those_of_the_returned_candidates() -> None:
    rank = ranking(top=2)
    call = asked((1.0, [1, 2, 3]), (1.0, [4]))
    expanded = rank.expand(call)
    notes = [("n",), ("n", "mean"), ("lost",), ()]
    reply = rank.regroup(call, expanded, scored(expanded, [0.2, 0.9, 0.1, 0.5], defaulted=notes))
    assert reply.defaulted == [("n", "mean"), ()]
    assert reply.stale is None
