# Longer than 300 lines: a broker that can fail at every step, and each way a batch can go.
"""The stream loop: records in, predictions and dead letters out, on the real pipeline with brokers that fail."""

import asyncio
import json
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.small_bundle import logistic, make_bundle

from sunup import limits
from sunup.batch.assemble import Assembly
from sunup.batch.respond import Response
from sunup.bundle.manifest import Limits, Manifest, Model, Scale
from sunup.clock import Clock, ManualClock, SystemClock
from sunup.errors import CallError, DeadlineExceeded, FeaturesMissing, Overloaded, Unavailable
from sunup.execute.stub import StubExecutor
from sunup.function import Cost, Function, load
from sunup.pipeline import Pipeline
from sunup.stream.broker import Broker, BrokerError, Headers, Lag, Output, Record, Stream, Trouble
from sunup.stream.embedded import EmbeddedBroker, Log
from sunup.stream.loop import Loop
from sunup.types import Call, Decision, Field, Reply, ResponseField, Tensor

STREAM = Stream("fraud-group", "payments", "scores", "rejects")
REQUEST = (Field("card_id", "int64"), Field("amount", "float64"))
SPOILT = -1.0  # an amount the model cannot take
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STEPS = ("open", "join", "poll", "polled", "commit", "committed", "close")  # where a broker may fail


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses as short as they can be told apart."""
    monkeypatch.setattr(limits, "STREAM_POLL_SECONDS", 0.005)
    monkeypatch.setattr(limits, "STREAM_RETRY_SECONDS_MAX", 0.01)
    monkeypatch.setattr(limits, "STREAM_TRY_SECONDS", 0.001)


# --- A broker of lists ------------------------------------------------------------------------------------------------


@dataclass
class Topics:
    """What outlives a broker object: the input by partition, the group's positions, everything written."""

    records: dict[int, list[Record]] = field(default_factory=dict)
    positions: dict[int, int] = field(default_factory=dict)
    written: list[Output] = field(default_factory=list)

    def add(self, value: bytes | None, *, partition: int = 0, key: bytes | None = None, headers: Headers = ()) -> None:
        held = self.records.setdefault(partition, [])
        held.append(Record(STREAM.input, partition, len(held), key, value, headers, 0.0))

    def of(self, topic: str) -> list[Output]:
        return [output for output in self.written if output.topic == topic]

    @property
    def waiting(self) -> int:
        return sum(len(held) - self.positions.get(partition, 0) for partition, held in self.records.items())


class ListBroker:
    """See Broker. `at(step)` is called at each of STEPS, and before positions move when outputs are written already;
    what it raises is the step's failure. `atomic`: outputs and positions are written together or not at all."""

    def __init__(self, topics: Topics, at: Callable[[str], None], *, atomic: bool = True, batch: int = 7) -> None:
        self._topics = topics
        self._at = at
        self._atomic = atomic
        self._batch = batch
        self._next: dict[int, int] = {}
        self._share = (0, 1)
        self.joined: list[tuple[int, int]] = []
        self.closed = 0
        self.threads = {threading.get_ident()}
        at("open")

    def keep(self) -> None: ...

    def join(self, index: int, count: int, without: Collection[int] = ()) -> None:  # noqa: ARG002
        self._enter("join")
        self._share = (index, count)
        self.joined.append(self._share)

    def poll(self, seconds: float, records_max: int = limits.STREAM_BATCH_RECORDS_MAX) -> Sequence[Record]:
        self._enter("poll")
        index, count = self._share
        assert self.joined
        found: list[Record] = []
        for partition, held in self._topics.records.items():
            if partition % count == index:
                start = self._next.setdefault(partition, self._topics.positions.get(partition, 0))
                taken = held[start : start + min(self._batch, records_max) - len(found)]
                self._next[partition] += len(taken)
                found += taken
        if not found:
            time.sleep(seconds)
        self._at("polled")
        return found

    def commit(self, outputs: Sequence[Output]) -> None:
        self._enter("commit")
        if not self._atomic:
            self._topics.written += outputs
            self._at("written")
            self._topics.positions.update(self._next)
        else:
            self._topics.written, self._topics.positions = [*self._topics.written, *outputs], dict(self._next)
        self._at("committed")

    def lag(self) -> Mapping[int, Lag]:
        raise NotImplementedError

    def close(self) -> None:
        self.closed += 1
        self.threads.add(threading.get_ident())
        self._at("close")

    def _enter(self, step: str) -> None:
        assert not self.closed
        self.threads.add(threading.get_ident())
        self._at(step)


class Faults:
    """Fails the nth time a step is reached, as often as it is told to; or does something else there."""

    def __init__(self, *failures: tuple[str, Exception | Callable[[], object]]) -> None:
        self.left = list(failures)
        self.seen: list[str] = []

    def __call__(self, step: str) -> None:
        self.seen.append(step)
        for failure in self.left:
            if failure[0] == step:
                self.left.remove(failure)
                if isinstance(failure[1], Exception):
                    raise failure[1]
                failure[1]()
                return


# --- The function -----------------------------------------------------------------------------------------------------


class FussyModel(StubExecutor):
    """The stub, which cannot run with SPOILT; remembers how many rows it was asked for."""

    def __init__(self) -> None:
        super().__init__((0.5,))
        self.asked: list[int] = []
        self.before: Callable[[], object] = lambda: None

    def run(self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[Any]]:
        self.asked.append(len(feeds["input"]))
        self.before()
        if SPOILT in feeds["input"]:
            raise RuntimeError("secret detail")
        return super().run(feeds, outputs)


def function(*, seconds: float = 1e-5) -> Function:
    made = Manifest(
        format=1,
        sunup="0.1.0",
        function="fraud",
        model=Model("fraud", "3", "run", "lightgbm"),
        request=REQUEST,
        inputs=(Tensor("input", "float64", (-1, 1), ("amount",)),),
        outputs=(Tensor("label", "int64", (-1,)), Tensor("probability", "float64", (-1, 2))),
        response=(
            ResponseField("score", "float64", output="probability", column=1),
            ResponseField("decision", "string", decision=Decision("score", 0.75, "block", "allow")),
        ),
        tolerance=1e-5,
        scale=Scale(),
        limits=Limits(),
        example={"card_id": 1, "amount": 1.0},
        files={},
    )
    return Function(
        manifest=made,
        executor=FussyModel(),
        lookup=None,
        assembly=Assembly(made.inputs, REQUEST),
        response=Response(made.response),
        cost=Cost(8, seconds),
        timings={},
    )


def body(card: int = 1, amount: float = 1.0) -> bytes:
    return json.dumps({"card_id": card, "amount": amount}).encode()


def prediction(amount: float) -> dict[str, Any]:
    score = float(1 / (1 + np.exp(-0.5 * amount)))
    return {"score": pytest.approx(score), "decision": "block" if score > 0.75 else "allow"}


class Told:
    """What the loop told; `until` waits for it."""

    def __init__(self) -> None:
        self.states: list[Trouble | None] = []
        self.messages: list[str] = []
        self.scored = 0
        self.dead = 0
        self._changed = asyncio.Event()

    def state(self, trouble: Trouble | None, message: str) -> None:
        self.states.append(trouble)
        self.messages.append(message)
        self._changed.set()

    def counted(self, scored: int, dead: int) -> None:
        self.scored += scored
        self.dead += dead
        self._changed.set()

    async def until(self, true: Callable[[], bool]) -> None:
        while not true():
            self._changed.clear()
            await self._changed.wait()


class Bench:
    """A loop over topics that outlive it; `start` may be called again when the loop before has ended."""

    def __init__(
        self, *, topics: Topics | None = None, at: Callable[[str], None] | None = None, atomic: bool = True
    ) -> None:
        self.topics = topics or Topics()
        self.at = at or Faults()
        self.atomic = atomic
        self.function = function()
        self.model: Any = self.function.executor
        self.clock: Clock = ManualClock(wall=1_700_000_000.0)
        self.pipeline = Pipeline(self.function, clock=self.clock)
        self.told = Told()
        self.brokers: list[ListBroker] = []
        self.event_loop = asyncio.get_running_loop()

    def open_broker(self) -> Broker:
        self.brokers.append(ListBroker(self.topics, self.at, atomic=self.atomic))
        return self.brokers[-1]

    def make(self, open_broker: Callable[[], Broker] | None = None, content: str = "auto") -> Loop:
        self.loop = Loop(
            self.pipeline,
            codec=self.function.record_codec(7),
            open_broker=open_broker or self.open_broker,
            stream=STREAM,
            content=content,
            function="fraud",
            revision=7,
            model="fraud/3",
            teller=self.told,
            clock=self.clock,
        )
        return self.loop

    async def finish(self, *, content: str = "auto") -> None:
        """Run until everything that is in the input is committed, and no trouble is left."""
        running = asyncio.create_task(self.make(content=content).run())
        await self.told.until(lambda: not self.topics.waiting and self.told.states[-1:] in ([], [None]))
        self.loop.drain()
        await running

    def later(self, act: Callable[[], object]) -> Callable[[], object]:
        """Do it on the event loop, from the broker's thread, before that goes on."""

        def acted() -> None:
            done = threading.Event()
            self.event_loop.call_soon_threadsafe(act)
            self.event_loop.call_soon_threadsafe(done.set)
            assert done.wait(5)

        return acted


def bench(test: Callable[[Bench], Coroutine[Any, Any, None]], **made: Any) -> None:
    async def run() -> None:
        one = Bench(**made)
        try:
            await test(one)
        finally:
            await one.pipeline.aclose()
        assert all(broker.closed == 1 for broker in one.brokers)
        used = set[int]().union(*(broker.threads for broker in one.brokers))
        assert threading.get_ident() not in used  # a broker blocks

    asyncio.run(run())


def error_of(output: Output) -> str:
    return dict(output.headers)["sunup_error_code"].decode()


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
    (None, [], "empty_value", None),
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
                "sunup_time": b"2023-11-14T22:13:20.000Z",
            }
        good = [json.loads(output.value or b"") for output in one.topics.of(STREAM.output)]
        assert good == [prediction(index) for index in range(len(MALFORMED))]
        assert (one.told.scored, one.told.dead) == (len(MALFORMED), len(MALFORMED))

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


# --- What fails for now, and what fails for good ----------------------------------------------------------------------


@dataclass
class Script:
    """Stands before a pipeline: the first answers are errors, of the whole call or of its nth row."""

    pipeline: Any
    errors: list[CallError | dict[int, CallError]]
    sizes: list[int] = field(default_factory=list)
    log: Any = None
    origins: list[tuple[str, int]] = field(default_factory=list)

    async def answer(self, call: Call) -> Reply:
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
    "error", [Overloaded("full"), DeadlineExceeded("late"), Unavailable("gone"), FeaturesMissing("no store")]
)
def test_a_call_that_fails_for_now_is_made_again(error: CallError) -> None:
    async def test(one: Bench) -> None:
        script = Script(one.pipeline, [error] * (limits.STREAM_TRIES_MAX - 1))
        one.pipeline = script  # type: ignore[assignment]
        for amount in range(5):
            one.topics.add(body(amount=amount))
        await one.finish()
        assert script.sizes == [5] * limits.STREAM_TRIES_MAX
        assert [json.loads(o.value or b"") for o in one.topics.written] == [prediction(amount) for amount in range(5)]

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
        assert pauses == [0.001, 0.002, 0.004]
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
        loop.share(1, 2)
        running = asyncio.create_task(loop.run())
        await one.told.until(lambda: one.told.scored == 2)
        assert one.topics.positions == {1: 1, 3: 1}
        loop.share(0, 2)
        await one.told.until(lambda: one.told.scored == 4)
        one.at.left = [("poll", BrokerError(Trouble.FENCED, "taken"))]  # type: ignore[attr-defined]
        await one.told.until(lambda: one.told.states == [Trouble.FENCED, None])
        assert "share=(0, 2)" in repr(loop)
        loop.drain()
        await running
        assert [broker.joined for broker in one.brokers] == [[(1, 2), (0, 2)], [(0, 2)]]

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
