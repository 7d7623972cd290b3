"""What the engine makes of the ends of stream workers, and of what is said of a stream."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_state import revision

from sunup.access.rights import Rights
from sunup.bundle.manifest import StreamSpec
from sunup.engine.local.state import Revision
from sunup.engine.local.streaming.record import WHOLE, Pause
from sunup.engine.local.streaming.stream import AT_ONCE, STEADY_SECONDS, Streaming
from sunup.engine.local.workers import Birth, BirthFailed, Life, Role, Worker, Workers
from sunup.limits import STREAM_STALL_SECONDS
from sunup.settings import STREAM_BROKER, Project

SPEC = StreamSpec(broker="a:1", input="in", output="out", max_workers=4)


def birth(of: Revision) -> Birth:
    return Birth(Role.STREAM, of.function, of.revision, of.digest, "", of.model, of.settings, False, None)


def in_loop(test: Callable[[], None]) -> None:
    """Workers belong to an event loop."""

    async def run() -> None:
        test()

    asyncio.run(run())


def streaming(**paused: Pause) -> Streaming:
    routed = revision(2)._replace(settings={STREAM_BROKER: "a:1"})
    made = Streaming(
        routed, SPEC, 5.0, {WHOLE if name == "whole" else int(name[1:]): one for name, one in paused.items()}
    )
    made.topic.see({0: (0, 10), 1: (0, 30_000), 2: (5, 5)}, 100.0)
    return made


def worker(name: str, born: float = 100.0, life: Life = Life.READY) -> Worker:
    made = Worker(name, 0, birth(revision(2)), born)
    made.life = life
    if life is not Life.STARTING:
        made.ready.set_result(None)
    return made


def test_a_worker_that_had_committed_something_is_replaced_at_once_whatever_ended_it() -> None:
    def test() -> None:
        stream = streaming()
        for number in range(50):
            stream.worked.add(f"w{number}")
            stream.ended(worker(f"w{number}"), 100.5)
            assert (stream.failures, stream.not_before) == (0, 0.0)

    in_loop(test)


def test_one_that_lived_for_a_while_as_behind_a_watchdog_is_replaced_at_once() -> None:
    def test() -> None:
        stream = streaming()
        stream.ended(worker("w"), 100.1 + STEADY_SECONDS)
        assert (stream.failures, stream.not_before) == (0, 0.0)

    in_loop(test)


def test_those_that_do_nothing_before_they_end_are_replaced_ever_later() -> None:
    def test() -> None:
        stream = streaming()
        pauses = []
        for number in range(10):
            stream.ended(worker(f"w{number}"), 100.5)
            pauses.append(max(0.0, stream.not_before - 100.5))
        assert pauses[:4] == [0.0] * AT_ONCE + [pytest.approx(0.05 * 2**4)]
        assert pauses == sorted(pauses)
        assert pauses[-1] == 5.0
        assert stream.state([]) == ("failed", "A worker ended unasked; the function's log says more.")

    in_loop(test)


def test_one_that_was_never_ready_says_why_and_is_not_replaced_at_once() -> None:
    def test() -> None:
        stream = streaming()
        one = worker("w", life=Life.STARTING)
        one.ready.set_exception(BirthFailed({"code": "birth", "message": "no store"}))
        stream.ended(one, 100.5)
        assert stream.not_before > 100.5
        assert stream.state([]) == ("failed", "no store")

    in_loop(test)


def test_what_is_paused_calls_for_no_worker() -> None:
    pause = Pause("eva", 0.0)
    assert (streaming().waiting, streaming().bounds().max) == (30_010, 3)
    one = streaming(p1=pause)
    assert (one.waiting, one.bounds().max, one.state([])[0]) == (10, 2, "starting")
    none = streaming(p0=pause, p1=pause, p2=pause)
    assert (none.waiting, none.bounds().max, none.state([])[0]) == (0, 0, "idle")
    whole = streaming(whole=pause, p1=pause)
    assert whole.waiting == 0
    assert whole.state([]) == ("paused", whole.state([])[1])
    assert whole.state([])[1].startswith("paused by eva at ")


def test_a_stall_is_told_until_its_partition_moves() -> None:
    def test() -> None:
        stream = streaming()
        late = 101.0 + STREAM_STALL_SECONDS
        both = [worker("a"), worker("b")]
        stream.readers.heard("a", [0], 100.0)
        stream.readers.heard("b", [1], 100.0)
        stream.topic.see({0: (0, 10), 1: (9000, 30_000), 2: (5, 5)}, late)
        assert stream.stuck(both, late) == ["a"]
        assert stream.state(both)[0] == "stalled"
        assert stream.state(both)[1].startswith("partition 0: ")
        assert stream.stuck([both[1]], late + 1) == [], "it has yet to say that it reads what the other one did"
        assert stream.stuck([both[1]], late + 1 + STREAM_STALL_SECONDS) == ["b"]
        stream.topic.see({0: (4, 10), 1: (9900, 30_000), 2: (5, 5)}, late + 1)
        assert stream.stuck(both, late + 1) == []
        assert stream.state(both) == ("running", "")

    in_loop(test)


def test_a_slot_is_used_again_at_once_and_never_while_somebody_of_any_revision_has_it(tmp_path: Path) -> None:
    async def run() -> None:
        project = Project(tmp_path)
        for folder in (project.run, project.logs):
            folder.mkdir(parents=True)

        def fork(_: dict[str, Any], __: list[int]) -> bool:
            return True  # and no process ever comes

        workers = Workers(
            project,
            Rights(None),
            fork=fork,
            on_change=lambda _: None,
            on_message=lambda *_: None,
        )
        old = [workers.bear(birth(revision(1)), []) for _ in range(3)]
        assert [one.slot for one in old] == [0, 1, 2]
        workers.nursery_died()
        old = [workers.bear(birth(revision(1)), []) for _ in range(3)]
        workers._ended(old[1])
        again = workers.bear(birth(revision(1)), [])
        assert again.slot == 1, "of the one that died"
        for one in (old[0], again, old[2]):
            workers.drain(one, lambda _: None)
        new = [workers.bear(birth(revision(2)), []) for _ in range(2)]
        assert [one.slot for one in new] == [3, 4], "those of the revision before still finish"
        workers._ended(old[0])
        assert workers.bear(birth(revision(2)), []).slot == 0
        workers.nursery_died()
        assert not workers.all

    asyncio.run(run())


@pytest.mark.parametrize("trouble", ["fenced", "waiting"])
def test_who_knows_its_trouble_is_not_replaced_for_it(trouble: str) -> None:
    def test() -> None:
        stream = streaming()
        stream.working["a"] = (trouble, "why")
        assert stream.stuck([worker("a")], 200.0) == []
        assert stream.state([worker("a")]) == (trouble, "why")
        stream.forget("a")
        assert stream.state([worker("b")]) == ("running", "")

    in_loop(test)
