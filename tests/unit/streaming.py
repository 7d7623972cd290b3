"""A stream loop on the real pipeline, over a broker of lists that fails where it is told to."""

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.unit.listed import STEPS, STREAM, Faults, ListBroker, Topics

from sunup import limits
from sunup.batch.assemble import Assembly
from sunup.batch.respond import Response
from sunup.bundle.manifest import Limits, Manifest, Model, Scale
from sunup.clock import Clock, ManualClock
from sunup.execute.stub import StubExecutor
from sunup.function import Cost, Function
from sunup.pipeline import Pipeline
from sunup.stream.broker import Broker, Output, Trouble
from sunup.stream.loop import Loop
from sunup.stream.scoring.aggregating import Aggregating
from sunup.stream.scoring.deaths import Deaths
from sunup.types import Decision, Field, ResponseField, Tensor
from sunup.wire.confluent.schemas import Schemas

REQUEST = (Field("card_id", "int64"), Field("amount", "float64"))
__all__ = ["STEPS", "STREAM", "Faults", "ListBroker", "Topics"]

SPOILT = -1.0  # an amount the model cannot take
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses as short as they can be told apart."""
    monkeypatch.setattr(limits, "STREAM_POLL_SECONDS", 0.005)
    monkeypatch.setattr(limits, "STREAM_RETRY_SECONDS_MAX", 0.01)
    monkeypatch.setattr(limits, "STREAM_TRY_SECONDS", 0.001)


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
        self.scored = self.dead = self.ignored = 0
        self._changed = asyncio.Event()

    def state(self, trouble: Trouble | None, message: str) -> None:
        self.states.append(trouble)
        self.messages.append(message)
        self._changed.set()

    def counted(self, scored: int, dead: int, ignored: int) -> None:
        self.scored += scored
        self.dead += dead
        self.ignored += ignored
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
        self.batch = 7
        self.function = function()
        self.model: Any = self.function.executor
        self.clock: Clock = ManualClock(wall=1_700_000_000.0)
        self.pipeline = Pipeline(self.function, clock=self.clock)
        self.told = Told()
        self.schemas: Schemas | None = None
        self.aggregating: Aggregating | None = None
        self.brokers: list[ListBroker] = []
        self.event_loop = asyncio.get_running_loop()

    def open_broker(self) -> Broker:
        self.brokers.append(ListBroker(self.topics, self.at, atomic=self.atomic, batch=self.batch))
        return self.brokers[-1]

    def make(
        self, open_broker: Callable[[], Broker] | None = None, content: str = "auto", deaths: Deaths | None = None
    ) -> Loop:
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
            deaths=deaths,
            schemas=self.schemas,
            clock=self.clock,
            aggregating=self.aggregating,
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
