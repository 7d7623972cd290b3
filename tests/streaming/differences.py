"""What stream feature views came to, compared with the batch computation: scores, online values, counts."""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd
from tests.exactly_once.ledger import SHOWN, Faults
from tests.streaming.batch import Batch, table
from tests.streaming.function import Streaming
from tests.streaming.stores import Stored
from tests.streaming.views import default, sdk_values

SAMPLE: Final = 40  # cards that Feast's SDK reads
LOOK_SECONDS: Final = 0.3
CLOCK_SECONDS: Final = 1.0  # times in a store are whole seconds


@dataclass
class Differences(Faults):
    """What is not as it must be, beside what becomes of records."""

    scores: list[str] = field(default_factory=list)  # whose features are not those of the events before
    online: list[str] = field(default_factory=list)  # values in the store
    counts: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return super().__bool__() or any((self.scores, self.online, self.counts))

    def __str__(self) -> str:
        said = [super().__str__()]
        for name in ("scores", "online", "counts"):
            found = getattr(self, name)
            said.append(f"{len(found)} {name}" + "".join(f"\n    {each}" for each in found[:SHOWN]))
        return "\n  ".join(said)


class Expected:
    """What a topic must have come to. It is read when this is made."""

    def __init__(self, streaming: Streaming) -> None:
        specs = streaming.specs
        columns = dict.fromkeys(name for spec in specs.values() for name in spec.columns)
        self.frame = table(streaming.topics.scan(streaming.stream.input), columns)
        self.batches = {
            name: Batch(self.frame, spec.hop_s, spec.late_s, spec.aggregations) for name, spec in specs.items()
        }
        self._streaming = streaming

    def __repr__(self) -> str:
        return f"Expected({ {name: batch.counts() for name, batch in self.batches.items()} })"

    # --- Scores -------------------------------------------------------------------------------------------------------

    def judge_scores(self, factors: Mapping[int, float], found: Differences) -> dict[int, int]:
        """Every record scored once or a dead letter once, and each score of the features of the events before it. How
        many records each revision scored."""
        streaming, frame = self._streaming, self.frame
        at = pd.Series(frame.index, index=pd.MultiIndex.from_frame(frame[["partition", "offset"]])).to_dict()
        times, revisions = np.zeros(len(frame), dtype=np.int64), dict[int, int]()
        saw = np.full((len(frame), len(streaming.columns)), math.nan)
        for record in streaming.topics.scan(streaming.stream.output):
            headers = dict(record.headers)
            *_, partition, offset = headers["ce_id"].rsplit(b"-", 2)
            revision = int(headers["ce_revision"])
            row = at.get((int(partition), int(offset)))
            if row is None:
                found.strange.append(f"an output of {headers['ce_id']!r}")
                continue
            times[row] += 1
            revisions[revision] = revisions.get(revision, 0) + 1
            said = json.loads(record.value or b"")
            saw[row] = [said[name] / factors[revision] for name in streaming.columns]
        scored = times.astype(bool)
        for record in streaming.topics.scan(streaming.stream.dead_letter):
            headers = dict(record.headers)
            times[at[int(headers["sunup_partition"]), int(headers["sunup_offset"])]] += 1
        for row in np.flatnonzero(times != 1):
            place = int(frame["partition"][row]), int(frame["offset"][row])
            (found.lost if times[row] == 0 else found.doubled).append(place)
        self._compare(saw, scored, found)
        return dict(sorted(revisions.items()))

    def _compare(self, saw: np.ndarray, scored: np.ndarray, found: Differences) -> None:
        columns = self._streaming.columns
        wanted = [self.frame["n"].to_numpy(float)]
        for batch in self.batches.values():
            before = batch.before()
            # What is no event of the view finds nothing either, and takes the defaults.
            wanted += [before[a.feature].fillna(default(a.function)).to_numpy(float) for a in batch.wanted]
        for number, (name, right) in enumerate(zip(columns, wanted, strict=True)):
            for row in np.flatnonzero(scored & (saw[:, number] != right)):
                one = self.frame.loc[row]
                found.scores.append(
                    f"{name} of record {one['partition']}-{one['offset']} (card {one['card']}, {one['id']}, "
                    f"{one['time']}): {saw[row, number]}, not {right[row]}"
                )

    # --- What the store holds -----------------------------------------------------------------------------------------

    def judge_online(self, found: Differences, seconds: float, *, forgotten: bool = False) -> float:
        """Every value of every card, as of the hop it is read in. Values follow the clock a moment later, so they are
        read again until they are right, for so long. `forgotten`: what has left every window may be away. Seconds
        until they were right."""
        begun = time.monotonic()
        while True:
            late = time.monotonic() - begun > seconds
            wall = time.time()
            hops = self._hops(wall)
            said = [line for name in self.batches for line in self._online(name, wall, forgotten=forgotten)]
            if not said or late:
                found.online += said
                return time.monotonic() - begun
            time.sleep(LOOK_SECONDS if self._hops(time.time()) == hops else 0.0)

    def _hops(self, wall: float) -> list[int]:
        return [int(wall // spec.hop_s) for spec in self._streaming.specs.values()]

    def _online(self, name: str, wall: float, *, forgotten: bool) -> list[str]:
        batch = self.batches[name]
        right = batch.online(wall)
        stored = self._streaming.online(name, right.index)
        names = [each.feature for each in batch.wanted]
        said: list[str] = []
        rows = zip(right.index, right["newest"], right[names].to_numpy(), strict=True)
        empty = [0.0 if each.function in ("count", "sum") else math.nan for each in batch.wanted]
        for card, newest, values in rows:
            row = stored.get(card)
            if row is None:
                if not (forgotten and np.array_equal(values, empty, equal_nan=True)):
                    said.append(f"card {card} is not in {name}, and must be {values.tolist()}")
                continue
            said += _row(f"card {card} of {name}", row, dict(zip(names, values.tolist(), strict=True)), newest, wall)
        return said

    def judge_sdk(self, found: Differences) -> None:
        """Of a sample Feast's SDK reads what is there."""
        cards = sorted({int(card) for batch in self.batches.values() for card in batch.online(0.0).index[:SAMPLE]})
        there = {name: self._streaming.online(name, cards) for name in self.batches}
        read = sdk_values(self._streaming.feast, cards)
        for name, batch in self.batches.items():
            for each in batch.wanted:
                for card, value in zip(cards, read[each.feature], strict=True):
                    row = there[name].get(card)
                    if value != (None if row is None else row.values[each.feature]):
                        found.online.append(f"{each.feature} of card {card}: Feast reads {value}, and there is {row}")


def _row(what: str, row: Stored, right: Mapping[str, float], newest: float, wall: float) -> list[str]:
    said = [
        f"{name} of {what}: {row.values.get(name)}, not {value}"
        for name, value in right.items()
        if not _same(row.values.get(name), value)
    ]
    if not newest - CLOCK_SECONDS <= row.at <= max(newest, wall) + CLOCK_SECONDS:
        said.append(f"{what} is of {row.at}, its newest event of {newest}")
    return said


def _same(stored: Any, right: float) -> bool:
    return stored is None if math.isnan(right) else stored == right
