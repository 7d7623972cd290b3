# Longer than 300 lines: the stages of one path, and both ways through each.
"""The one path every prediction takes: on the stub model, with features in memory."""

import asyncio
import json
import logging
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from sunup.batch.assemble import Assembly
from sunup.batch.respond import Response
from sunup.bundle.manifest import Limits, Manifest, Model, Scale
from sunup.clock import ManualClock
from sunup.errors import DeadlineExceeded, ExecutionFailed, FeaturesMissing
from sunup.execute.stub import StubExecutor
from sunup.function import Cost, Function
from sunup.limits import BATCH_ROWS_MAX, INLINE_SECONDS_MAX
from sunup.lookup.join import Lookup
from sunup.lookup.keys import key_maker
from sunup.lookup.plan import Entity, Feature, JoinKey, ReadPlan, View, entity_columns
from sunup.lookup.stores.memory import MemoryStore
from sunup.observer import Unobserved
from sunup.pipeline import Pipeline
from sunup.types import Call, Decision, Features, Field, Reply, ResponseField, Tensor

REQUEST = (Field("card_id", "int64"), Field("amount", "float64"))
WEIGHTS = (0.5, 1.0, -1.0)
RESPONSE = (
    ResponseField("score", "float64", output="probability", column=1),
    ResponseField("decision", "string", decision=Decision("score", 0.5, "block", "allow")),
)
WALL = 1_700_000_000.0
NOW = 1e12  # a monotonic time no machine reaches: the memory store looks at the real clock, and must not see a deadline
DEAR = 1.0  # seconds: no model run this dear happens on the event loop


def plan(*, on_missing: Any = "default", n_default: int | None = 2) -> ReadPlan:
    features = (Feature("n", "n", "INT64", n_default), Feature("mean", "mean", "DOUBLE"))
    view = View("card_stats", "card_stats", None, 3600.0, features)
    entities = (Entity((JoinKey("card_id", "card_id", "INT64"),), (view,)),)
    return ReadPlan(1, "demo", 3, 20.0, on_missing, entities, entity_columns(entities))


def stored(read_plan: ReadPlan, cards: Mapping[int, tuple[int, float]], at: float = WALL) -> MemoryStore:
    store = MemoryStore(read_plan)
    make = key_maker(read_plan.entities[0].join_keys, {"card_id": 0})
    for card, (n, mean) in cards.items():
        store.put("card_stats", make((card,)), {"n": bytes([0x20, n]), "mean": b"\x29" + struct.pack("<d", mean)}, at)
    return store


class Recorder(StubExecutor):
    """The stub, keeping what it was asked; a NaN amount breaks it, and it can be made to lose rows."""

    def __init__(self) -> None:
        super().__init__(WEIGHTS)
        self.asked: list[tuple[list[list[float]], tuple[str, ...]]] = []
        self.short = False

    def run(self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[Any]]:
        self.asked.append((feeds["input"].tolist(), tuple(outputs)))
        if np.isnan(feeds["input"][:, 0]).any():
            raise RuntimeError("secret detail")
        return [output[1:] if self.short else output for output in super().run(feeds, outputs)]


def manifest(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "format": 1,
        "sunup": "0.1.0",
        "function": "fraud",
        "model": Model("fraud", "3", "run", "lightgbm"),
        "request": REQUEST,
        "inputs": (Tensor("input", "float64", (-1, 3), ("amount", "n", "mean")),),
        "outputs": (Tensor("label", "int64", (-1,)), Tensor("probability", "float64", (-1, 2))),
        "response": RESPONSE,
        "tolerance": 1e-5,
        "scale": Scale(),
        "limits": Limits(),
        "example": {"card_id": 1, "amount": 1.0},
        "files": {},
    }
    return Manifest(**(fields | changes))


def function(*, store: MemoryStore | None = None, read_plan: ReadPlan | None = None, seconds: float = 1e-5) -> Function:
    read_plan = read_plan or plan()
    store = store or stored(read_plan, {1: (3, 0.5), 2: (1, 9.0)})
    lookup = Lookup(read_plan, store, REQUEST)
    made = manifest()
    return Function(
        manifest=made,
        executor=Recorder(),
        lookup=lookup,
        assembly=Assembly(made.inputs, REQUEST + lookup.columns),
        response=Response(made.response),
        cost=Cost(8, seconds),
        timings={},
    )


def call(*records: object, deadline: float = NOW + 10, single: bool = False) -> Call:
    body = json.dumps(records[0] if single else records).encode()
    return function().record_codec(7).decode(body, id="r1", deadline=deadline)


def record(card: int, amount: float | None) -> dict[str, Any]:
    return {"card_id": card, "amount": amount}


def scores(rows: list[list[float]]) -> Any:
    return (1 / (1 + np.exp(-(np.array(rows) @ np.array(WEIGHTS))))).tolist()


Answer = Callable[[Function, Call], Reply]


def answer_now(made: Function, one: Call) -> Reply:
    pipeline = Pipeline(made, clock=ManualClock(NOW, wall=WALL))
    assert pipeline.inline
    return pipeline.answer_now(one)


def answer(made: Function, one: Call) -> Reply:
    async def run() -> Reply:
        pipeline = Pipeline(made, clock=ManualClock(NOW, wall=WALL))
        try:
            return await pipeline.answer(one)
        finally:
            await pipeline.aclose()

    return asyncio.run(run())


def answer_soon(made: Function, one: Call) -> Reply:
    async def run() -> Reply:
        pipeline = Pipeline(made, clock=ManualClock(NOW, wall=WALL))
        told = asyncio.get_running_loop().create_future()
        pipeline.begin(
            one, lambda said: told.set_exception(said) if isinstance(said, Exception) else told.set_result(said)
        )
        assert not told.done()
        try:
            reply: Reply = await told
        finally:
            await pipeline.aclose()
        return reply

    return asyncio.run(run())


def answer_on_thread(made: Function, one: Call) -> Reply:
    return answer(replace(made, cost=Cost(8, DEAR)), one)


@pytest.fixture(params=[answer_now, answer, answer_soon, answer_on_thread], ids=lambda way: way.__name__)
def way(request: pytest.FixtureRequest) -> Answer:
    """Every way through the pipeline must give the same answers."""
    chosen: Answer = request.param
    return chosen


def test_a_record_meets_its_features_and_the_model(way: Answer) -> None:
    made = function()
    reply = way(made, call(record(1, 2.0), single=True))
    assert made.executor.asked == [([[2.0, 3.0, 0.5]], ("probability",))]  # type: ignore[attr-defined]
    assert np.asarray(reply.columns["score"]).tolist() == scores([[2.0, 3.0, 0.5]])
    assert reply.columns["decision"] == ["block"]
    assert (list(reply.positions), reply.failed, reply.defaulted, reply.stale) == ([0], {}, None, None)
    assert reply.timings.lookup > 0
    assert reply.timings.batch > 0
    assert reply.timings.execute > 0


def test_order_is_kept_and_bad_records_fail_alone(way: Answer) -> None:
    one = call(record(1, 1.0), {"card_id": 1}, record(2, 2.0), 5, record(1, 3.0))
    reply = way(function(), one)
    assert list(reply.positions) == [0, 2, 4]
    assert set(reply.failed) == {1, 3}
    assert np.asarray(reply.columns["score"]).tolist() == scores([[1.0, 3.0, 0.5], [2.0, 1.0, 9.0], [3.0, 3.0, 0.5]])
    predictions = json.loads(function().record_codec(7).encode(reply))["predictions"]
    assert [("score" in p, "error" in p) for p in predictions] == [
        (True, False), (False, True), (True, False), (False, True), (True, False),
    ]  # fmt: skip


def test_defaults_are_used_and_told(way: Answer) -> None:
    reply = way(function(), call(record(1, 1.0), {"bad": 1}, record(99, 2.0)))
    assert reply.defaulted == [(), ("n", "mean")]
    score = np.asarray(reply.columns["score"]).tolist()
    assert score[0] == scores([[1.0, 3.0, 0.5]])[0]
    assert np.isnan(score[1])  # a float without a default is missing


def test_stale_features_are_told(way: Answer) -> None:
    made = function(store=stored(plan(), {1: (3, 0.5)}, at=WALL - 7200))
    assert way(made, call(record(1, 1.0))).stale == [("n", "mean")]


def test_rows_without_features_are_taken_out_of_the_run(way: Answer) -> None:
    strict = plan(on_missing="reject")
    made = function(read_plan=strict, store=stored(strict, {1: (3, 0.5)}))
    reply = way(made, call({"bad": 1}, record(99, 1.0), record(1, 2.0), record(98, 3.0)))
    assert list(reply.positions) == [2]
    assert sorted(reply.failed) == [0, 1, 3]
    assert isinstance(reply.failed[3], FeaturesMissing)
    assert made.executor.asked == [([[2.0, 3.0, 0.5]], ("probability",))]  # type: ignore[attr-defined]
    assert (reply.defaulted, reply.stale) in [(None, None), ([()], [()])]


def test_an_only_record_without_features_is_the_calls_error(way: Answer) -> None:
    strict = plan(on_missing="reject")
    made = function(read_plan=strict, store=stored(strict, {}))
    with pytest.raises(FeaturesMissing):
        way(made, call(record(1, 1.0), single=True))
    assert made.executor.asked == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("records", [(), ({"bad": 1}, 5)])
def test_no_rows_no_run(way: Answer, records: tuple[object, ...]) -> None:
    made = function()
    reply = way(made, call(*records))
    assert made.executor.asked == []  # type: ignore[attr-defined]
    assert (len(reply.failed), dict(reply.columns)) == (len(records), {"score": [], "decision": []})


def test_time_that_is_up_is_told_before_the_model_runs(way: Answer) -> None:
    made = function()
    with pytest.raises(DeadlineExceeded):
        way(made, call(record(1, 1.0), deadline=NOW))
    assert made.executor.asked == []  # type: ignore[attr-defined]


def test_a_failed_run_is_logged_and_told_without_its_detail(way: Answer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(ExecutionFailed) as caught:
        way(function(), call(record(1, None)))
    assert "r1" in caught.value.message
    assert "secret" not in caught.value.message
    (logged,) = caplog.records
    assert logged.id == "r1"  # type: ignore[attr-defined]
    assert "secret detail" in caplog.text


def test_outputs_that_lost_a_row_are_never_an_answer(way: Answer) -> None:
    made = function()
    made.executor.short = True  # type: ignore[attr-defined]
    with pytest.raises(ExecutionFailed):
        way(made, call(record(1, 1.0), record(2, 1.0)))


def test_a_store_that_must_be_awaited_is_awaited() -> None:
    store = stored(plan(), {1: (3, 0.5)})
    store.inline = False
    made = function(store=store)
    pipeline = Pipeline(made)
    assert not pipeline.inline
    assert not pipeline.takes_now(call(record(1, 2.0)))
    assert pipeline.takes_soon(call(record(1, 2.0)))
    assert not pipeline.takes_soon(call())
    assert not pipeline.takes_soon(call(*[record(1, 2.0)] * 10_000))
    assert not Pipeline(function(store=store, seconds=DEAR)).takes_soon(call(record(1, 2.0)))
    reply = answer(made, call(record(1, 2.0), single=True))
    assert np.asarray(reply.columns["score"]).tolist() == scores([[2.0, 3.0, 0.5]])
    assert reply.timings.lookup > 0


def test_only_wanted_fields_are_given(way: Answer) -> None:
    one = msgspec.structs.replace(call(record(1, 1.0)), wanted=("decision",))
    assert dict(way(function(), one).columns) == {"decision": ["block"]}


def test_many_rows_run_in_slices(way: Answer) -> None:
    made = function()
    amounts = [float(n % 7) for n in range(2 * BATCH_ROWS_MAX + 10)]
    reply = way(made, call(*(record(1, amount) for amount in amounts)))
    assert [len(rows) for rows, _ in made.executor.asked] == [BATCH_ROWS_MAX, BATCH_ROWS_MAX, 10]  # type: ignore[attr-defined]
    assert np.asarray(reply.columns["score"]).tolist() == pytest.approx(scores([[a, 3.0, 0.5] for a in amounts]))


def test_calls_that_share_a_run_get_their_own_rows() -> None:
    async def run() -> None:
        made = function(seconds=DEAR)
        pipeline = Pipeline(made, clock=ManualClock(NOW, wall=WALL))
        calls = [call(*(record(1 + n % 2, float(n + k)) for k in range(n + 1))) for n in range(8)]
        replies = await asyncio.gather(*(pipeline.answer(one) for one in calls))
        for one, reply in zip(calls, replies, strict=True):
            features = {1: [3.0, 0.5], 2: [1.0, 9.0]}
            expected = scores([[amount, *features[card]] for card, amount in one.rows])
            assert np.asarray(reply.columns["score"]).tolist() == pytest.approx(expected)
        assert len(made.executor.asked) < len(calls)  # type: ignore[attr-defined]
        await pipeline.aclose()

    asyncio.run(run())


def test_one_call_that_breaks_the_model_fails_alone() -> None:
    async def run() -> None:
        pipeline = Pipeline(function(seconds=DEAR), clock=ManualClock(NOW, wall=WALL))
        calls = [call(record(1, amount)) for amount in (1.0, None, 3.0)]
        replies = await asyncio.gather(*(pipeline.answer(one) for one in calls), return_exceptions=True)
        assert [type(reply) for reply in replies] == [Reply, ExecutionFailed, Reply]
        await pipeline.aclose()

    asyncio.run(run())


def test_small_calls_are_taken_now_and_big_ones_are_not() -> None:
    cheap = Pipeline(function(seconds=INLINE_SECONDS_MAX / 4))
    assert cheap.inline
    assert cheap.takes_now(call(*[record(1, 1.0)] * 32))
    assert not cheap.takes_now(call(*[record(1, 1.0)] * 33))
    assert not Pipeline(function(seconds=INLINE_SECONDS_MAX * 2)).inline


class Watcher(Unobserved):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.found: list[Features] = []
        self.depths: list[int] = []

    def features(self, found: Features) -> None:
        self.found.append(found)

    def queued(self, calls: int) -> None:
        self.depths.append(calls)


def test_an_observer_is_told() -> None:
    async def run() -> None:
        watcher = Watcher()
        pipeline = Pipeline(function(seconds=DEAR), observer=watcher, clock=ManualClock(NOW, wall=WALL + 60))
        await pipeline.answer(call(record(1, 1.0)))
        assert [dict(found.ages) for found in watcher.found] == [{"card_stats": 60.0}]
        assert watcher.depths == [1, 0]
        assert "inline=False" in repr(pipeline)
        await pipeline.aclose()

    asyncio.run(run())
