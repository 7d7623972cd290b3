"""What stream feature views must be, worked out from a whole topic at once, with pandas and numpy.

Written from what the documentation says a value is, for tests to compare with what workers made of the same topic
record by record. Nothing of sunup is in it.
"""

import json
import math
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, Protocol

import numpy as np
import pandas as pd

AHEAD_SECONDS_MAX: Final = 60.0
BLOCK: Final = 256  # records of a card that are compared with those before them at once

AGGREGATED, LATE, DUPLICATE, INVALID = range(4)


class Wanted(Protocol):
    """One value: `function` of `column` over `window_s`."""

    @property
    def feature(self) -> str: ...
    @property
    def function(self) -> str: ...
    @property
    def column(self) -> str: ...
    @property
    def window_s(self) -> int: ...


def table(records: Iterable[Any], columns: Iterable[str]) -> pd.DataFrame:
    """The records of a topic in the order of their partitions and offsets: `partition`, `offset`, `valid`, `card`,
    `id`, `time`, and a float for each of `columns`, NaN for null and absent."""
    names = list(columns)
    rows = [(r.partition, r.offset, *_event(r.value, r.timestamp, names)) for r in records]
    frame = pd.DataFrame(rows, columns=["partition", "offset", "valid", "n", "card", "id", "time", *names])
    return frame.sort_values(["partition", "offset"], ignore_index=True)


def _event(value: bytes | None, stamp: float, names: list[str]) -> tuple[Any, ...]:
    none = (False, -1, -1, "", math.nan, *[math.nan] * len(names))
    try:
        record = json.loads(value or b"")
    except ValueError:
        return none
    if not isinstance(record, dict):
        return none
    card, id, time = record.get("card_id"), record.get("transaction_id"), _time(record.get("event_time"))
    known = isinstance(card, int) and isinstance(id, str) and id != ""
    valid = known and time is not None and time <= stamp + AHEAD_SECONDS_MAX
    given = [math.nan if record.get(name) is None else float(record[name]) for name in names]
    return (valid, record["n"], card if valid else -1, id if valid else "", time if valid else math.nan, *given)


def _time(said: object) -> float | None:
    if isinstance(said, str):
        try:
            return datetime.fromisoformat(said).timestamp()
        except ValueError:
            return None
    return float(said) if isinstance(said, int | float) else None


class Batch:
    """One view over a topic. `frame`: of `table`."""

    def __init__(self, frame: pd.DataFrame, hop_s: int, late_s: float, wanted: Iterable[Wanted]) -> None:
        self.frame = frame
        self.wanted = list(wanted)
        self._hop = hop_s
        valid = frame["valid"].to_numpy()
        time = frame["time"].where(valid, -math.inf)
        watermark = time.groupby(frame["partition"]).cummax()
        late = valid & (time < watermark - late_s).to_numpy()
        sound = frame[valid & ~late]
        copies = sound.index[sound.duplicated(["partition", "card", "id"])]
        self.outcome = np.where(valid, np.where(late, LATE, AGGREGATED), INVALID)
        self.outcome[copies] = DUPLICATE
        moment = np.maximum(time, watermark - late_s).to_numpy()
        self._tile = np.full(len(frame), -1, dtype=np.int64)
        taken = self.outcome == AGGREGATED
        self._tile[taken] = np.floor(time.to_numpy()[taken] / hop_s).astype(np.int64)
        self._asked = np.zeros(len(frame), dtype=np.int64)
        self._asked[valid] = np.floor(moment[valid] / hop_s).astype(np.int64)

    def counts(self) -> dict[str, int]:
        """How many records came to what."""
        found = np.bincount(self.outcome, minlength=4)
        return dict(zip(("aggregated", "late", "duplicate", "invalid"), map(int, found), strict=True))

    def before(self) -> pd.DataFrame:
        """For every valid record the values it finds, itself not in them. NaN: none."""
        found = np.full((len(self.frame), len(self.wanted)), math.nan)
        valid = self.frame[self.outcome != INVALID]
        columns = {each.column: self.frame[each.column].to_numpy() for each in self.wanted}
        for places in valid.groupby(["partition", "card"]).indices.values():
            at = valid.index.to_numpy()[places]  # rows of one card, in the order of the topic
            for start in range(0, len(at), BLOCK):
                self._block(at, start, columns, found)
        return pd.DataFrame(found, columns=[each.feature for each in self.wanted])

    def _block(self, at: np.ndarray, start: int, columns: dict[str, np.ndarray], found: np.ndarray) -> None:
        rows = at[start : start + BLOCK]
        asked, widest = self._asked[rows], max(each.window_s for each in self.wanted) // self._hop
        # What no record of the block can see any more: tiles only ever get newer but for the late ones.
        newest = np.maximum.accumulate(self._tile[at])
        first = int(np.searchsorted(newest, asked.min() - widest, side="right"))
        seen = at[first : start + len(rows)]
        tiles = self._tile[seen]
        earlier = (seen[None, :] < rows[:, None]) & (tiles >= 0)[None, :] & (tiles[None, :] <= asked[:, None])
        for number, each in enumerate(self.wanted):
            values = columns[each.column][seen]
            inside = earlier & (tiles[None, :] > asked[:, None] - each.window_s // self._hop)
            found[rows, number] = _reduced(each.function, inside & ~np.isnan(values)[None, :], values)

    def online(self, wall: float) -> pd.DataFrame:
        """By card, the values as of `wall`, or of its newest tile if that is ahead of it, and `newest`, the time of its
        newest event."""
        taken = self.outcome == AGGREGATED
        events = self.frame[taken].assign(tile=self._tile[taken])
        newest = events.groupby("card").agg(tile=("tile", "max"), newest=("time", "max"))
        asked = np.maximum(newest["tile"], math.floor(wall / self._hop))
        out = {"newest": newest["newest"]}
        for each in self.wanted:
            inside = events[events["tile"] > events["card"].map(asked) - each.window_s // self._hop]
            column = inside.groupby("card")[each.column]
            values = column.agg("count" if each.function == "count" else each.function)
            out[each.feature] = values.reindex(newest.index, fill_value=0 if each.function in _EMPTY else math.nan)
        return pd.DataFrame(out)


_EMPTY: Final = ("count", "sum")


def _reduced(function: str, inside: np.ndarray, values: np.ndarray) -> np.ndarray:
    count: np.ndarray = inside.sum(axis=1).astype(np.float64)
    if function == "count":
        return count
    total: np.ndarray = np.where(inside, values[None, :], 0.0).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        match function:
            case "sum":
                return total
            case "mean":
                return np.where(count, total / count, math.nan)
            case "min":
                least: np.ndarray = np.where(inside, values[None, :], math.inf).min(axis=1, initial=math.inf)
                return np.where(count, least, math.nan)
            case "max":
                most: np.ndarray = np.where(inside, values[None, :], -math.inf).max(axis=1, initial=-math.inf)
                return np.where(count, most, math.nan)
    raise ValueError(function)
