# Longer than 300 lines: a broker that can fail at every step, and each way a batch can go.
"""The stream loop: records in, predictions and dead letters out, on the real pipeline with brokers that fail."""

import asyncio
import json
import logging
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tests.small_bundle import logistic, make_bundle
from tests.unit.streaming import (
    SPOILT,
    STEPS,
    STREAM,
    TRACE,
    Bench,
    Faults,
    bench,
    body,
    error_of,
    prediction,
    quick,
)

from sunup import limits
from sunup.clock import SystemClock
from sunup.errors import Unavailable
from sunup.function import load
from sunup.pipeline import Pipeline
from sunup.stream.broker import BrokerError, Output, Record, Trouble
from sunup.stream.embedded import EmbeddedBroker, Log
from sunup.types import Call, Reply

__all__ = ["quick"]


# --- What goes in and comes out ---------------------------------------------------------------------------------------


def test_records_become_predictions_in_order() -> None:
    async def test(one: Bench) -> None:
        for index in range(20):
            one.topics.add(body(index, index / 4), partition=index % 2, key=b"k%d" % index)
        await one.finish()
        assert not one.topics.of(STREAM.dead_letter)
        for output in (outputs := one.topics.of(STREAM.output)):
            assert output.key is not None
            assert output.value is not None
            assert json.loads(output.value) == prediction(int(output.key[1:]) / 4)
        for partition in (0, 1):
            ids = [dict(output.headers)["ce_id"] for output in outputs]
            mine = [one for one in ids if one.startswith(b"payments-%d-" % partition)]
            assert mine == [b"payments-%d-%d" % (partition, offset) for offset in range(10)]
        assert one.topics.positions == {0: 10, 1: 10}
        assert (one.told.scored, one.told.dead, one.told.states) == (20, 0, [])
        assert one.model.asked == [7, 7, 6]  # one run for all of a batch

    bench(test)


def test_a_prediction_is_an_event_of_the_record_it_answers() -> None:
    async def test(one: Bench) -> None:
        event = [("ce_specversion", b"1.0"), ("ce_id", b"a-1"), ("ce_source", b"/pos"), ("ce_type", b"payment")]
        whole = {"specversion": "1.0", "id": "a-2", "source": "/pos", "type": "payment", "data": json.loads(body())}
        one.topics.add(body(), headers=[("content-type", b"application/json")])
        one.topics.add(body(), headers=[*event, ("ce_traceparent", TRACE)])
        one.topics.add(
            json.dumps(whole).encode(),
            headers=[("content-type", b"application/cloudevents+json"), ("traceparent", TRACE)],
        )
        await one.finish()
        said = [dict(output.headers) for output in one.topics.written]
        assert [each.get("ce_subject") for each in said] == [None, b"a-1", b"a-2"]
        assert [each.get("ce_traceparent") for each in said] == [None, TRACE, TRACE]
        assert said[0] == {
            "content-type": b"application/json",
            "ce_specversion": b"1.0",
            "ce_type": b"dev.sunup.prediction",
            "ce_source": b"/functions/fraud",
            "ce_id": b"payments-0-0",
            "ce_time": b"2023-11-14T22:13:20.000Z",
            "ce_revision": b"7",
            "ce_model": b"fraud/3",
        }

    bench(test)


MALFORMED: list[tuple[bytes | None, list[tuple[str, bytes]], str, str | None]] = [
    (b"", [], "empty_value", None),
    (b"\xff\x00", [], "invalid_json", None),
    (b'{"card_id": 1', [], "invalid_json", None),
    (b"[1, 2]", [], "wrong_type", None),
    (b'{"card_id": 1}', [], "missing_field", "amount"),
    (b'{"card_id": "1", "amount": 2}', [], "wrong_type", "card_id"),
    (b'{"card_id": 1, "amount": 2, "ammount": 3}', [], "unknown_field", "ammount"),
    (body(), [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_type", b"t")], "missing_attribute", "source"),
    (body(), [("ce_specversion", b"0.3")], "unsupported_specversion", "specversion"),
    (b"{}", [("content-type", b"application/cloudevents-batch+json")], "unsupported_media_type", None),
    (body(amount=SPOILT), [], "execution_failed", None),
]


def test_a_malformed_record_goes_to_the_dead_letters_with_its_reason() -> None:
    async def test(one: Bench) -> None:
        for index, (value, headers, *_) in enumerate(MALFORMED):
            one.topics.add(body(amount=index), key=b"good")
            one.topics.add(value, key=b"k%d" % index, headers=[*headers, ("mine", b"\xff")])
        await one.finish()
        dead = one.topics.of(STREAM.dead_letter)
        for index, (output, (value, headers, code, at)) in enumerate(zip(dead, MALFORMED, strict=True)):
            assert (output.key, output.value) == (b"k%d" % index, value)
            kept = [*headers, ("mine", b"\xff")]
            assert output.headers[: len(kept)] == kept
            said = dict(output.headers[len(kept) :])
            message = said.pop("sunup_error_message").decode()
            assert message
            assert "secret" not in message
            assert said.pop("sunup_error_field", b"").decode() == (at or "")
            assert "secret" not in said.pop("sunup_error_hint", b"").decode()
            assert said == {
                "sunup_error_code": code.encode(),
                "sunup_function": b"fraud",
                "sunup_revision": b"7",
                "sunup_topic": b"payments",
                "sunup_partition": b"0",
                "sunup_offset": str(2 * index + 1).encode(),
                "sunup_attempt": b"1",
                "sunup_time": b"2023-11-14T22:13:20.000Z",
            }
        good = [json.loads(output.value or b"") for output in one.topics.of(STREAM.output)]
        assert good == [prediction(index) for index in range(len(MALFORMED))]
        assert (one.told.scored, one.told.dead) == (len(MALFORMED), len(MALFORMED))

    bench(test)


def test_records_without_a_value_are_ignored_and_counted() -> None:
    async def test(one: Bench) -> None:
        event = [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/s"), ("ce_type", b"t")]
        one.topics.add(None, key=b"gone")
        one.topics.add(body(amount=1), key=b"here")
        one.topics.add(None)
        one.topics.add(None, key=b"gone", headers=event)
        one.topics.add(b"", key=b"empty")
        for _ in range(10):  # a batch of nothing else
            one.topics.add(None, partition=1)
        await one.finish()
        assert [output.topic for output in one.topics.written] == [STREAM.output, STREAM.dead_letter]
        assert error_of(one.topics.of(STREAM.dead_letter)[0]) == "empty_value"
        assert (one.told.scored, one.told.dead, one.told.ignored) == (1, 1, 13)
        assert one.topics.positions == {0: 5, 1: 10}

    bench(test)


def test_a_letter_that_is_sent_again_says_all_anew_and_counts_attempts() -> None:
    async def test(one: Bench) -> None:
        one.topics.add(body(amount=SPOILT), key=b"k", headers=[("mine", b"1"), ("mine", b"2")])
        await one.finish()
        (first,) = one.topics.of(STREAM.dead_letter)
        one.topics.add(first.value, key=first.key, headers=first.headers)
        await one.finish()
        _, second = one.topics.of(STREAM.dead_letter)
        names = [name for name, _ in second.headers]
        assert names.count("mine") == 2
        assert sorted(names) == sorted(name for name, _ in first.headers)
        said, before = dict(second.headers), dict(first.headers)
        assert (before["sunup_attempt"], said["sunup_attempt"], said["sunup_offset"]) == (b"1", b"2", b"1")
        assert (second.key, second.value) == (first.key, first.value)
        one.topics.add(body(amount=1), headers=second.headers)
        one.topics.add(b"?", headers=[("sunup_attempt", b"many")])
        await one.finish()
        (scored,) = one.topics.of(STREAM.output)
        assert not [name for name, _ in scored.headers if name.startswith("sunup_")]
        assert dict(one.topics.of(STREAM.dead_letter)[-1].headers)["sunup_attempt"] == b"1"

    bench(test)


def test_where_no_record_can_be_read_the_model_is_not_asked() -> None:
    async def test(one: Bench) -> None:
        for _ in range(10):
            one.topics.add(b"?")
        await one.finish()
        assert (one.told.scored, one.told.dead, one.model.asked) == (0, 10, [])

    bench(test)


@pytest.mark.parametrize(("content", "codes"), [("cloudevent", ["not_cloudevent"]), ("json", [])])
def test_content_is_read_as_the_function_says(content: str, codes: list[str]) -> None:
    async def test(one: Bench) -> None:
        one.topics.add(body())
        one.topics.add(
            body(), headers=[("ce_specversion", b"1.0"), *((f"ce_{a}", b"x") for a in ("id", "source", "type"))]
        )
        await one.finish(content=content)
        assert [error_of(output) for output in one.topics.of(STREAM.dead_letter)] == codes
        subjects = [dict(output.headers).get("ce_subject") for output in one.topics.of(STREAM.output)]
        assert subjects == ([b"x"] if codes else [None, None])

    bench(test)


# --- A broker that fails ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS[:-1])
@pytest.mark.parametrize("times", [1, 3])
def test_a_broker_that_fails_is_told_and_replaced(step: str, times: int, caplog: pytest.LogCaptureFixture) -> None:
    lost = BrokerError(Trouble.UNREACHABLE, "no broker answers at 127.0.0.1:1")

    async def test(one: Bench) -> None:
        for amount in range(20):
            one.topics.add(body(amount=amount))
        with caplog.at_level(logging.INFO, "sunup.stream"):
            await one.finish()
        assert [json.loads(output.value or b"") for output in one.topics.written] == [
            prediction(amount) for amount in range(20)
        ]
        assert one.told.states[0] is Trouble.UNREACHABLE
        assert one.told.states[-1] is None
        logged = [record.levelname for record in caplog.records]
        assert logged == ["WARNING" if state else "INFO" for state in one.told.states]
        if step in ("open", "join", "poll", "polled"):
            assert one.told.states == [Trouble.UNREACHABLE, None]  # once, however often it failed
            assert one.told.messages == ["no broker answers at 127.0.0.1:1", ""]

    bench(test, at=Faults(*[(step, lost)] * times))


def test_a_broker_that_cannot_be_left_is_left_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    async def test(one: Bench) -> None:
        one.topics.add(body())
        await one.finish()
        assert len(one.brokers) == 2
        assert caplog.text.count("not left properly") == 2

    lost = BrokerError(Trouble.UNREACHABLE, "gone")
    bench(test, at=Faults(("commit", lost), ("close", lost), ("close", lost)))


def test_another_trouble_is_told_and_the_same_one_is_not() -> None:
    failures = [BrokerError(Trouble.UNREACHABLE, "a")] * 3 + [BrokerError(Trouble.NOT_PERMITTED, "b")] * 2

    async def test(one: Bench) -> None:
        one.topics.add(body())
        await one.finish()
        assert one.told.states == [Trouble.UNREACHABLE, Trouble.NOT_PERMITTED, None]

    bench(test, at=Faults(*[("poll", failure) for failure in failures]))


def test_a_refused_commit_is_over_only_when_one_is_taken() -> None:
    refused = BrokerError(Trouble.TOPIC_MISSING, "make scores")

    async def test(one: Bench) -> None:
        one.topics.add(body())
        hidden: dict[int, list[Record]] = {}
        held = one.topics.records

        def hide() -> None:  # as a group that is not settled yet does
            one.topics.records = hidden

        def show() -> None:
            one.topics.records = held

        one.at.left = [  # type: ignore[attr-defined]
            ("polled", lambda: None),
            *[("commit", refused)] * 3,
            ("join", lambda: None),
            ("join", hide),
            ("polled", show),
            ("committed", one.later(one.make().drain)),
        ]
        await one.loop.run()
        assert one.told.states == [Trouble.TOPIC_MISSING, None]
        assert one.at.seen.count("polled") == 5  # type: ignore[attr-defined]
        assert len(one.topics.written) == 1

    bench(test)


@pytest.mark.parametrize("trouble", [Trouble.UNREACHABLE, Trouble.FENCED, Trouble.FAILED])
def test_a_commit_whose_answer_was_lost_is_over_when_nothing_comes_again(trouble: Trouble) -> None:
    async def test(one: Bench) -> None:
        one.topics.add(body())
        running = asyncio.create_task(one.make().run())
        await one.told.until(lambda: one.told.states == [trouble, None])
        one.loop.drain()
        await running
        assert len(one.topics.written) == 1

    bench(test, at=Faults(("committed", BrokerError(trouble, "lost"))))


@pytest.mark.parametrize("step", ["join", "poll", "commit"])
def test_a_bug_ends_the_loop_and_leaves_the_group(step: str) -> None:
    async def test(one: Bench) -> None:
        one.topics.add(body())
        with pytest.raises(ZeroDivisionError):
            await one.make().run()
        assert one.topics.written == []
        assert one.told.states == []

    bench(test, at=Faults((step, ZeroDivisionError())))


def test_a_bug_in_the_pipeline_commits_nothing() -> None:
    async def test(one: Bench) -> None:
        one.topics.add(body())
        one.pipeline.answer = None  # type: ignore[method-assign, assignment]
        with pytest.raises(TypeError):
            await one.make().run()
        assert (one.topics.written, one.topics.positions) == ([], {})

    bench(test)


# --- Who reads what, and how it ends ----------------------------------------------------------------------------------


def test_a_share_is_joined_before_the_next_poll_and_by_every_new_broker() -> None:
    async def test(one: Bench) -> None:
        for partition in range(4):
            one.topics.add(body(), partition=partition)
        loop = one.make()
        loop.share(1, 2, [])
        running = asyncio.create_task(loop.run())
        await one.told.until(lambda: one.told.scored == 2)
        assert one.topics.positions == {1: 1, 3: 1}
        loop.share(0, 2)
        await one.told.until(lambda: one.told.scored == 4)
        one.at.left = [("poll", BrokerError(Trouble.FENCED, "taken"))]  # type: ignore[attr-defined]
        await one.told.until(lambda: one.told.states == [Trouble.FENCED, None])
        assert "share=(0, 2, ())" in repr(loop)
        loop.drain()
        await running
        assert [broker.joined for broker in one.brokers] == [[(1, 2, ()), (0, 2, ())], [(0, 2, ())]]

    bench(test)


def test_a_partition_that_is_paused_is_not_read_until_it_goes_on() -> None:
    async def test(one: Bench) -> None:
        for partition in range(3):
            one.topics.add(body(), partition=partition)
        loop = one.make()
        loop.share(0, 1, [1])
        running = asyncio.create_task(loop.run())
        await one.told.until(lambda: one.told.scored == 2)
        assert one.topics.positions == {0: 1, 2: 1}
        loop.share(0, 1)
        await one.told.until(lambda: one.told.scored == 3)
        loop.drain()
        await running
        assert [broker.joined for broker in one.brokers] == [[(0, 1, (1,)), (0, 1, ())]]

    bench(test)


def test_drained_before_it_runs_it_reads_nothing() -> None:
    async def test(one: Bench) -> None:
        one.topics.add(body())
        loop = one.make()
        assert "running" in repr(loop)
        loop.drain()
        loop.drain()
        await loop.run()
        assert (one.brokers, one.topics.waiting) == ([], 1)
        assert "draining" in repr(loop)

    bench(test)


@pytest.mark.parametrize("step", STEPS)
def test_drained_at_any_step_the_batch_in_hand_is_finished(step: str) -> None:
    async def test(one: Bench) -> None:
        for _ in range(20):
            one.topics.add(body())
        lost = BrokerError(Trouble.FAILED, "x")
        first = [("poll", lost)] if step == "close" else []
        one.at.left = [*first, (step, one.later(one.make().drain))]  # type: ignore[attr-defined]
        await one.loop.run()
        finished = 0 if step == "close" else 7
        assert (len(one.topics.written), one.topics.positions.get(0, 0)) == (finished, finished)
        assert one.at.seen.count("polled") == (0 if step == "close" else 1)  # type: ignore[attr-defined]

    bench(test)


def test_drained_while_the_model_runs_the_batch_is_committed() -> None:
    async def test(one: Bench) -> None:
        for _ in range(20):
            one.topics.add(body())
        one.make()
        one.model.before = one.loop.drain
        await one.loop.run()
        assert len(one.topics.written) == one.topics.positions[0] == 7

    bench(test)


def test_drained_while_it_waits_to_try_again_it_leaves_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STREAM_TRY_SECONDS", 600.0)

    async def test(one: Bench) -> None:
        one.topics.add(body())
        real, waits = one.pipeline, asyncio.Event()

        class Gone:
            log = None

            async def answer(self, _: Call) -> Reply:
                waits.set()
                raise Unavailable("now")

        one.pipeline = Gone()  # type: ignore[assignment]
        running = asyncio.create_task(one.make().run())
        await waits.wait()
        one.loop.drain()
        await running
        assert (one.topics.written, one.topics.waiting) == ([], 1)
        one.pipeline = real
        assert one.told.states == [Trouble.WAITING]
        one.told.states.clear()
        await one.finish()
        assert len(one.topics.of(STREAM.output)) == 1

    bench(test)


def test_drained_while_the_broker_is_away_it_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STREAM_RETRY_SECONDS_MAX", 6000.0)

    async def test(one: Bench) -> None:
        running = asyncio.create_task(one.make().run())
        await one.told.until(lambda: one.told.states == [Trouble.UNREACHABLE])
        assert "trouble=unreachable" in repr(one.loop)
        one.loop.drain()
        await running

    bench(test, at=Faults(("open", BrokerError(Trouble.UNREACHABLE, "gone"))))


@pytest.mark.parametrize("step", STEPS[:-1])
def test_cancelled_at_any_step_nothing_is_lost_or_doubled(step: str) -> None:
    async def test(one: Bench) -> None:
        for amount in range(20):
            one.topics.add(body(amount=amount))
        running = asyncio.create_task(one.make().run())
        one.at.left = [(step, one.later(running.cancel))]  # type: ignore[attr-defined]
        with pytest.raises(asyncio.CancelledError):
            await running
        await one.finish()
        assert [json.loads(o.value or b"") for o in one.topics.written] == [prediction(amount) for amount in range(20)]

    bench(test)


def test_cancelled_twice_it_still_leaves_the_group() -> None:
    async def test(one: Bench) -> None:
        running = asyncio.create_task(one.make().run())
        left = asyncio.Event()

        def cancel() -> None:
            running.cancel()
            one.event_loop.call_soon(running.cancel)

        one.at.left = [("poll", one.later(cancel)), ("close", one.later(left.set))]  # type: ignore[attr-defined]
        with pytest.raises(asyncio.CancelledError):
            await running
        await left.wait()

    bench(test)


class Chance:
    """Fails, cancels or drains at random steps, until it has done so often enough."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._left = self._chance.randrange(1, 12)
        self.running: asyncio.Task[None] | None = None
        self.one: Bench | None = None
        self.halves = 0

    def __call__(self, step: str) -> None:
        if self._left and self._chance.random() < 0.15:
            assert self.one is not None
            assert self.running is not None
            self._left -= 1
            match self._chance.randrange(3):
                case 0 if step != "close":
                    self.halves += step == "written"
                    raise BrokerError(self._chance.choice(list(Trouble)), "chance")
                case 1:
                    self.one.later(self.running.cancel)()
                case _:
                    self.one.later(self.one.loop.drain)()


@pytest.mark.parametrize("atomic", [True, False])
@pytest.mark.parametrize("seed", range(25))
def test_whatever_fails_nothing_is_lost_and_nothing_doubled_but_what_was_written_half(seed: int, atomic: bool) -> None:
    chance = Chance(seed)

    async def test(one: Bench) -> None:
        chance.one = one
        for index in range(60):
            spoilt = index % 9 == 4
            one.topics.add(b"?" if spoilt else body(amount=index), partition=index % 3, key=b"%d" % index)
        while one.topics.waiting:
            running = chance.running = asyncio.create_task(one.make().run())
            told = asyncio.create_task(one.told.until(lambda: not one.topics.waiting))
            await asyncio.wait([running, told], return_when=asyncio.FIRST_COMPLETED)
            one.loop.drain()
            await asyncio.wait([running])
            told.cancel()
            assert running.cancelled() or running.exception() is None
        counted = Counter(output.key for output in one.topics.written)
        assert set(counted) == {b"%d" % index for index in range(60)}
        assert sum(counted.values()) - 60 <= 7 * chance.halves
        if atomic:
            assert set(counted.values()) == {1}
        for partition in range(3):  # in order, where the first of what is doubled counts
            first = list(dict.fromkeys(int(output.key or b"") for output in one.topics.written))
            mine = [index for index in first if index % 3 == partition]
            assert mine == sorted(mine)
        for output in one.topics.of(STREAM.output):
            assert json.loads(output.value or b"") == prediction(int(output.key or b""))

    bench(test, at=chance, atomic=atomic)


# --- The embedded log and a real model --------------------------------------------------------------------------------


def test_on_the_embedded_log_with_a_real_model(tmp_path: Path) -> None:
    made = load(
        tmp_path / make_bundle(tmp_path, logistic(2), np.array([[0.0, 1.0], [1.0, 2.0]])), settings={}, prove=True
    )
    path = tmp_path / "log.db"
    log = Log(path)
    log.create(STREAM.input, 3)
    given = [Output(STREAM.input, b"%d" % n, b'{"f0": %d, "f1": 0.5}' % n, [("mine", b"x")]) for n in range(2500)]
    given[1234] = given[1234]._replace(value=b'{"f0": 1}')
    log.append(STREAM.input, given)

    async def test(one: Bench) -> None:
        one.function, one.pipeline, one.clock = made, Pipeline(made), SystemClock()
        loop = one.make(lambda: EmbeddedBroker(path, STREAM))
        running = asyncio.create_task(loop.run())
        await one.told.until(lambda: one.told.scored + one.told.dead == len(given))
        loop.drain()
        await running
        await one.pipeline.aclose()
        assert (one.told.scored, one.told.dead, one.told.states) == (len(given) - 1, 1, [])

    bench(test)
    looks = EmbeddedBroker(path, STREAM)
    assert sum(lag.records for lag in looks.lag().values()) == 0
    looks.close()
    codec = made.record_codec(7)
    scores = [record for partition in log.end(STREAM.output) for record in log.read(STREAM.output, partition, 0, 5000)]
    assert Counter(record.key for record in scores) == Counter(str(n).encode() for n in range(2500) if n != 1234)
    pipeline = Pipeline(made)
    for record in scores[::100]:  # the same as over HTTP
        call = codec.decode(given[int(record.key or b"")].value or b"", id="", deadline=float("inf"))
        assert codec.predictions(pipeline.answer_now(call)) == [record.value]
    (dead,) = [r for partition in log.end(STREAM.dead_letter) for r in log.read(STREAM.dead_letter, partition, 0, 9)]
    assert (dead.key, dict(dead.headers)["sunup_error_field"]) == (b"1234", b"f1")
    log.close()
    asyncio.run(made.aclose())
