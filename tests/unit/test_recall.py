"""[cache]: rows that were answered are answered again without a run, for their time; time is told, never slept."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sunup.batch.assemble import Assembly
from sunup.batch.handled import Handled
from sunup.batch.respond import Response
from sunup.bundle.manifest import Limits, Manifest, Model, Scale
from sunup.clock import ManualClock
from sunup.errors import ExecutionFailed
from sunup.function import Cost, Function
from sunup.limits import ANSWERS_PER_CALL_MAX
from sunup.observer import Unobserved
from sunup.pipeline import Pipeline
from sunup.types import CacheSpec, Call, Decision, Field, Reply, ResponseField, Row, Tensor

FIELDS = (Field("amount", "float64"), Field("age", "float64"), Field("town", "string"), Field("note", "string"))
INPUTS = (Tensor("numbers", "float64", (-1, 2), ("amount", "age")), Tensor("town", "string", (-1, 1), ("town",)))
RESPONSE = (
    ResponseField("score", "float64", output="score", column=0),
    ResponseField("name", "string", output="name"),
    ResponseField("decision", "string", decision=Decision("score", 10.0, "block", "allow")),
)
IDENTICAL = CacheSpec(identical_s=5.0)
SIMILAR = CacheSpec(similar_s=5.0, round={"amount": 1.0})
BOTH = CacheSpec(identical_s=5.0, similar_s=60.0, round={"amount": 1.0})


class Counting:
    """A model: score = amount + age, name = the town, upper case. -1 breaks it. Counts what it is asked."""

    inputs = outputs = ()

    def __init__(self) -> None:
        self.asked: list[list[float]] = []

    def run(self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[Any]]:
        numbers = feeds["numbers"]
        self.asked.append(numbers[:, 0].tolist())
        if (numbers[:, 0] == -1).any():
            raise RuntimeError("broken")
        made = {
            "score": numbers.sum(axis=1, keepdims=True),
            "name": np.array([town.upper() for town in feeds["town"][:, 0]], dtype=object),
        }
        return [made[name] for name in outputs]

    def close(self) -> None:
        """Nothing to give back."""


class Told(Unobserved):
    """Keeps what caches found."""

    def __init__(self) -> None:
        self.found: list[tuple[str, int, int]] = []

    def recalled(self, cache: str, looked: int, found: int) -> None:
        self.found.append((cache, looked, found))


class Case:
    """A pipeline over that model. `dear`: it runs on the batcher's thread."""

    def __init__(self, cache: CacheSpec | None, *, dear: bool = False, hooks: Any = None) -> None:
        manifest = Manifest(
            format=1, sunup="", function="f", model=Model("f", "1", "", "onnx"), request=FIELDS, inputs=INPUTS,
            outputs=(), response=RESPONSE, tolerance=0.0, scale=Scale(), limits=Limits(), example={}, files={},
            cache=cache,
        )  # fmt: skip
        self.model, self.clock, self.told = Counting(), ManualClock(), Told()
        handled = Handled(hooks, self.model.run, inputs=INPUTS, fields=FIELDS, outputs=RESPONSE[:2], given=None)
        self.function = Function(
            manifest=manifest, executor=self.model, lookup=None, assembly=Assembly(INPUTS, FIELDS),
            response=Response(RESPONSE), cost=Cost(1, 1.0 if dear else 1e-6), timings={},
            handled=handled if hooks else None,
        )  # fmt: skip
        self.pipeline = Pipeline(self.function, observer=self.told, clock=self.clock)

    def ask(self, *rows: Row, wanted: tuple[str, ...] = ()) -> Reply:
        one = Call("id", rows, len(rows), math.inf, wanted=wanted)
        if self.pipeline.takes_now(one):
            return self.pipeline.answer_now(one)
        return asyncio.run(self.pipeline.answer(one))

    def scores(self, *rows: Row) -> list[float]:
        return np.asarray(self.ask(*rows).columns["score"]).tolist()  # type: ignore[no-any-return]


def row(amount: float, age: float = 1.0, town: str = "oslo", note: str = "") -> Row:
    return (amount, age, town, note)


@pytest.fixture(params=[False, True], ids=["inline", "thread"])
def dear(request: pytest.FixtureRequest) -> bool:
    """Cheap models run on the loop, dear ones on a thread: a cache is the same for both."""
    return bool(request.param)


def test_an_identical_row_is_answered_without_a_run_for_its_time(dear: bool) -> None:
    case = Case(IDENTICAL, dear=dear)
    first = case.ask(row(2.0))
    assert first.timings.recalled is None
    case.clock.advance(4.9)
    again = case.ask(row(2.0))
    assert again.timings.recalled == "identical=1"
    assert again.timings.execute == 0.0
    for reply in (first, again):
        assert np.asarray(reply.columns["score"]).tolist() == [3.0]
        assert list(reply.columns["name"]) == ["OSLO"]
        assert reply.columns["decision"] == ["allow"]
    case.clock.advance(0.1)
    assert case.ask(row(2.0)).timings.recalled is None
    assert case.model.asked == [[2.0], [2.0]]
    assert case.told.found == [("identical", 1, 0), ("identical", 1, 1), ("identical", 1, 0)]


def test_only_what_the_model_takes_makes_a_row() -> None:
    case = Case(IDENTICAL)
    case.ask(row(2.0, note="a"))
    assert case.ask(row(2.0, note="b")).timings.recalled == "identical=1"
    for other in (row(2.5), row(2.0, age=2.0), row(2.0, town="rome"), row(-0.0), row(0.0)):
        assert case.ask(other).timings.recalled is None
    assert case.ask(row(-0.0)).timings.recalled == "identical=1"


def test_what_is_missing_is_like_what_is_missing() -> None:
    case = Case(IDENTICAL)
    case.ask(row(math.nan))
    again = case.ask(row(float("nan")))
    assert again.timings.recalled == "identical=1"
    assert np.isnan(np.asarray(again.columns["score"])).all()


def test_rows_of_one_call_are_known_one_by_one_and_run_once(dear: bool) -> None:
    case = Case(IDENTICAL, dear=dear)
    case.ask(row(1.0), row(2.0))
    reply = case.ask(row(5.0), row(2.0), row(6.0), row(5.0), row(1.0))
    assert np.asarray(reply.columns["score"]).tolist() == [6.0, 3.0, 7.0, 6.0, 2.0]
    assert list(reply.columns["name"]) == ["OSLO"] * 5
    assert reply.timings.recalled == "identical=3"
    assert case.model.asked == [[1.0, 2.0], [5.0, 6.0]]
    assert case.told.found[-1] == ("identical", 5, 3)
    assert case.scores(row(6.0), row(1.0)) == [7.0, 2.0]
    assert len(case.model.asked) == 2


def test_similar_rows_get_the_answer_of_the_first(dear: bool) -> None:
    case = Case(SIMILAR, dear=dear)
    assert case.scores(row(2.2)) == [3.2]
    reply = case.ask(row(1.6), row(2.4), row(2.6))
    assert np.asarray(reply.columns["score"]).tolist() == [3.2, 3.2, 3.6]
    assert reply.timings.recalled == "similar=2"
    assert case.ask(row(2.2, age=1.1)).timings.recalled is None  # a column that is not rounded
    assert case.scores(row(10.4), row(9.6)) == [11.4, 11.4]  # one after another in one call, too
    case.clock.advance(5.0)
    assert case.scores(row(1.6)) == [2.6]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300, -0.2, 2.0**60])
def test_any_number_can_be_rounded(value: float) -> None:
    case = Case(CacheSpec(similar_s=5.0, round={"amount": 0.001}))
    first = case.ask(row(value))
    again = case.ask(row(value))
    assert again.timings.recalled == "similar=1"
    assert repr(list(first.columns["score"])) == repr(list(again.columns["score"]))
    assert case.ask(row(1.0)).timings.recalled is None


def test_identical_comes_before_similar() -> None:
    case = Case(BOTH)
    assert case.scores(row(2.0), row(2.4)) == [3.0, 3.0]
    assert case.ask(row(2.0), row(2.4), row(2.3)).timings.recalled == "identical=1, similar=2"
    assert case.told.found[-2:] == [("identical", 3, 1), ("similar", 2, 2)]
    case.clock.advance(5.0)  # identical is over, similar is not
    assert case.ask(row(2.0)).timings.recalled == "similar=1"


def test_errors_are_never_kept(dear: bool, caplog: pytest.LogCaptureFixture) -> None:
    case = Case(IDENTICAL, dear=dear)
    for _ in range(2):
        with pytest.raises(ExecutionFailed):
            case.ask(row(-1.0))
    assert len(case.model.asked) == 2
    assert "broken" in caplog.text


def test_one_callers_choice_of_outputs_is_not_the_nexts() -> None:
    case = Case(IDENTICAL)
    assert dict(case.ask(row(2.0), wanted=("decision",)).columns) == {"decision": ["allow"]}
    assert set(case.ask(row(2.0)).columns) == {"score", "name", "decision"}
    assert len(case.model.asked) == 1


def test_without_the_table_nothing_is_kept() -> None:
    case = Case(None)
    case.ask(row(2.0))
    assert case.ask(row(2.0)).timings.recalled is None
    assert (len(case.model.asked), case.told.found) == (2, [])


def test_a_call_of_very_many_rows_runs_as_it_is() -> None:
    case = Case(IDENTICAL, dear=True)
    rows = [row(float(n % 3)) for n in range(ANSWERS_PER_CALL_MAX + 1)]
    for _ in range(2):
        assert case.scores(*rows) == [1.0 + n % 3 for n in range(len(rows))]
    assert sum(map(len, case.model.asked)) == 2 * len(rows)
    assert case.told.found == []


class Hooks:
    """preprocess sees every column and counts."""

    def __init__(self) -> None:
        self.seen: list[list[str]] = []

    def preprocess(self, columns: dict[str, NDArray[Any]], count: int) -> dict[str, NDArray[Any]]:  # noqa: ARG002
        self.seen.append(columns["note"].tolist())
        return {**columns, "amount": columns["amount"] * 2}

    def postprocess(self, *_: Any) -> dict[str, NDArray[Any]]:
        raise AssertionError("there is none")


def test_a_handlers_result_is_kept_and_its_row_is_all_of_it() -> None:
    hooks = Hooks()
    case = Case(IDENTICAL, hooks=hooks)
    assert case.scores(row(2.0, note="a")) == [5.0]
    assert case.scores(row(2.0, note="a")) == [5.0]
    assert case.scores(row(2.0, note="b")) == [5.0]
    assert hooks.seen == [["a"], ["b"]]
