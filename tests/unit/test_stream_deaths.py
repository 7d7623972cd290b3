"""A record that ends the process that scores it: found by those that come after, and not read for ever."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray
from tests.unit.streaming import SPOILT, STREAM, Bench, Faults, Topics, bench, body, error_of, prediction, quick

from sunup import limits
from sunup.errors import DeadlineExceeded
from sunup.stream.broker import BrokerError, Record, Trouble
from sunup.stream.scoring.deaths import Deaths
from sunup.stream.scoring.scorer import RunsDoNotEnd

__all__ = ["quick"]


class Died(BaseException):
    """Stands for the end of the process: nothing catches it, and nothing is written after it."""


def record(offset: int, partition: int = 0) -> Record:
    return Record(STREAM.input, partition, offset, None, b"{}", (), 0.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deaths" / "fraud.0"


async def live(topics: Topics, path: Path, *, revision: int = 7, deadly: float = SPOILT) -> Bench | None:
    """A worker's life, until everything is read; None if it died. `deadly`: the amount it dies of."""
    one = Bench(topics=topics)
    run = one.model.run

    def die_of(feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[Any]]:
        if deadly in feeds["input"]:
            raise Died
        return run(feeds, outputs)  # type: ignore[no-any-return]

    one.model.run = die_of
    running = asyncio.ensure_future(_life(one, path, revision))
    try:
        return one if await running else None
    finally:
        await one.pipeline.aclose()


async def _life(one: Bench, path: Path, revision: int) -> bool:
    loop = one.make(deaths=Deaths(path, revision))
    running = asyncio.create_task(loop.run())
    waiting = asyncio.create_task(one.told.until(lambda: not one.topics.waiting))
    await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
    loop.drain()
    waiting.cancel()
    (ended,) = await asyncio.gather(running, return_exceptions=True)
    if ended is not None and not isinstance(ended, Died):
        raise ended
    return ended is None


async def lives(topics: Topics, path: Path) -> tuple[int, Bench]:
    """Workers one after another until one reads everything; how many died before."""
    for died in range(20):
        if (one := await live(topics, path)) is not None:
            return died, one
    raise AssertionError("a record is read for ever")


def filled(amounts: Sequence[float], *, partitions: int = 1) -> Topics:
    topics = Topics()
    for number, amount in enumerate(amounts):
        topics.add(body(amount=amount), partition=number % partitions)
    return topics


def test_a_record_that_kills_its_worker_becomes_a_dead_letter(path: Path) -> None:
    async def test() -> None:
        topics = filled([SPOILT if number == 11 else number for number in range(40)])
        died, one = await lives(topics, path)
        assert died == 2 + limits.STREAM_DEATHS_MAX  # the batch twice, once unnoted; then the record alone
        (letter,) = topics.of(STREAM.dead_letter)
        assert error_of(letter) == "worker_died"
        assert dict(letter.headers)["sunup_offset"] == b"11"
        scores = [json.loads(output.value or b"") for output in topics.of(STREAM.output)]
        assert scores == [prediction(amount) for amount in range(40) if amount != 11]
        assert one.told.dead == 1
        assert not path.exists()  # it ended in order

    asyncio.run(test())


@pytest.mark.parametrize("partitions", [1, 3])
def test_so_do_several_wherever_they_are(path: Path, partitions: int) -> None:
    async def test() -> None:
        deadly = (2, 3, 11, 12, 30)
        topics = filled([SPOILT if number in deadly else number for number in range(40)], partitions=partitions)
        died, _ = await lives(topics, path)
        assert died <= len(deadly) * (2 + limits.STREAM_DEATHS_MAX)
        assert [error_of(letter) for letter in topics.of(STREAM.dead_letter)] == ["worker_died"] * len(deadly)
        scores = [json.loads(output.value or b"")["score"] for output in topics.of(STREAM.output)]
        assert len(scores) == 40 - len(deadly)

    asyncio.run(test())


def test_records_a_worker_was_killed_with_by_accident_are_scored(path: Path) -> None:
    """Each life ends at another record: none of them is one to be afraid of."""

    async def test() -> None:
        topics = filled(range(20))
        for deadly in (3, 3, 4, 5, 6):
            assert await live(topics, path, deadly=deadly) is None
        assert await live(topics, path) is not None
        assert len(topics.of(STREAM.output)) == 20
        assert not topics.of(STREAM.dead_letter)

    asyncio.run(test())


def test_another_revision_tries_what_killed_the_last(path: Path) -> None:
    async def test() -> None:
        topics = filled([1.0, SPOILT, 2.0])
        for _ in range(2 + limits.STREAM_DEATHS_MAX):
            assert await live(topics, path) is None
        assert await live(topics, path, revision=8, deadly=0.5) is not None
        # The stub cannot take the amount either, which is an error like any other.
        assert [error_of(letter) for letter in topics.of(STREAM.dead_letter)] == ["execution_failed"]

    asyncio.run(test())


def test_where_no_worker_died_nothing_is_noted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(one: Bench) -> None:
        for amount in range(20):
            one.topics.add(body(amount=amount))
        seen: list[bytes] = []
        one.model.before = lambda: seen.append(path.read_bytes())
        running = asyncio.create_task(one.make(deaths=Deaths(path, 7)).run())
        await one.told.until(lambda: not one.topics.waiting)
        one.loop.drain()
        await running
        assert len(seen) == 3
        assert len(set(seen)) == 1
        assert not path.exists()

    monkeypatch.setattr(Deaths, "take", None)
    monkeypatch.setattr(Deaths, "committed", None)
    bench(test)


def test_a_mark_says_what_was_in_hand(path: Path) -> None:
    first = Deaths(path, 7)
    assert not first.begin()
    second = Deaths(path, 7)
    assert second.begin()
    assert not second.take([record(5), record(6), record(9, 2)])
    third = Deaths(path, 7)
    assert third.begin()
    assert not third.take([record(4), record(5)])
    assert third.take([record(1, 1), record(9, 2)])
    third.committed()
    assert not third.take([record(9, 2)])
    assert third.take([record(5)])
    assert third.alone(record(5)) == 0
    fourth = Deaths(path, 7)
    assert fourth.begin()
    assert fourth.take([record(5)])
    assert fourth.alone(record(5)) == 1
    assert fourth.alone(None) == 0
    fifth = Deaths(path, 7)
    assert fifth.begin()
    assert fifth.alone(record(5)) == 1  # it was not alone any more
    fifth.end()
    assert not Deaths(path, 7).begin()


@pytest.mark.parametrize("torn", [b'{"revision":7,"ha', b"\x00\x00", b"[]"])
def test_a_mark_that_is_half_written_says_that_a_worker_died(path: Path, torn: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(torn)
    found = Deaths(path, 7)
    assert found.begin()
    assert not found.take([record(1)])
    assert "fraud.0" in repr(found)


def test_a_record_whose_run_never_ends_is_found_like_one_that_kills(path: Path) -> None:
    async def test() -> None:
        topics = filled([1.0, SPOILT, 2.0])
        ended = 0
        while topics.waiting:
            one = Bench(topics=topics)
            real = one.pipeline.answer

            async def answer(call: Any, real: Any = real) -> Any:
                if any(row[1] == SPOILT for row in call.rows):
                    raise DeadlineExceeded("late")
                return await real(call)

            one.pipeline.answer = answer  # type: ignore[method-assign]
            loop = one.make(deaths=Deaths(path, 7))
            one.told.counted = lambda *_, loop=loop: loop.drain()  # type: ignore[method-assign]
            try:
                await loop.run()
            except RunsDoNotEnd:
                ended += 1
            await one.pipeline.aclose()
        assert ended == 2 + limits.STREAM_DEATHS_MAX
        assert [error_of(letter) for letter in topics.of(STREAM.dead_letter)] == ["worker_died"]
        assert len(topics.of(STREAM.output)) == 2

    asyncio.run(test())


def test_one_by_one_what_fails_for_now_is_tried_again_with_all_the_others(path: Path) -> None:
    async def test(one: Bench) -> None:
        topics = one.topics
        for amount in (1.0, 2.0, 3.0):
            topics.add(body(amount=amount))
        for _ in range(2):
            assert await live(topics, path, deadly=2.0) is None
        lost = BrokerError(Trouble.UNREACHABLE, "gone")
        one.at.left = [("commit", lost)]  # type: ignore[attr-defined]
        running = asyncio.create_task(one.make(deaths=Deaths(path, 7)).run())
        await one.told.until(lambda: not topics.waiting)
        one.loop.drain()
        await running
        assert one.model.asked == [1] * 6  # again, for it was not committed
        assert len(topics.of(STREAM.output)) == 3

    bench(test, at=Faults())
