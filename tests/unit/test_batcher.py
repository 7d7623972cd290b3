"""The batcher with a model that runs when the test says so."""

import asyncio
import queue
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sunup.batch.batcher import Batcher, Ran
from sunup.clock import ManualClock
from sunup.errors import DeadlineExceeded, Overloaded, Unavailable
from sunup.types import Row

Outputs = list[NDArray[Any]]


class ManualModel:
    """Doubles its rows' first value, one run each time `go` is called; -1 spoils the run it is in."""

    def __init__(self) -> None:
        self.runs: list[list[Row]] = []
        self.started: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._gate = threading.Semaphore(0)

    def __call__(self, rows: Sequence[Row]) -> Outputs:
        self.runs.append(list(rows))
        self.started.put(len(rows))
        assert self._gate.acquire(timeout=10)
        if any(row[0] == -1 for row in rows):
            raise ZeroDivisionError("a row the model cannot take")
        return [np.array([row[0] * 2 for row in rows])]

    def go(self, runs: int = 1) -> None:
        self._gate.release(runs)

    async def wait_started(self) -> int:
        return await asyncio.get_running_loop().run_in_executor(None, self.started.get)


class Bench:
    """A batcher, its model, its clock, and what it told of its depth."""

    def __init__(self, rows_max: int, queue_max: int) -> None:
        self.model = ManualModel()
        self.clock = ManualClock()
        self.depths: list[int] = []
        self.batcher = Batcher(
            self.model, rows_max=rows_max, queue_max=queue_max, clock=self.clock, on_depth=self.depths.append
        )

    def ask(self, *values: int, deadline: float = 10.0) -> asyncio.Task[Ran]:
        return asyncio.get_running_loop().create_task(self.batcher.submit([(value,) for value in values], deadline))


def bench(test: Callable[[Bench], Coroutine[Any, Any, None]], *, rows_max: int = 8, queue_max: int = 8) -> None:
    async def run() -> None:
        made = Bench(rows_max, queue_max)
        try:
            await asyncio.wait_for(test(made), 20)
        finally:
            made.model.go(1000)
            await made.batcher.aclose()

    asyncio.run(run())


def values(ran: Ran) -> list[int]:
    given: list[int] = ran.outputs[0].tolist()
    return given


def test_a_call_that_comes_to_an_idle_model_runs_at_once() -> None:
    async def test(bench: Bench) -> None:
        bench.model.go()
        ran = await bench.ask(3, 4)
        assert values(ran) == [6, 8]
        assert ran.took > 0
        assert "idle" in repr(bench.batcher)

    bench(test)


def test_calls_of_one_turn_of_the_loop_share_a_run() -> None:
    async def test(bench: Bench) -> None:
        calls = [bench.ask(n) for n in range(5)]
        bench.model.go()
        assert [values(ran) for ran in await asyncio.gather(*calls)] == [[n * 2] for n in range(5)]
        assert len(bench.model.runs) == 1

    bench(test)


def test_what_gathers_during_a_run_is_the_next_run() -> None:
    async def test(bench: Bench) -> None:
        first = bench.ask(1)
        await bench.model.wait_started()
        rest = [bench.ask(n, n) for n in (2, 3, 4)]
        await asyncio.sleep(0)
        assert "running, waiting=3" in repr(bench.batcher)
        bench.model.go(2)
        assert values(await first) == [2]
        assert [values(ran) for ran in await asyncio.gather(*rest)] == [[4, 4], [6, 6], [8, 8]]
        assert [len(rows) for rows in bench.model.runs] == [1, 6]
        assert bench.depths[-1] == 0
        assert max(bench.depths) == 3

    bench(test)


def test_runs_keep_to_the_row_limit_and_the_order() -> None:
    async def test(bench: Bench) -> None:
        calls = [bench.ask(n, n, n) for n in range(6)]
        bench.model.go(10)
        assert [values(ran) for ran in await asyncio.gather(*calls)] == [[n * 2] * 3 for n in range(6)]
        assert [len(rows) for rows in bench.model.runs] == [6, 6, 6]
        assert [row[0] for rows in bench.model.runs for row in rows] == [n for n in range(6) for _ in range(3)]

    bench(test)


def test_a_full_queue_refuses_now() -> None:
    async def test(bench: Bench) -> None:
        first = bench.ask(0)
        await bench.model.wait_started()
        waiting = [bench.ask(n) for n in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await bench.batcher.submit([(3,)], 10.0)
        bench.model.go(2)
        assert [values(ran) for ran in await asyncio.gather(first, *waiting)] == [[0], [2], [4]]

    bench(test, queue_max=2)


def test_a_call_whose_time_runs_out_in_the_queue_does_not_run() -> None:
    async def test(bench: Bench) -> None:
        first = bench.ask(1, deadline=10.0)
        await bench.model.wait_started()
        late, fine = bench.ask(2, deadline=5.0), bench.ask(3, deadline=9.0)
        await asyncio.sleep(0)
        bench.clock.advance(6.0)
        bench.model.go(2)
        with pytest.raises(DeadlineExceeded):
            await late
        assert values(await first) == [2]
        assert values(await fine) == [6]
        assert bench.model.runs == [[(1,)], [(3,)]]

    bench(test)


def test_a_wait_that_would_outlast_the_deadline_is_refused_at_once() -> None:
    async def test(bench: Bench) -> None:
        bench.model.go()
        took = (await bench.ask(1)).took  # now the batcher knows what a run costs
        await bench.model.wait_started()
        running = bench.ask(2)
        await bench.model.wait_started()
        with pytest.raises(Overloaded, match="longer"):
            await bench.batcher.submit([(3,)], bench.clock.now() + took / 2)
        bench.model.go()
        assert values(await running) == [4]

    bench(test)


def test_a_row_that_spoils_a_run_fails_alone() -> None:
    async def test(bench: Bench) -> None:
        calls = [bench.ask(n, 1) for n in (1, -1, 3)]
        bench.model.go(4)
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(results[1], ZeroDivisionError)
        assert [values(ran) for ran in (results[0], results[2]) if isinstance(ran, Ran)] == [[2, 2], [6, 2]]
        assert len(bench.model.runs) == 4

    bench(test)


def test_a_caller_that_went_away_costs_nothing() -> None:
    async def test(bench: Bench) -> None:
        first, gone = bench.ask(1), bench.ask(2)
        await bench.model.wait_started()
        waiting = bench.ask(3)
        await asyncio.sleep(0)
        gone.cancel()
        waiting.cancel()
        bench.model.go(1)
        assert values(await first) == [2]
        bench.model.go(1)
        assert values(await bench.ask(4)) == [8]
        assert bench.model.runs == [[(1,), (2,)], [(4,)]]

    bench(test)


def test_closing_refuses_what_waits_and_finishes_what_runs() -> None:
    async def test(bench: Bench) -> None:
        first = bench.ask(1)
        await bench.model.wait_started()
        waiting = bench.ask(2)
        await asyncio.sleep(0)
        closing = asyncio.create_task(bench.batcher.aclose())
        with pytest.raises(Unavailable):
            await waiting
        bench.model.go()
        assert values(await first) == [2]
        await closing
        with pytest.raises(Unavailable):
            await bench.batcher.submit([(3,)], 10.0)
        assert "closed" in repr(bench.batcher)

    bench(test)


def test_closing_an_idle_batcher_twice_is_nothing() -> None:
    async def test(bench: Bench) -> None:
        await bench.batcher.aclose()

    bench(test)
