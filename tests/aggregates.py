"""What stream feature views come to, from the list of all events; and random cases to ask it about."""

import random
from collections import Counter
from math import floor, fsum, inf, isclose
from typing import Any, NamedTuple

from sunup.stream.aggregate.event import Event
from sunup.types import Aggregated, Aggregation

FUNCTIONS = ("sum", "count", "min", "max", "mean")
START = 1_700_000_000.0


def spec_of(*aggregations: tuple[str, str, int], hop_s: int = 300, late_s: float = 60.0) -> Aggregated:
    named = (Aggregation(f"f{i}", *each) for i, each in enumerate(aggregations))  # type: ignore[arg-type]
    return Aggregated("topic", "time", hop_s, late_s, "id", tuple(named))


class Reference:
    """All events that were aggregated, per key, and every question answered from them."""

    def __init__(self, spec: Aggregated) -> None:
        self.spec = spec
        self.watermark = -inf
        self.events: dict[bytes, list[Event]] = {}
        self.ids: dict[tuple[bytes, int], float] = {}
        self.counts: Counter[str] = Counter()

    def take(self, event: Event) -> tuple[Any, ...]:
        self.watermark = max(self.watermark, event.time)
        edge = self.watermark - self.spec.late_s
        before = self.at(event.key, floor(max(event.time, edge) / self.spec.hop_s))
        if event.time < edge:
            self.counts["late"] += 1
        elif event.id is not None and self.ids.get((event.key, event.id), -inf) >= edge:
            self.counts["duplicate"] += 1
        else:
            self.counts["aggregated"] += 1
            self.events.setdefault(event.key, []).append(event)
            if event.id is not None:
                self.ids[event.key, event.id] = event.time
        return before

    def at(self, key: bytes, q: int) -> tuple[Any, ...]:
        return tuple(self._one(key, each, q) for each in self.spec.aggregations)

    def _one(self, key: bytes, each: Aggregation, q: int) -> float | int | None:
        hop, column = self.spec.hop_s, self.spec.columns.index(each.column)
        inside = (e for e in self.events.get(key, ()) if q - each.window_s // hop < e.time // hop <= q)
        values = [v for e in inside if (v := e.values[column]) is not None]
        if each.function == "count":
            return len(values)
        if each.function == "sum":
            return fsum(values)
        return (
            (min(values), max(values), fsum(values) / len(values))[FUNCTIONS.index(each.function) - 2]
            if values
            else None
        )

    def values(self, key: bytes, wall: float) -> tuple[tuple[Any, ...], float]:
        hop = self.spec.hop_s
        times = [e.time for e in self.events.get(key, ())]
        known = (wall, self.watermark - self.spec.late_s, *times)
        q = max(floor(each / hop) for each in known if each > -inf)
        return self.at(key, q), max([*times, float(q * hop)])


def same(spec: Aggregated, ours: tuple[Any, ...], theirs: tuple[Any, ...], scale: float) -> None:
    """Exactly, but for sums: to 1e-12 of the largest amount that went into them."""
    assert len(ours) == len(theirs) == len(spec.aggregations)
    for each, one, other in zip(spec.aggregations, ours, theirs, strict=True):
        assert type(one) is type(other), (each, one, other)
        if each.function in ("sum", "mean") and one is not None:
            assert isclose(one, other, rel_tol=1e-12, abs_tol=1e-12 * scale), (each, one, other)
        else:
            assert one == other, (each, one, other)


class Case(NamedTuple):
    spec: Aggregated
    batches: list[list[Event]]
    walls: list[float]  # the time of day after each batch
    scale: float  # of a sum: what all amounts together come to


def case_of(rng: random.Random) -> Case:
    """Some hundred events of a few entities: jumps, gaps, disorder, copies, nulls."""
    hop = rng.choice((1, 5, 60, 60, 300, 3600))
    tiles_max = min(7 * 86_400 // hop, rng.choice((1, 3, 12, 300, 10_080)))
    columns = ("a", "b", "c")[: rng.randint(1, 3)]
    some = [
        (rng.choice(FUNCTIONS), rng.choice(columns), hop * rng.choice((1, tiles_max, rng.randint(1, tiles_max))))
        for _ in range(rng.randint(1, 5))
    ]
    late = rng.choice((0.0, 0.5, float(hop), hop * rng.uniform(0, 3), 86_400.0))
    spec = spec_of(*some, hop_s=hop, late_s=late)
    width = len(spec.columns)
    keys = [b"key-%d" % i for i in range(rng.choice((1, 2, 5, 40)))]
    step = rng.choice((0.01, 0.3, 3.0, tiles_max / 4)) * hop
    cents = rng.random() < 0.5
    sent: list[Event] = []
    now, batches, walls = START + rng.random() * 1e6, [], []
    for _ in range(rng.randint(1, 8)):
        batch = []
        for _ in range(rng.choice((1, 3, 30, 120))):
            now += rng.expovariate(1.0) * step if rng.random() < 0.9 else 0.0
            time = now - rng.choice((0.0, 0.0, rng.random() * late, rng.random() * late * 2, rng.random() * step))
            time = rng.choice((time, time, time // hop * hop))  # on the border of a tile, too
            values = [
                rng.choice((round(rng.gauss(50, 40), 2) if cents else rng.gauss(0, 1e6), None, 0.0))
                for _ in range(width)
            ]
            event = Event(0, rng.choice(keys), time, rng.choice((rng.getrandbits(64), None)), tuple(values))
            if sent and rng.random() < 0.15:
                event = rng.choice(sent[-30:])
                event = event._replace(
                    time=rng.choice((event.time, event.time, time)), key=rng.choice((event.key, keys[0]))
                )
            batch.append(event)
            sent.append(event)
        batches.append(batch)
        walls.append(now + rng.choice((0.0, 1.0, -2.0 * hop, hop * tiles_max * rng.random() * 2)))
    return Case(spec, batches, walls, sum(abs(v) for e in sent for v in e.values if v) or 1.0)
