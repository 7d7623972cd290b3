"""How old a request may be that a busy loop found, and what a handler makes of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.small_bundle import logistic, make_bundle
from tests.unit.working import RECORD, Worker

from sunup.bundle.manifest import Limits
from sunup.clock import ManualClock
from sunup.execute.executor import Executor
from sunup.serve.http.message import Request, Response
from sunup.serve.http.turns import Turns

ROWS = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])


def test_what_wakes_a_sleeping_loop_has_just_come() -> None:
    turns = Turns()
    assert turns.earliest(5.0) == 5.0
    turns.worked = 5.001
    assert turns.earliest(7.0) == 7.0
    assert "7.000" in repr(turns)


def test_what_a_busy_loop_finds_may_have_come_right_after_the_poll_before() -> None:
    turns = Turns()
    turns.earliest(5.0)
    turns.worked = 5.3
    assert turns.earliest(5.3) == 5.0
    turns.worked = 5.4
    assert turns.earliest(5.3) == 5.0  # the same turn
    turns.worked = 5.6
    assert turns.earliest(5.6) == 5.3
    turns.worked = 5.7
    assert turns.earliest(5.9) == 5.9  # it slept


def test_what_the_door_held_is_as_old_as_it_says() -> None:
    turns = Turns()
    turns.earliest(5.0)
    assert turns.earliest(3.0) == 3.0
    assert turns.earliest(5.0) == 5.0


def asked(worker: Worker, since: float) -> Response:
    answer = worker.handler.handle(Request(b"POST", b"/functions/score", [], RECORD, since))
    assert isinstance(answer, Response)
    return answer


def test_time_that_a_call_waited_is_part_of_its_limit(tmp_path: Path) -> None:
    digest = make_bundle(tmp_path, logistic(3), ROWS, limits=Limits(timeout_s=2.0))
    clock = ManualClock(100.0)
    worker = Worker(tmp_path / digest, tmp_path, clock=clock)
    assert asked(worker, 98.5).status == 200
    late = asked(worker, 97.5)
    assert (late.status, b"deadline_exceeded" in late.body) == (503, True)
    assert (b"retry-after", b"1") in late.headers


class Slow:
    """An executor whose runs take ten milliseconds of a clock's time."""

    def __init__(self, known: Executor, clock: ManualClock) -> None:
        self.inputs, self.outputs = known.inputs, known.outputs
        self._known = known
        self._clock = clock

    def run(self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[Any]]:
        self._clock.advance(0.01)
        return self._known.run(feeds, outputs)

    def close(self) -> None:
        self._known.close()


def test_a_saturated_loop_answers_what_it_can_in_time_and_refuses_the_rest(tmp_path: Path) -> None:
    """Runs of 10 ms and a limit of 55 ms, on a timeline: every turn finds 12 calls, the oldest as old as the turn."""
    digest = make_bundle(tmp_path, logistic(3), ROWS, limits=Limits(timeout_s=0.055))
    clock = ManualClock(100.0)
    worker = Worker(tmp_path / digest, tmp_path, clock=clock, executor=lambda known: Slow(known, clock))
    answered, before = [], 100.0
    for _ in range(20):
        polled = clock.now()
        statuses = []
        for _ in range(12):
            statuses.append(asked(worker, polled).status)
            assert statuses[-1] == 503 or clock.now() - before <= 0.055 + 0.01  # a run begun in time
        answered.append(statuses.count(200))
        if not answered[-1]:
            clock.advance(0.001)  # refusing takes time, too
        before = polled
    assert sum(answered) * 0.01 > 0.9 * (clock.now() - 100.0)  # busy with answers
