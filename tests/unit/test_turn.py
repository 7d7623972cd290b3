"""Calls that share a run because their features came in one turn of the loop."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import numpy as np

from sunup.batch.respond import reply
from sunup.batch.turn import Begun, Turn
from sunup.clock import ManualClock
from sunup.errors import BadRequest, CallError, DeadlineExceeded, ExecutionFailed
from sunup.types import Call, Column, Features, Reply, Row, Timings

Failed = Mapping[int, CallError]
NONE: Failed = {}


class Reading:
    """What a lookup gives for a read under way."""

    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Bench:
    """A turn over a model that doubles the first feature, -1 spoiling its run, and what was told."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.runs: list[list[Row]] = []
        self.seen: list[Features] = []
        self.told: dict[str, Reply | Exception] = {}
        self.turn = Turn(
            self._run,
            rows_max=4,
            empty={"twice": []},
            failed=lambda call, error: ExecutionFailed(f"{call.id}: {error}"),
            observe=self.seen.append,
            made=reply,
            clock=self.clock,
        )

    def _run(self, rows: Sequence[Row], timings: Timings) -> Mapping[str, Column]:
        self.runs.append(list(rows))
        if any(row[-1] == -1 for row in rows):
            raise ZeroDivisionError("a row the model cannot take")
        timings.execute = 0.5
        return {"twice": np.array([2 * row[-1] for row in rows])}

    def begin(self, id: str, *values: float, deadline: float = 10.0, failed: Failed = NONE) -> Begun:
        """A call of one row per value; its features, the values, come at once."""
        begun = self.reading(id, rows=len(values), deadline=deadline)
        begun.found(Features([(value,) for value in values], failed=failed))
        return begun

    def reading(self, id: str, *, rows: int = 1, deadline: float = 10.0) -> Begun:
        """A call whose features are on their way."""
        call = Call(id=id, rows=[("row",)] * rows, count=rows, deadline=deadline, single=rows == 1)
        begun = Begun(self.turn, call, lambda said: self.told.update({id: said}))
        begun.reading = Reading()
        return begun

    def twice(self) -> dict[str, Any]:
        """What was told: numbers of a reply, the type of an error."""
        return {
            id: np.asarray(said.columns["twice"]).tolist() if isinstance(said, Reply) else type(said)
            for id, said in self.told.items()
        }


def bench(test: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        await test(Bench())

    asyncio.run(run())


def test_calls_of_one_turn_share_a_run_and_get_their_own_rows() -> None:
    async def run(b: Bench) -> None:
        b.begin("a", 1)
        b.begin("b", 2, 3)
        assert b.told == {}
        await asyncio.sleep(0)
        assert b.runs == [[("row", 1), ("row", 2), ("row", 3)]]
        assert b.twice() == {"a": [2], "b": [4, 6]}
        b.begin("c", 4)
        await asyncio.sleep(0)
        assert b.twice()["c"] == [8]
        assert (len(b.runs), len(b.seen)) == (2, 3)
        said = b.told["b"]
        assert isinstance(said, Reply)
        assert (said.timings.execute, said.timings.lookup > 0, said.timings.batch > 0) == (0.5, True, True)

    bench(run)


def test_a_run_is_no_longer_than_one_call_may_be() -> None:
    async def run(b: Bench) -> None:
        b.begin("a", 1, 2)
        b.begin("b", 3, 4)
        b.begin("c", 5)
        b.begin("d", *range(6))
        b.begin("e", 6)
        await asyncio.sleep(0)
        assert [len(rows) for rows in b.runs] == [4, 1, 6, 1]
        assert b.twice()["d"] == [0, 2, 4, 6, 8, 10]
        assert list(b.told) == ["a", "b", "c", "d", "e"]

    bench(run)


def test_a_call_that_spoils_the_run_fails_alone() -> None:
    async def run(b: Bench) -> None:
        b.begin("a", 1)
        b.begin("b", -1)
        b.begin("c", 3)
        await asyncio.sleep(0)
        assert b.twice() == {"a": [2], "b": ExecutionFailed, "c": [6]}

    bench(run)


def test_who_is_late_is_told_and_not_run() -> None:
    async def run(b: Bench) -> None:
        b.begin("a", 1, deadline=5.0)
        b.begin("b", 2, deadline=5.1)
        b.clock.advance(5.0 - b.clock.now())
        await asyncio.sleep(0)
        assert b.runs == [[("row", 2)]]
        assert b.twice() == {"a": DeadlineExceeded, "b": [4]}
        b.begin("c", 1, deadline=5.0)
        await asyncio.sleep(0)
        assert (b.twice()["c"], len(b.runs)) == (DeadlineExceeded, 1)

    bench(run)


def test_who_left_is_neither_run_nor_told() -> None:
    async def run(b: Bench) -> None:
        gone = b.reading("a")
        gone.cancel()
        assert isinstance(gone.reading, Reading)
        assert gone.reading.cancelled
        gone.found(Features([(1,)]))
        b.begin("b", 1).cancel()
        b.begin("c", 3)
        await asyncio.sleep(0)
        assert (b.runs, b.twice()) == ([[("row", 3)]], {"c": [6]})
        assert "over" in repr(gone)

    bench(run)


def test_a_record_without_features_is_not_run() -> None:
    async def run(b: Bench) -> None:
        wrong = BadRequest("no such key")
        b.begin("a", 1, failed={0: wrong})
        b.begin("b", 1, 2, failed={0: wrong, 1: wrong})
        b.begin("c", 1, 2, failed={1: wrong})
        b.reading("d").found(ZeroDivisionError())
        assert b.told == {}
        await asyncio.sleep(0)
        assert b.runs == [[("row", 1)]]
        assert b.twice() == {"a": BadRequest, "b": [], "c": [2], "d": ZeroDivisionError}

    bench(run)


def test_one_that_cannot_be_told_takes_no_other_with_it() -> None:
    async def run(b: Bench) -> None:
        said: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))

        def broken(_: Reply | Exception) -> None:
            raise ZeroDivisionError

        Begun(b.turn, Call(id="a", rows=[("row",)], count=1, deadline=10.0), broken).found(Features([(1,)]))
        b.begin("b", 2)
        await asyncio.sleep(0)
        assert b.twice() == {"b": [4]}
        assert [type(context["exception"]) for context in said] == [ZeroDivisionError]

    bench(run)
