# Longer than 300 lines: each way a call can fail, for now and for good, and how batches follow what calls take.
"""What fails for now is tried again, what fails for good becomes a dead letter alone."""

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.unit.streaming import SPOILT, STREAM, Bench, Faults, bench, body, error_of, function, prediction, quick

from sunup import limits
from sunup.errors import CallError, DeadlineExceeded, FeaturesMissing, FeaturesUnread, Overloaded, Unavailable
from sunup.pipeline import Pipeline
from sunup.stream.broker import BrokerError, Trouble
from sunup.stream.loop import Loop
from sunup.stream.scoring.scorer import RunsDoNotEnd
from sunup.types import Call, Reply

__all__ = ["quick"]


@dataclass
class Script:
    """Stands before a pipeline: the first answers are errors, of the whole call or of its nth row."""

    pipeline: Any
    errors: list[CallError | dict[int, CallError]]
    sizes: list[int] = field(default_factory=list)
    log: Any = None
    origins: list[tuple[str, int]] = field(default_factory=list)
    each: Callable[[], object] = lambda: None

    async def answer(self, call: Call) -> Reply:
        self.each()
        self.sizes.append(len(call.rows))
        self.origins += call.origins
        error = self.errors.pop(0) if self.errors else {}
        if isinstance(error, CallError):
            raise error
        kept = [row for row in range(len(call.rows)) if row not in error]
        part = Call(call.id, [call.rows[row] for row in kept], len(kept), float("inf"))
        made: Reply = await self.pipeline.answer(part)
        return Reply(call, made.columns, kept, error, made.defaulted, made.stale, made.timings)

    async def aclose(self) -> None:
        await self.pipeline.aclose()


@pytest.mark.parametrize(
    ("error", "times"),
    [
        (Overloaded("full"), 20),
        (Unavailable("gone"), 20),
        (FeaturesUnread("no store"), 20),
        (FeaturesMissing("no value"), limits.STREAM_TRIES_MAX - 1),
    ],
)
def test_a_call_that_fails_for_now_is_made_again(error: CallError, times: int) -> None:
    async def test(one: Bench) -> None:
        script = Script(one.pipeline, [error] * times)
        one.pipeline = script  # type: ignore[assignment]
        for amount in range(5):
            one.topics.add(body(amount=amount))
        await one.finish()
        assert script.sizes == [5] * (times + 1)
        assert one.told.states == [Trouble.WAITING, None]
        assert error.message in one.told.messages[0]
        assert [json.loads(o.value or b"") for o in one.topics.written] == [prediction(amount) for amount in range(5)]

    bench(test)


def test_what_may_pass_is_waited_for_no_longer_than_the_bound_and_told_with_its_last_reason() -> None:
    async def test(one: Bench) -> None:
        script = Script(one.pipeline, [FeaturesUnread(f"try {number}") for number in range(9)])
        script.each = lambda: one.clock.advance(100.0)  # type: ignore[attr-defined]
        one.pipeline = script  # type: ignore[assignment]
        one.topics.add(body())
        one.topics.add(body())
        await one.finish()
        assert script.sizes == [2, 2, 2]
        assert limits.STREAM_TRANSIENT_SECONDS_MAX == 300.0
        for letter in one.topics.written:
            said = dict(letter.headers)
            assert (said["sunup_error_code"], said["sunup_error_message"]) == (b"features_missing", b"try 2")
            assert said["sunup_error_hint"] == b"The feature store does not answer."

    bench(test)


def test_a_value_that_is_missing_is_not_waited_for_as_a_store_is() -> None:
    """And what the store's absence cost in attempts is not counted against a record."""

    async def test(one: Bench) -> None:
        errors: list[CallError | dict[int, CallError]] = [FeaturesUnread("away")] * 6
        errors += [{0: FeaturesMissing("no value")} for _ in range(9)]
        script = Script(one.pipeline, errors)
        one.pipeline = script  # type: ignore[assignment]
        one.topics.add(body())
        one.topics.add(body())
        await one.finish()
        assert script.sizes == [2] * 7 + [1] * (limits.STREAM_TRIES_MAX - 1)
        assert [output.topic for output in one.topics.written] == [STREAM.dead_letter, STREAM.output]

    bench(test)


def test_while_it_waits_it_stays_in_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STREAM_KEEP_SECONDS", 0.005)
    monkeypatch.setattr(limits, "STREAM_TRY_SECONDS", 0.05)
    monkeypatch.setattr(limits, "STREAM_RETRY_SECONDS_MAX", 0.05)

    async def test(one: Bench) -> None:
        one.pipeline = Script(one.pipeline, [Unavailable("gone")] * 2)  # type: ignore[assignment]
        one.topics.add(body())
        await one.finish()
        assert one.brokers[0].kept >= 5
        assert len(one.topics.of(STREAM.output)) == 1

    bench(test)


def test_a_group_that_is_lost_while_it_waits_has_the_batch_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STREAM_KEEP_SECONDS", 0.001)
    lost = BrokerError(Trouble.FENCED, "another one reads now")

    async def test(one: Bench) -> None:
        one.pipeline = script = Script(one.pipeline, [Unavailable("gone")] * 3)  # type: ignore[assignment]
        one.topics.add(body())
        await one.finish()
        assert len(one.brokers) == 2
        assert script.sizes == [1] * 4
        assert len(one.topics.of(STREAM.output)) == 1
        assert one.told.states[:2] == [Trouble.WAITING, Trouble.FENCED]

    bench(test, at=Faults(("keep", lost)))


def test_batches_follow_what_calls_take() -> None:
    async def test(one: Bench) -> None:
        one.pipeline = script = Script(one.pipeline, [])  # type: ignore[assignment]
        seconds = iter([0.1, 0.1, 0.1, 2.0, 0.8, 0.8, 0.4, 0.4])
        script.each = lambda: one.clock.advance(next(seconds, 0.1))  # type: ignore[attr-defined]
        one.batch = 5000
        for amount in range(1200):
            one.topics.add(body(amount=amount))
        await one.finish()
        assert script.sizes == [32, 64, 128, 256, 128, 128, 128, 256, 80]
        assert len(one.topics.of(STREAM.output)) == 1200

    bench(test)


def test_calls_that_take_too_long_are_made_smaller() -> None:
    async def test(one: Bench) -> None:
        late = DeadlineExceeded("late")
        one.pipeline = script = Script(one.pipeline, [late, late])  # type: ignore[assignment]
        for amount in range(7):
            one.topics.add(body(amount=amount))
        await one.finish()
        assert script.sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1]
        assert [json.loads(o.value or b"") for o in one.topics.written] == [prediction(amount) for amount in range(7)]

    bench(test)


def test_runs_that_never_end_end_the_loop_and_commit_nothing() -> None:
    async def test(one: Bench) -> None:
        one.pipeline = script = Script(one.pipeline, [DeadlineExceeded("late")] * 9)  # type: ignore[assignment]
        for _ in range(5):
            one.topics.add(body())
        with pytest.raises(RunsDoNotEnd):
            await one.make().run()
        assert script.sizes == [5, 2, 1, 1]
        assert one.topics.written == []

    bench(test)


@pytest.mark.parametrize("logs", [True, False])
def test_a_log_is_told_whose_each_row_is(logs: bool) -> None:
    async def test(one: Bench) -> None:
        script = Script(one.pipeline, [], log="some" if logs else None)
        one.pipeline = script  # type: ignore[assignment]
        for value in (body(amount=1), b"?", body(amount=3)):
            one.topics.add(value)
        await one.finish()
        ids = [value.decode() for output in one.topics.written for name, value in output.headers if name == "ce_id"]
        assert len(ids) == 2
        assert script.origins == ([(id, 0) for id in ids] if logs else [])

    bench(test)


def test_what_goes_on_failing_becomes_a_dead_letter_in_the_end() -> None:
    async def test(one: Bench) -> None:
        script = Script(one.pipeline, [FeaturesMissing("first"), *[FeaturesMissing("no store")] * 3])
        one.pipeline = script  # type: ignore[assignment]
        one.topics.add(body())
        one.topics.add(b"?")
        await one.finish()
        assert script.sizes == [1] * limits.STREAM_TRIES_MAX
        first, second = one.topics.written
        assert (error_of(first), dict(first.headers)["sunup_error_message"]) == ("features_missing", b"no store")
        assert error_of(second) == "invalid_json"

    bench(test)


def test_only_the_records_that_failed_for_now_are_scored_again() -> None:
    async def test(one: Bench) -> None:
        missing = FeaturesMissing("not yet")
        script = Script(one.pipeline, [{1: missing, 3: missing, 4: missing}, {0: missing}, {0: missing}, {0: missing}])
        one.pipeline = script  # type: ignore[assignment]
        for amount in range(6):
            one.topics.add(body(amount=amount))
        await one.finish()
        assert script.sizes == [6, 3, 1, 1]
        assert [output.topic for output in one.topics.written] == [
            STREAM.dead_letter if amount == 1 else STREAM.output for amount in range(6)
        ]
        scores = [json.loads(output.value or b"") for output in one.topics.of(STREAM.output)]
        assert scores == [prediction(amount) for amount in (0, 2, 3, 4, 5)]

    bench(test)


def test_pauses_between_attempts_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def pause(self: Loop, seconds: float) -> bool:
        pauses.append(seconds)
        return self._drain.is_set()

    async def test(one: Bench) -> None:
        one.pipeline = Script(one.pipeline, [Unavailable("gone")] * 4)  # type: ignore[assignment]
        one.topics.add(body())
        await one.finish()
        assert pauses == [0.001, 0.002, 0.004, 0.008]
        pauses.clear()
        lost = BrokerError(Trouble.UNREACHABLE, "gone")
        one.at.left = [("poll", lost)] * 6  # type: ignore[attr-defined]
        one.topics.add(body())
        await one.finish()
        assert pauses == pytest.approx([0.001, 0.002, 0.004, 0.008, 0.01, 0.01])

    monkeypatch.setattr(Loop, "_drained_within", pause)
    bench(test)


@pytest.mark.parametrize("seconds", [1e-5, 1.0], ids=["inline", "thread"])
def test_one_row_that_spoils_the_run_is_the_only_one_that_fails(
    seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(one: Bench) -> None:
        one.function = function(seconds=seconds)
        one.model, one.pipeline = one.function.executor, Pipeline(one.function, clock=one.clock)
        for amount in (1, 2, SPOILT, 4, 5):
            one.topics.add(body(amount=amount))
        with caplog.at_level(logging.ERROR):
            await one.finish()
        assert [output.topic == STREAM.output for output in one.topics.written] == [True, True, False, True, True]
        assert one.model.asked == [5, 1, 1, 1, 1, 1]
        assert "payments-0-2" in [getattr(logged, "id", None) for logged in caplog.records]

    bench(test)


def test_a_failure_for_now_while_rows_run_one_by_one_is_tried_again() -> None:
    async def test(one: Bench) -> None:
        for amount in (1, SPOILT, 3):
            one.topics.add(body(amount=amount))
        asked = iter([Unavailable("now")])
        real = one.pipeline.answer

        async def answer(call: Call) -> Reply:
            if len(call.rows) == 1 and call.rows[0][1] == 3 and (error := next(asked, None)):
                raise error
            return await real(call)

        one.pipeline.answer = answer  # type: ignore[method-assign]
        await one.finish()
        assert [output.topic == STREAM.output for output in one.topics.written] == [True, False, True]
        assert one.model.asked == [3, 1, 1, 1]

    bench(test)


def test_rows_that_run_one_by_one_leave_turns_to_others() -> None:
    async def test(one: Bench) -> None:
        for _ in range(7):
            one.topics.add(body(amount=SPOILT))
        turns: list[int] = []
        seen: list[int] = []

        async def take_turns() -> None:
            while True:
                turns.append(len(turns))
                await asyncio.sleep(0)

        one.model.before = lambda: seen.append(len(turns))
        others = asyncio.create_task(take_turns())
        await one.finish()
        others.cancel()
        assert len(set(seen[1:])) == 7

    bench(test)
