"""Revisions change under constant load, by deploy and by rollback: every call is answered, rightly for its revision."""

import http.client
import threading
import time
from types import TracebackType
from typing import Self

from tests.engine_fixture import Answer, Engine, until

ROLLBACK_SECONDS_MAX = 0.1  # the engine's part, to a bundle it still knows; a busy test machine gets three times that


class Load:
    """Callers of `times`, half of them on connections they keep, until the end of the `with`. `answers`: (x, answer);
    `failed`: calls that got none."""

    def __init__(self, engine: Engine, callers: int = 4) -> None:
        self._engine = engine
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(n % 2 == 0,)) for n in range(callers)]
        self.answers: list[tuple[float, Answer]] = []
        self.failed: list[Exception] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self, kept: bool) -> None:
        connection = self._engine.open() if kept else None
        x = 1.0
        while not self._stop.is_set():
            x += 1.0
            try:
                answer = self._engine.call("times", x, connection)
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(error)
                if connection is not None:
                    connection.close()
            else:
                self.answers.append((x, answer))
        if connection is not None:
            connection.close()

    def check(self, factors: dict[int, float], at_least: int = 100) -> None:
        """Every call was answered with 200, as the revision that answered it says."""
        assert self.failed == []
        assert [answer for _, answer in self.answers if answer.status != 200] == []
        wrong = [(x, one) for x, one in self.answers if one.y != x * factors[one.json["revision"]]]
        assert wrong == []
        assert len(self.answers) > at_least

    def revisions(self) -> set[int]:
        """Those that answered."""
        return {answer.json["revision"] for _, answer in self.answers}


def test_a_new_revision_takes_over_without_losing_a_call(engine: Engine) -> None:
    factors = {number: float(number) for number in range(1, 9)}
    engine.serve("times", factors[1])
    with Load(engine) as load:
        for number in list(factors)[1:]:
            assert engine.serve("times", factors[number])["revision"] == number
            before = len(load.answers)
            assert engine.call("times", 1.0).y == factors[number], "a call after deploy returned got the old revision"
            until(lambda before=before: len(load.answers) > before + 8, "calls in between")  # type: ignore[misc]
    load.check(factors)
    assert load.revisions() == set(factors)


def test_rollback_under_load_is_fast_and_loses_nothing(engine: Engine) -> None:
    factors = {1: 2.0, 2: 3.0}
    for factor in factors.values():
        engine.serve("times", factor)
    spent, seen = [], []
    with Load(engine, callers=2) as load:
        for turn in range(6):
            until(lambda: len(load.answers) > 20, "load")
            begun = time.perf_counter()
            result = engine.rollback("times", 1 + turn % 2)
            seen.append(time.perf_counter() - begun)
            spent.append(result["seconds"]["total"])
            assert engine.call("times", 1.0).y == factors[result["revision"]]
    load.check(factors)
    assert load.revisions() == {1, 2}
    print("rollback under load, ms in the engine:", *(f"{1000 * s:.0f}" for s in sorted(spent)), end="; ")
    print("as its caller sees it:", *(f"{1000 * s:.0f}" for s in sorted(seen)))
    assert sorted(spent)[len(spent) // 2] < 3 * ROLLBACK_SECONDS_MAX
