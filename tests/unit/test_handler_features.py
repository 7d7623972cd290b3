"""A worker's handler over a bundle whose features come from across a network: answered by plain calls."""

import asyncio
import struct
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.small_bundle import logistic, make_bundle
from tests.unit.working import RECORD, Worker

from sunup.execute.executor import Executor
from sunup.lookup.keys import key_maker
from sunup.lookup.plan import Entity, Feature, JoinKey, ReadPlan, View, dump, entity_columns
from sunup.lookup.store import Keys, Reading, StoreUnavailable, Told
from sunup.lookup.stores.memory import MemoryStore
from sunup.serve.http.message import Pending, Request, Response
from sunup.types import Field

ENTITY = Entity(
    (JoinKey("card", "card", "INT64"),),
    (View("cards", "cards", None, None, (Feature("f1", "f1", "DOUBLE", 2.0), Feature("f2", "f2", "DOUBLE", 3.0))),),
)
PLAN = ReadPlan(1, "demo", 3, 20.0, "default", (ENTITY,), entity_columns((ENTITY,)))


class Network(MemoryStore):
    """A store that answers when the test says so."""

    inline = False

    def __init__(self, plan: ReadPlan) -> None:
        super().__init__(plan)
        self.asked: list[tuple[Keys, Told]] = []
        self.left = 0

    def ask(self, keys: Keys, deadline: float, told: Told) -> Reading:  # noqa: ARG002
        self.asked.append((keys, told))
        return self

    def cancel(self) -> None:
        self.left += 1

    def answer(self) -> None:
        asked, self.asked = self.asked, []
        for keys, told in asked:
            told(self.read_now(keys, float("inf")))


class Counted:
    """A model that remembers how many rows each run had."""

    def __init__(self, model: Executor) -> None:
        self._model = model
        self.rows: list[int] = []
        self.inputs, self.outputs, self.close = model.inputs, model.outputs, model.close

    def run(self, feeds: Any, outputs: Any) -> Any:
        self.rows.append(len(feeds["input"]))
        return self._model.run(feeds, outputs)


class Site:
    """A worker, its store and its model."""

    def __init__(self, folder: Path) -> None:
        rows = np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
        request = (Field("card", "int64"), Field("f0", "float64"))
        digest = make_bundle(folder, logistic(3), rows, request=request, features=dump(PLAN))
        self.store = Network(PLAN)
        self.models: list[Counted] = []
        self.worker = Worker(folder / digest, folder, executor=self._counted, store=lambda _: self.store)
        key = key_maker(ENTITY.join_keys, {"card": 0})
        for card in range(1, 5):
            value = b"\x29" + struct.pack("<d", card / 10)
            self.store.put("cards", key((card,)), {"f1": value, "f2": value}, at=1_700_000_000.0)

    def _counted(self, model: Executor) -> Executor:
        self.models.append(Counted(model))
        return self.models[0]

    def ask(self, body: bytes) -> Pending:
        pending = self.worker.handler.handle(Request(b"POST", b"/functions/score", [], body))
        assert isinstance(pending, Pending)
        return pending

    def inflight(self) -> float:
        return float(self.worker.segment.values[self.worker.segment.slot("sunup_inflight", function="score")])


def run(test: Callable[[Site], Coroutine[Any, Any, None]], folder: Path) -> None:
    async def alone() -> None:
        await test(Site(folder))

    asyncio.run(alone())


def record(card: int) -> bytes:
    return msgspec.json.encode({"card": card, "f0": 1.0})


def score(response: Response) -> float:
    assert response.status == 200
    return float(msgspec.json.decode(response.body)["predictions"][0]["score"])


def expected(card: int) -> Any:
    return pytest.approx(1 / (1 + np.exp(-(1.0 + card / 5))))


def test_calls_whose_features_come_together_share_a_run(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        asked = [asyncio.ensure_future(site.ask(record(card))) for card in (1, 2, 3)]
        await asyncio.sleep(0)
        assert site.inflight() == 3
        site.store.answer()
        assert [score(response) for response in await asyncio.gather(*asked)] == [expected(n) for n in (1, 2, 3)]
        assert site.models[0].rows == [3]
        assert (site.inflight(), site.worker.counted(200)) == (0, 3)

    run(test, tmp_path)


def test_the_answer_is_told_by_a_plain_call(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        pending, heard = site.ask(record(4)), list[Response]()
        pending.told = heard.append
        site.store.answer()
        assert heard == []
        await asyncio.sleep(0)
        assert score(heard[0]) == expected(4)
        assert [name for name, _ in heard[0].headers].count(b"server-timing") == 1

    run(test, tmp_path)


def test_a_store_that_fails_means_defaults(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        asked = asyncio.ensure_future(site.ask(record(1)))
        await asyncio.sleep(0)
        site.store.asked[0][1](StoreUnavailable("down for the test"))
        said = msgspec.json.decode((await asked).body)["predictions"][0]
        assert said["defaulted"] == ["f1", "f2"]

    run(test, tmp_path)


def test_who_left_is_not_scored(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        gone, stays = site.ask(record(1)), asyncio.ensure_future(site.ask(record(2)))
        await asyncio.sleep(0)
        gone.cancel()
        assert (site.inflight(), site.store.left) == (1, 1)
        site.store.answer()
        assert score(await stays) == expected(2)
        assert site.models[0].rows == [1]
        assert (site.inflight(), site.worker.counted(200)) == (0, 1)

    run(test, tmp_path)


def test_a_task_that_awaits_it_may_be_cancelled(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        task = asyncio.ensure_future(site.ask(record(1)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (site.inflight(), site.store.left) == (0, 1)

    run(test, tmp_path)


def test_what_nobody_foresaw_is_a_500(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        asked = asyncio.ensure_future(site.ask(record(1)))
        await asyncio.sleep(0)
        site.store.asked[0][1](ZeroDivisionError("detail"))
        response = await asked
        assert (response.status, site.inflight(), site.worker.counted(500)) == (500, 0, 1)
        assert b"detail" not in response.body

    run(test, tmp_path)


def test_a_bad_body_is_answered_at_once(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        response = site.worker.handler.handle(Request(b"POST", b"/functions/score", [], RECORD))
        assert isinstance(response, Response)
        assert (response.status, site.inflight()) == (400, 0)

    run(test, tmp_path)
