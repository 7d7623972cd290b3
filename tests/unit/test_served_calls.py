"""What the pipeline gives the served-feature log: every row the model saw, behind every kind of call."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.test_pipeline import NOW, WALL, call, plan, record, stored
from tests.unit.test_pipeline import REQUEST as FIELDS
from tests.unit.test_pipeline import function as plain_function
from tests.unit.test_rank_calls import ranked_function

from sunup.batch.assemble import Ready
from sunup.bundle.manifest import LogSpec
from sunup.clock import ManualClock
from sunup.errors import UsageError
from sunup.function import Function
from sunup.lookup.kinds.ages import AgedLookup
from sunup.pipeline import Pipeline
from sunup.serve.opening import served_log
from sunup.serve.recording.served import ServedLog
from sunup.served.schema import LEADING, NOTES
from sunup.types import Call, Field


class Kept:
    """A log in memory."""

    def __init__(self) -> None:
        self.noted: list[tuple[Call, Ready, dict[str, Any]]] = []

    def note(self, call: Call, ready: Ready, columns: Any) -> None:
        self.noted.append((call, ready, dict(columns)))

    def close(self) -> None:
        """Nothing waits."""


def logging(function: Function, *, on_missing: str = "default") -> tuple[Pipeline, Kept]:
    """Its pipeline with ages kept, and what it notes."""
    read_plan, kept = plan(on_missing=on_missing), Kept()
    assert function.lookup is not None
    cards = {1: (3, 0.5), 2: (1, 9.0), 3: (9, 0.0)}
    lookup = AgedLookup(read_plan, stored(read_plan, cards, at=WALL - 8), function.manifest.rows)
    clock = ManualClock(now=NOW, wall=WALL)
    pipeline = Pipeline(replace(function, lookup=lookup), clock=clock)
    pipeline.log = kept
    return pipeline, kept


def test_every_answered_row_is_noted_with_its_ages() -> None:
    pipeline, kept = logging(plain_function())
    reply = pipeline.answer_now(call(record(1, 0.5), record(77, 1.5)))
    ((noted, ready, columns),) = kept.noted
    assert noted.id == "r1"
    assert ready.rows[0] == (1, 0.5, 3, 0.5)
    assert ready.ages == [(8.0,), (None,)]
    assert ready.defaulted == [(), ("n", "mean")]
    assert columns["score"] is reply.columns["score"]


def test_one_row_is_noted_likewise() -> None:
    pipeline, kept = logging(plain_function())
    pipeline.answer_now(call(record(2, 0.5), single=True))
    ((_, ready, _),) = kept.noted
    assert (ready.rows, ready.ages) == ([(2, 0.5, 1, 9.0)], [(8.0,)])


def test_all_response_fields_are_noted_whatever_is_wanted() -> None:
    pipeline, kept = logging(plain_function())
    reply = pipeline.answer_now(msgspec.structs.replace(call(record(1, 0.5)), wanted=("decision",)))
    assert list(reply.columns) == ["decision"]
    assert list(kept.noted[0][2]) == ["score", "decision"]


def test_a_record_without_an_answer_is_not_noted() -> None:
    pipeline, kept = logging(plain_function(), on_missing="reject")
    pipeline.answer_now(call(record(77, 0.5), record(1, 0.5), {"card_id": "x"}))
    ((_, ready, _),) = kept.noted
    assert (ready.positions, [row[0] for row in ready.rows], ready.ages) == ([1], [1], [(8.0,)])
    with pytest.raises(Exception, match="no usable value"):
        pipeline.answer_now(call(record(77, 0.5), single=True))
    pipeline.answer_now(call(record(77, 0.5)))
    assert len(kept.noted) == 1


def test_a_key_that_cannot_be_made_has_no_age() -> None:
    pipeline, kept = logging(plain_function())
    pipeline.answer_now(call(record(2**63 - 1, 0.5), record(1, 0.5)))
    assert kept.noted[0][1].ages == [(None,), (8.0,)]
    assert pipeline._lookup is not None
    found = pipeline._lookup.read_now([("x", 0.5)], now=NOW, wall=WALL)
    assert (found.row_ages, list(found.failed)) == ([(None,)], [0])


def test_every_candidate_is_noted_under_its_record() -> None:
    pipeline, kept = logging(ranked_function())
    rows = [(0.5, [2, 1, 3]), (0.25, [3]), (0.25, [])]
    asked = Call(id="r9", rows=rows, count=3, deadline=NOW + 10)
    asyncio.run(pipeline.answer(asked))
    ((noted, ready, columns),) = kept.noted
    assert list(noted.origins) == [("r9", 0), ("r9", 0), ("r9", 0), ("r9", 1)]
    assert [row[:2] for row in ready.rows] == [(0.5, 2), (0.5, 1), (0.5, 3), (0.25, 3)]
    assert len(columns["score"]) == 4


def test_candidates_of_a_topics_records_keep_the_records_ids() -> None:
    pipeline, kept = logging(ranked_function())
    origins = [("t-0-1", 0), ("t-0-2", 0), ("t-0-3", 0)]
    asked = Call(id="t-0-1", rows=[(0.5, []), (0.5, [2, 1]), (1.0, [3])], count=3, deadline=NOW + 10, origins=origins)
    asyncio.run(pipeline.answer(asked))
    assert list(kept.noted[0][0].origins) == [("t-0-2", 0), ("t-0-2", 0), ("t-0-3", 0)]


def test_the_columns_of_a_function_and_a_name_that_clashes(tmp_path: Path) -> None:
    made = plain_function()
    spec = {"run": str(tmp_path / ".sunup" / "run"), "revision": 3, "function": "fraud", "digest": "a" * 64}
    assert served_log(spec, made, print) is None
    made = replace(made, manifest=msgspec.structs.replace(made.manifest, log=LogSpec("served")))
    log = served_log(spec, made, print)
    assert isinstance(log, ServedLog)
    heading = log._spool.heading
    names = [field.name for field in heading.columns]
    fixed = [[field.name for field in part] for part in (LEADING, NOTES)]
    assert names == [
        *fixed[0], "card_id", "amount", "n", "mean", "card_stats__age_s", *fixed[1], "score", "decision"
    ]  # fmt: skip
    clashing = msgspec.structs.replace(made.manifest, request=(*FIELDS, Field("stale", "bool")))
    with pytest.raises(UsageError, match="'stale'"):
        served_log(spec, replace(made, manifest=clashing), print)


def test_calls_that_share_a_run_are_noted_each() -> None:
    pipeline, kept = logging(plain_function())
    assert pipeline._lookup is not None
    pipeline._lookup.inline = False  # as of a store across a network
    told: list[Any] = []

    async def run() -> None:
        calls = [msgspec.structs.replace(call(record(card, 0.5)), id=f"r{card}") for card in (1, 2)]
        for one in calls:
            assert pipeline.takes_soon(one)
            pipeline.begin(one, told.append)
        while len(told) < 2:
            await asyncio.sleep(0)

    asyncio.run(run())
    assert [noted.id for noted, _, _ in kept.noted] == ["r1", "r2"]
    assert [ready.ages for _, ready, _ in kept.noted] == [[(8.0,)], [(8.0,)]]
    assert [columns["score"].tolist() for _, _, columns in kept.noted] == [
        reply.columns["score"].tolist() for reply in told
    ]
