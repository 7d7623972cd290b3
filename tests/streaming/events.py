"""Events as topics really have them: keys by Zipf, late ones, later ones, copies, nulls, and some that are none.

What becomes of each is nowhere noted here: that is worked out from the topic, by batch.py.
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

import numpy as np
from tests.topics import Entry

BACK: Final = 2000  # how many records back a copy's first one is, at most
NEAR: Final = 50  # half of them are not farther
EAST: Final = timezone(timedelta(hours=2))


class Events:
    """`count` events of `cards` cards, the first about at `begin` and the last about at `end`, seconds since the epoch.

    Times are eighths of a second and amounts quarters, so that no order of adding them up changes a sum. `odd`: the
    share of the events that is no event at all.
    """

    def __init__(
        self,
        count: int,
        cards: int,
        begin: float,
        end: float,
        *,
        late_s: tuple[float, float],
        odd: float,
        seed: int = 9,
    ) -> None:
        draw = np.random.default_rng(seed)
        weights = 1 / (np.arange(cards) + 8.0) ** 0.9
        self._card = draw.choice(cards, count, p=weights / weights.sum())
        when = np.linspace(begin, end, count) + _shifts(draw, count, late_s)
        self._time = np.round(when * 8) / 8
        self._amount = draw.integers(1, 8000, count) / 4
        self._fee = draw.integers(0, 40, count) / 4
        self._null = draw.random((2, count)) < 0.04  # of amount, of fee
        self._form = draw.random(count)  # of what is written
        back = np.where(draw.random(count) < 0.5, draw.integers(1, NEAR, count), draw.integers(1, BACK, count))
        self._copy = np.minimum(np.where(draw.random(count) < 0.04, back, 0), np.arange(count))
        self._odd = np.where(draw.random(count) < odd, draw.integers(1, len(_ODD) + 1, count), 0)

    def __len__(self) -> int:
        return len(self._card)

    def entries(self, numbers: Iterable[int]) -> list[Entry]:
        return [self._entry(number) for number in numbers]

    def _entry(self, number: int) -> Entry:
        number -= int(self._copy[number])  # a copy of a copy is one of nothing: what is meant is the record there
        record = self._record(number)
        if odd := self._odd[number]:
            value: Any = _ODD[odd - 1](record)
        else:
            value = record
        key = b"%d" % self._card[number]
        return key, value if isinstance(value, bytes) else json.dumps(value).encode(), []

    def _record(self, number: int) -> dict[str, Any]:
        time, form = float(self._time[number]), self._form[number]
        zone = EAST if form > 0.9 else UTC
        said: Any = datetime.fromtimestamp(time, zone).isoformat(timespec="milliseconds")
        if form < 0.5:
            said = said.replace("+00:00", "Z")
        record: dict[str, Any] = {
            "n": number,
            "card_id": int(self._card[number]),
            "transaction_id": f"t-{number}",
            "event_time": time if 0.5 < form < 0.52 else said,  # which the function does not take, and the view does
            "amount": None if self._null[0, number] else float(self._amount[number]),
            "fee": None if self._null[1, number] else float(self._fee[number]),
        }
        if 0.52 < form < 0.53:
            del record["fee"]  # the same
        return record


def _shifts(draw: np.random.Generator, count: int, late_s: tuple[float, float]) -> np.ndarray:
    """How much each event is off its turn: most hardly, some by less than the shorter lateness, few by more than that,
    and some by more than the longer."""
    short, long = late_s
    share = draw.random(count)
    shifts = draw.uniform(-0.5, 0.5, count)
    for low, high, bounds in (
        (0.75, 0.94, (-0.8 * short, 0.0)),
        (0.94, 0.97, (-0.9 * long, -1.2 * short)),
        (0.97, 0.98, (-4 * long, -1.5 * long)),
        (0.98, 0.985, (0.0, 2.0)),
    ):
        some = (share >= low) & (share < high)
        shifts[some] = draw.uniform(*bounds, some.sum())
    return shifts


def _later(record: dict[str, Any]) -> dict[str, Any]:
    ahead = datetime.now(UTC) + timedelta(hours=1)
    return {**record, "event_time": ahead.isoformat(timespec="milliseconds")}


def _without(name: str) -> Any:
    return lambda record: {key: value for key, value in record.items() if key != name}


_ODD: Final = (
    _later,
    _without("event_time"),
    _without("transaction_id"),
    _without("card_id"),
    lambda record: {**record, "event_time": "yesterday"},
    lambda record: {**record, "card_id": "seven"},
    lambda record: {**record, "transaction_id": None},
    lambda record: json.dumps(record).encode()[:-5],
    lambda _: b"[1, 2]",
)
