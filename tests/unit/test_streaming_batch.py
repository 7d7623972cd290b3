"""The batch computation that stream feature views are compared with: a story worked out by hand, and the long way."""

import json
import math
from typing import Any

import numpy as np
import pytest
from tests.streaming.batch import AGGREGATED, DUPLICATE, INVALID, LATE, Batch, table
from tests.streaming.events import Events

from sunup.stream.broker import Record
from sunup.types import Aggregation

BASE = 1_700_000_040.0  # the beginning of a tile of 10 s
COUNT, SUM, LEAST, MEAN = WANTED = (
    Aggregation("count", "count", "amount", 20),
    Aggregation("sum", "sum", "amount", 60),
    Aggregation("least", "min", "amount", 60),
    Aggregation("mean", "mean", "amount", 20),
)


def record(offset: int, time: Any, amount: float | None, *, card: int = 1, id: str = "") -> Record:
    said = {"n": offset, "card_id": card, "transaction_id": id or f"t{offset}", "event_time": time, "amount": amount}
    return Record("in", 0, offset, b"", json.dumps(said).encode(), [], BASE + 30)


STORY = [
    record(0, BASE, 1.0),
    record(1, BASE + 9, 2.0),  # the same tile
    record(2, BASE + 10, 4.0),  # the next one: the window of two tiles holds both
    record(3, BASE + 20, None),  # takes no part; the first tile has left the short window
    record(4, BASE + 5, 8.0),  # out of order: seen as of 15 s ago, which is tile 0
    record(5, BASE + 4, 16.0),  # more than 15 s older than the newest
    record(6, BASE + 10, 4.0, id="t2"),  # a second time
    record(7, BASE + 91, 1.0),  # more than 60 s ahead of its record
    record(8, "2023-11-14T22:14:20Z", 32.0),  # BASE + 20 s
    record(9, BASE + 20, 64.0, card=2),
]
OUTCOMES = [AGGREGATED] * 5 + [LATE, DUPLICATE, INVALID, AGGREGATED, AGGREGATED]
BEFORE = {
    0: (0, 0.0, math.nan, math.nan),
    1: (1, 1.0, 1.0, 1.0),
    2: (2, 3.0, 1.0, 1.5),
    3: (1, 7.0, 1.0, 4.0),
    4: (2, 3.0, 1.0, 1.5),  # as of tile 0: what happened later is not in it
    5: (3, 11.0, 1.0, 11 / 3),
    6: (4, 15.0, 1.0, 3.75),
    8: (1, 15.0, 1.0, 4.0),
    9: (0, 0.0, math.nan, math.nan),
}


@pytest.fixture
def batch() -> Batch:
    return Batch(table(STORY, ["amount"]), 10, 15.0, WANTED)


def test_what_becomes_of_each_event(batch: Batch) -> None:
    assert batch.outcome.tolist() == OUTCOMES
    assert batch.counts() == {"aggregated": 7, "late": 1, "duplicate": 1, "invalid": 1}


def test_what_each_event_finds(batch: Batch) -> None:
    before = batch.before()
    for row, wanted in BEFORE.items():
        assert before.loc[row].tolist() == pytest.approx(wanted, nan_ok=True), row
    assert before.loc[7].isna().all()


def test_what_is_online_as_time_goes_on(batch: Batch) -> None:
    at = {after: batch.online(BASE + after) for after in (0, 29.9, 30, 60, 70, 80)}
    assert at[0].loc[1].tolist() == at[29.9].loc[1].tolist() == [BASE + 20, 2, 47.0, 1.0, 18.0]  # 0: its newest tile
    assert at[30].loc[1].tolist() == [BASE + 20, 1, 47.0, 1.0, 32.0]
    assert at[60].loc[1].tolist()[1:4] == [0, 36.0, 4.0]
    assert at[70].loc[1].tolist()[1:4] == [0, 32.0, 32.0]
    assert at[80].loc[1].tolist()[1:] == pytest.approx([0, 0.0, math.nan, math.nan], nan_ok=True)
    assert at[80].loc[2].tolist()[1:3] == [0, 0.0]


def test_the_long_way_gives_the_same() -> None:
    events = Events(3000, 30, BASE, BASE + 600, late_s=(15.0, 40.0), odd=0.05)
    records = [
        Record("in", int(key or 0) % 2, number, key, value, [], BASE + number / 5)
        for number, (key, value, _) in enumerate(events.entries(range(3000)))
    ]
    frame = table(records, ["amount"])
    batch = Batch(frame, 10, 15.0, WANTED)
    before = batch.before()
    assert min(batch.counts().values()) > 10
    for row in range(0, 3000, 7):
        if batch.outcome[row] != INVALID:
            assert before.loc[row].tolist() == pytest.approx(_slowly(frame, batch.outcome, row), nan_ok=True), row


def _slowly(frame: Any, outcome: Any, row: int) -> list[float]:
    """The values one record finds, by looking at every other one."""
    own = frame.loc[row]
    newest = frame[(frame["partition"] == own["partition"]) & (frame.index <= row)]["time"].max()
    tile = max(own["time"], newest - 15.0) // 10
    found = []
    for each in WANTED:
        values = [
            one.amount
            for one in frame.itertuples()
            if (one.partition, one.card) == (own["partition"], own["card"])
            and one.Index < row
            and outcome[one.Index] == AGGREGATED
            and tile - each.window_s // 10 < one.time // 10 <= tile
            and not math.isnan(one.amount)
        ]
        none = 0.0 if each.function in ("count", "sum") else math.nan
        reduced: Any = {"count": len, "sum": sum, "min": min, "mean": np.mean}[each.function]
        found.append(float(reduced(values)) if values else none)
    return found
