# Longer than 300 lines: what aggregates, each way a batch can go, and what is heard of it.
"""A loop that aggregates: a score sees the events before its own, whatever becomes of batches, brokers and workers."""

import asyncio
import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.unit.streaming import REQUEST, STREAM, Bench, Faults, bench, quick

from sunup.batch.assemble import Assembly
from sunup.errors import Unavailable
from sunup.limits import AGGREGATE_LOOK_SECONDS
from sunup.lookup.kinds.given import GivenLookup, unaggregated
from sunup.lookup.plan import Entity, Feature, JoinKey, ReadPlan, View, entity_columns
from sunup.lookup.store import Answer, Keys
from sunup.lookup.stores.memory import MemoryStore
from sunup.pipeline import Pipeline
from sunup.stream.aggregate.event import Event
from sunup.stream.broker import BrokerError, Output, Record, Trouble
from sunup.stream.scoring.aggregating import Aggregating
from sunup.stream.scoring.batch import Reading
from sunup.stream.scoring.deaths import Deaths
from sunup.stream.scoring.events import EventReader
from sunup.types import Aggregated, Aggregation, Field, Tensor

__all__ = ["quick"]

WALL = 1_700_000_000.0
TILES = "tiles"
SPEC = Aggregated("payments", "at", 60, 30.0, "", (Aggregation("n", "count", "amount", 3600),))
RECENT = View("recent", "recent", None, None, (Feature("n", "n", "DOUBLE"),), aggregated=SPEC)
ENTITIES = (Entity((JoinKey("card_id", "card_id", "INT64"),), (RECENT,)),)
PLAN = ReadPlan(1, "p", 3, 20.0, "default", ENTITIES, entity_columns(ENTITIES))
Call = tuple[str, Any]


class Counting:
    """Aggregates of one view that counts; keeps what is committed. `at(step)` is called with each method."""

    def __init__(self, at: Callable[[str], None] | None = None) -> None:
        self.at = at or (lambda _: None)
        self.kept: Counter[bytes] = Counter()
        self.now: Counter[bytes] = Counter()
        self.calls: list[Call] = []
        self.due: float | None = None

    def _called(self, step: str, given: object = None) -> None:
        self.calls.append((step, given))
        self.at(step)

    def take(
        self, records: Sequence[Record], events: Sequence[Sequence[Event | None]]
    ) -> list[list[tuple[float, ...] | None]]:
        self._called("take", len(records))
        before: list[tuple[float, ...] | None] = []
        for event in events[0]:
            before.append(None if event is None else (float(self.now[event.key]),))
            if event is not None:
                self.now[event.key] += 1
        return [before]

    def outputs(self, *, last: bool = False) -> list[Output]:
        self._called("outputs", last)
        is_done = last and ("outputs", True) in self.calls[:-1]
        return [] if is_done else [Output(TILES, None, b"last" if last else b"batch", [], 0)]

    def committed(self) -> None:
        self._called("committed")
        self.kept = Counter(self.now)

    def forget(self) -> None:
        self._called("forget")
        self.now = Counter(self.kept)

    def share(self, partitions: Collection[int]) -> None:
        if self.steps("share")[-1:] != [("share", sorted(partitions))]:  # with every poll
            self._called("share", sorted(partitions))

    def tick(self) -> float | None:
        self._called("tick")
        return self.due

    def close(self) -> None:
        self._called("close")

    def steps(self, *names: str) -> list[Call]:
        return [call for call in self.calls if call[0] in names]


class Timeless(MemoryStore):
    """Whatever the time is: the test's is its own."""

    def read_now(self, keys: Keys, deadline: float) -> Answer:  # noqa: ARG002
        return super().read_now(keys, math.inf)


class Heard:
    """The news."""

    def __init__(self) -> None:
        self.refused = 0
        self.misplaced = 0
        self.reasons: list[str] = []
        self.ages: list[float] = []
        self.due: tuple[float | None, list[int]] | None = None
        self.is_settled = self.has_ended = False

    def committed(
        self, refused: Sequence[int], reasons: Sequence[str], misplaced: Sequence[int], seconds: float
    ) -> None:
        self.refused += refused[0]
        self.misplaced += misplaced[0]
        self.reasons += [reason for reason in reasons if reason]
        self.ages.append(seconds)

    def polled(self, due: float | None, partitions: Collection[int], *, last: bool = False) -> None:
        self.due = due, sorted(partitions)
        self.has_ended = last

    def settled(self) -> None:
        self.is_settled = True


def aggregating(one: Bench, counting: Counting) -> Heard:
    """Have the loop aggregate, and the model see nothing else."""
    request = (*REQUEST, Field("at", "float64"))
    lookup = GivenLookup(PLAN, Timeless(unaggregated(PLAN)), request)
    inputs = (Tensor("input", "float64", (-1, 1), ("n",)),)
    manifest = msgspec.structs.replace(one.function.manifest, request=request, inputs=inputs)
    assembly = Assembly(inputs, (*request, *lookup.columns))
    one.function = replace(one.function, manifest=manifest, lookup=lookup, assembly=assembly)
    one.pipeline = Pipeline(one.function, clock=one.clock)
    one.topics.wall = WALL
    heard = Heard()
    reader = EventReader(PLAN, request, Reading(one.function.record_codec(7), "auto"))
    one.aggregating = Aggregating(counting, reader, [1], news=heard, wall=one.clock.wall)
    return heard


def add(one: Bench, card: int, *, amount: float | None = 1.0, **more: Any) -> None:
    value = json.dumps({"card_id": card, "amount": amount, "at": WALL, **more}).encode()
    one.topics.add(value, key=b"%d" % card, partition=card % 2)


def seen(one: Bench) -> list[tuple[int, int]]:
    """Card and how many events its score saw, in the order of the outputs."""
    found = []
    for output in one.topics.of(STREAM.output):
        score = json.loads(output.value or b"")["score"]
        found.append((int(output.key or b""), round(float(np.log(score / (1 - score)) * 2))))
    return found


def numbered(cards: Sequence[int]) -> list[tuple[int, int]]:
    """Each of them with how many of its like come before."""
    counts: Counter[int] = Counter()
    found = []
    for card in cards:
        found.append((card, counts[card]))
        counts[card] += 1
    return found


CARDS = [2, 4, 2, 2, 4, 6, 2, 2, 6, 4, 4, 4, 2, 6, 6]  # all of one partition: batches of 7


def test_a_score_sees_each_earlier_event_of_its_key_and_never_its_own() -> None:
    async def test(one: Bench) -> None:
        counting = Counting()
        heard = aggregating(one, counting)
        for card in CARDS:
            add(one, card)
        await one.finish()
        assert seen(one) == numbered(CARDS)
        assert [given for step, given in counting.calls if step == "take"] == [7, 7, 1]
        assert one.model.asked == [7, 7, 1]
        assert sum(counting.kept.values()) == len(CARDS)
        assert heard.refused == 0
        assert heard.ages == [0.0] * 3

    bench(test)


def test_what_is_aggregated_is_committed_with_its_batch_and_the_last_checkpoint_with_none() -> None:
    async def test(one: Bench) -> None:
        counting = Counting()
        heard = aggregating(one, counting)
        for card in CARDS[:9]:
            add(one, card)
        await one.finish()
        assert heard.is_settled
        assert heard.has_ended
        assert [output.value for output in one.topics.of(TILES)] == [b"batch", b"batch", b"last"]
        order = [step for step, _ in counting.steps("take", "outputs", "committed", "forget", "close")]
        assert order == [*["take", "outputs", "committed"] * 2, *["outputs", "committed"] * 2, "close"]
        assert one.topics.positions == {0: 9}
        assert one.told.scored == 9

    bench(test)


def test_an_event_is_aggregated_whether_or_not_its_record_could_be_scored() -> None:
    async def test(one: Bench) -> None:
        counting = Counting()
        heard = aggregating(one, counting)
        add(one, 2)
        add(one, 2, unknown=1)  # a dead letter, and an event
        add(one, 2, amount=None)
        one.topics.add(b"?", key=b"2")
        one.topics.add(None, key=b"2")
        add(one, 2, at="yesterday")
        add(one, 2)
        await one.finish()
        assert seen(one) == [(2, 0), (2, 2), (2, 3)]
        assert [output.value for output in one.topics.of(STREAM.dead_letter)][1] == b"?"
        assert heard.refused == 2
        assert "JSON" in heard.reasons[0]

    bench(test)


def test_a_record_that_is_no_event_has_no_values() -> None:
    async def test(one: Bench) -> None:
        counting = Counting()
        aggregating(one, counting)
        add(one, 2)
        add(one, 2, at=WALL + 1000)  # ahead of its record
        await one.finish()
        (first, second) = [json.loads(output.value or b"") for output in one.topics.of(STREAM.output)]
        assert "defaulted" not in first
        assert second["defaulted"] == ["n"]

    bench(test)


@pytest.mark.parametrize("step", ["poll", "polled", "commit", "committed"])
def test_a_broker_that_fails_has_what_was_taken_forgotten(step: str) -> None:
    async def test(one: Bench) -> None:
        counting = Counting()
        aggregating(one, counting)
        for card in CARDS:
            add(one, card)
        await one.finish()
        if step != "committed":  # then it was written: the next reader begins behind it, and so do the tiles
            assert seen(one) == numbered(CARDS)
            assert sum(counting.kept.values()) == len(CARDS)
        steps = counting.steps("forget", "share")
        assert steps[steps.index(("forget", None)) + 1] == ("share", [])
        assert one.told.states == [Trouble.UNREACHABLE, None]

    failure = (step, lambda: None), (step, BrokerError(Trouble.UNREACHABLE, "gone"))
    bench(test, at=Faults(*failure))


@pytest.mark.parametrize("step", ["take", "outputs", "committed", "share", "tick"])
def test_aggregates_that_fail_are_told_and_tried_again(step: str) -> None:
    async def test(one: Bench) -> None:
        error = BrokerError(Trouble.FAILED, "the disk is full")
        counting = Counting(Faults(*[(step, error)] * 3))
        aggregating(one, counting)
        for card in CARDS:
            add(one, card)
        running = asyncio.create_task(one.make().run())
        await one.told.until(lambda: not one.topics.waiting and one.told.states[-1:] == [None])
        one.loop.drain()
        await running
        assert one.told.states == [Trouble.FAILED, None]  # once, however often it was tried
        if step != "committed":  # see above
            assert seen(one) == numbered(CARDS)

    bench(test)


def test_a_batch_that_is_given_up_is_forgotten_and_no_checkpoint_made() -> None:
    async def test(one: Bench) -> None:
        counting = Counting()
        heard = aggregating(one, counting)

        class Away:
            log = None

            async def answer(self, _: object) -> None:
                one.loop.drain()
                raise Unavailable("for now")

        whole = one.pipeline
        one.pipeline = Away()  # type: ignore[assignment]
        for card in CARDS:
            add(one, card)
        await one.make().run()
        assert not one.topics.written
        assert not heard.is_settled
        order = [step for step, _ in counting.steps("take", "outputs", "committed", "forget", "close")]
        assert order == ["take", "forget", "close"]
        one.pipeline = whole
        one.told.states.clear()
        await one.finish()
        assert seen(one) == numbered(CARDS)

    bench(test)


def test_a_last_checkpoint_that_fails_loses_nothing() -> None:
    async def test(one: Bench) -> None:
        def fail_at_last(step: str) -> None:
            if step == "outputs" and counting.calls[-1] == ("outputs", True):
                raise BrokerError(Trouble.UNREACHABLE, "gone")

        counting = Counting(fail_at_last)
        heard = aggregating(one, counting)
        add(one, 2)
        await one.finish()
        assert not heard.is_settled, "when values change next is not known"
        assert [step for step, _ in counting.steps("outputs", "forget", "close")] == [
            "outputs", "outputs", "forget", "close",
        ]  # fmt: skip

    bench(test)


def test_a_record_that_kills_is_an_event_and_the_others_see_it(tmp_path: Path) -> None:
    async def test(one: Bench) -> None:
        path = tmp_path / "deaths" / "fraud.0"
        before = Deaths(path, 7)
        before.begin()
        counting = Counting()
        aggregating(one, counting)
        for card in CARDS[:7]:
            add(one, card)
        taken = one.topics.records[0]
        before.take(taken)  # it died with these, and with the third alone, twice
        for _ in range(2):
            before.alone(taken[2])
            before = Deaths(path, 7)
            before.begin()
        running = asyncio.create_task(one.make(deaths=Deaths(path, 7)).run())
        await one.told.until(lambda: not one.topics.waiting)
        one.loop.drain()
        await running
        expected = numbered(CARDS[:7])
        assert seen(one) == [*expected[:2], *expected[3:]]
        assert [given for step, given in counting.calls if step == "take"] == [7]

    bench(test)


def test_idle_loops_share_tick_and_tell_when_values_change() -> None:
    async def test(one: Bench) -> None:
        counting = Counting()
        counting.due = WALL + 60
        heard = aggregating(one, counting)
        one.topics.records = {0: [], 1: []}
        running = asyncio.create_task(one.make().run())
        while heard.due is None:
            await asyncio.sleep(0.001)
        assert counting.steps("share", "tick") == [("share", [0, 1]), ("tick", None)]
        assert heard.due == (WALL + 60, [0, 1])
        one.loop.share(1, 2)
        while heard.due != (WALL + 60, [1]):
            await asyncio.sleep(0.001)
        assert counting.steps("share", "tick")[2:] == [("share", [1]), ("tick", None)]
        counting.due = None
        one.clock.advance(60.0)  # type: ignore[attr-defined]
        while heard.due == (WALL + 60, [1]):
            await asyncio.sleep(0.001)
        assert len(counting.steps("tick")) == 3
        one.clock.advance(AGGREGATE_LOOK_SECONDS)  # type: ignore[attr-defined]
        while len(counting.steps("tick")) == 3:  # nothing is due, but the store may have lost something
            await asyncio.sleep(0.001)
        one.loop.drain()
        await running
        assert len(counting.steps("tick")) == 5  # the last at the end

    bench(test)


def test_who_aggregates_nothing_imports_nothing_of_it() -> None:
    parts = ("stream.aggregate", "stream.scoring.aggregating", "stream.scoring.events", "stream.scoring.tail")
    unused = (*parts, "serve.streams.features", "lookup.kinds.given", "lookup.derive", "lookup.writing")
    shown = f"print(*[name for name in sys.modules if name.startswith({tuple(f'sunup.{name}' for name in unused)!r})])"
    code = f"import sys, sunup.serve.streams.worker, sunup.serve.worker; {shown}"
    ran = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []
