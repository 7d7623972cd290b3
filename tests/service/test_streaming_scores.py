"""A function that aggregates the topic it scores: what its stream sees, what a call sees then, what is told of it."""

import json
import random
import sqlite3
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.engine_fixture import Engine, until
from tests.redis_fixture import RedisServer
from tests.small_bundle import logistic, make_bundle
from tests.topics import Scored, Topics

from sunup.lookup.plan import Entity, Feature, JoinKey, ReadPlan, View, dump, entity_columns
from sunup.settings import STREAM_BROKER
from sunup.types import Aggregated, Aggregation, Field

FIELDS = (Field("id", "string"), Field("card", "int64"), Field("amount", "float64"), Field("at", "float64"))
CARDS = 20


def plan(topic: str) -> ReadPlan:
    """The count of a card's payments in the last hour, and one more view that is only read."""
    how = Aggregated(topic, "at", 60, 30.0, "id", (Aggregation("n", "count", "amount", 3600),))
    views = (
        View("recent", "recent", None, None, (Feature("n", "n", "INT64"),), aggregated=how),
        View("known", "known", None, None, (Feature("base", "base", "DOUBLE", 0.25),)),
    )
    entities = (Entity((JoinKey("card_id", "card", "INT64"),), views),)
    return ReadPlan(1, "p", 3, 1000.0, "default", entities, entity_columns(entities))


def make_tables(path: Path) -> None:
    """As `feast apply` makes them."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for view in ("recent", "known"):
            connection.execute(
                f"CREATE TABLE p_{view} (entity_key BLOB, feature_name TEXT, value BLOB, value_text TEXT, "
                "vector_value BLOB, event_ts timestamp, created_ts timestamp, PRIMARY KEY(entity_key, feature_name))"
            )


class Cards(Scored):
    """Payments of cards, whose score says how many there were before: logistic(n + 0.25)."""

    def deploy_on(self, store: str) -> None:
        digest = make_bundle(
            self.engine.project.bundles,
            logistic(2),
            np.linspace(-1.0, 1.0, 8).reshape(4, 2),
            function=self.name,
            request=FIELDS,
            features=dump(plan(self.stream.input)),
            names=("n", "base"),
            stream=self.stream,
            scale=self.scale,
            aggregates=("p/recent",),
        )
        settings = {"features_url": store, STREAM_BROKER: self.stream.broker}
        self.engine.deploy(self.name, digest, settings=settings, on_event=lambda _: None)

    def pay(self, ids: Sequence[int], card: Callable[[int], int], **more: Any) -> None:
        """One payment for each id."""
        now = time.time()
        records = [{"id": f"tx-{id}", "card": card(id), "amount": 1.0, "at": now} | more for id in ids]
        self.send_entries([(str(one["card"]).encode(), json.dumps(one).encode(), []) for one in records])

    def seen(self) -> dict[str, int]:
        """Where a payment was in the topic -> how many its score saw."""
        return {
            dict(output.headers)["ce_id"].decode(): _number(json.loads(output.value or b"")["score"])
            for output in self.outputs()
        }

    def expected(self) -> dict[str, int]:
        """The same, counted here."""
        counts: Counter[int] = Counter()
        ids: set[str] = set()
        found = {}
        for record in self.topics.read(self.stream.input):
            payment = json.loads(record.value or b"")
            found[f"{record.topic}-{record.partition}-{record.offset}"] = counts[payment["card"]]
            if payment["id"] not in ids:
                ids.add(payment["id"])
                counts[payment["card"]] += 1
        return found

    def called(self, card: int) -> int:
        """How many a call sees."""
        body = json.dumps({"id": "x", "card": card, "amount": 1.0, "at": 0.0}).encode()
        answer = json.loads(self.engine.ask("POST", f"/functions/{self.name}", body).body)
        return _number(answer["predictions"][0]["score"])


def _number(score: float) -> int:
    return round(float(np.log(score / (1.0 - score))) - 0.25)


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        make_tables(tmp_path / "online.db")
        return f"sqlite://{tmp_path}/online.db"
    server: RedisServer = request.getfixturevalue("redis_server")
    return server.url


def test_a_stream_sees_what_came_before_and_calls_see_it_then(engine: Engine, topics: Topics, store: str) -> None:
    cards = Cards(engine, topics, max_workers=1)
    cards.create()
    cards.deploy_on(store)
    draw = random.Random(7)
    of = [draw.randrange(CARDS) for _ in range(300)]
    cards.pay(range(200), of.__getitem__)
    cards.pay(range(190, 210), of.__getitem__)  # ten of them again
    cards.pay(range(210, 300), of.__getitem__)
    until(lambda: cards.facts["scored"] == 310, f"scores, not {cards.facts}")
    assert cards.seen() == cards.expected()
    totals = Counter(of)
    until(lambda: [cards.called(card) for card in range(CARDS)] == [totals[card] for card in range(CARDS)], "calls")
    cards.pay([300], lambda _: 3, at=time.time() - 600)  # too late
    cards.pay([301], lambda _: 3, at=time.time() + 600)  # ahead of its time
    cards.wait_for_zero()
    (view,) = cards.facts["features"]
    assert (view["late"], view["duplicates"], view["invalid"], view["behind"]) == (1, 10, 1, 0)
    assert view["entities"] == len(totals)
    assert "ahead" in view["reason"]
    assert 0.0 < view["freshness_ms"] < 60_000
    with urllib.request.urlopen(f"http://127.0.0.1:{engine.metrics_port}/metrics") as response:
        metrics = response.read().decode()
    for result, count in {"aggregated": 300, "late": 1, "duplicate": 10, "invalid": 1}.items():
        labels = f'{{function="{cards.name}",result="{result}",view="recent"}}'
        assert f"sunup_stream_feature_events_total{labels} {float(count)}" in metrics
    assert f'sunup_stream_feature_freshness_seconds_count{{function="{cards.name}",view="recent"}}' in metrics
    cards.pay(range(302, 320), lambda _: 5)  # a worker that is born later goes on where that one ended
    until(lambda: cards.called(5) == totals[5] + 18, "the count to go on")
    cards.wait_for_zero()
