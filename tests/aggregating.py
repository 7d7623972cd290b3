"""Aggregates with a topic of simple records, a store in memory, and a small loop around them."""

import json
import os
import random
from collections.abc import Sequence
from pathlib import Path

from tests.kafka_fixture import Message

from sunup.clock import Clock
from sunup.lookup.store import StoreUnavailable
from sunup.lookup.writing.writer import Write
from sunup.stream.admin import Admin
from sunup.stream.aggregate.aggregates import Aggregates
from sunup.stream.aggregate.event import Event
from sunup.stream.aggregate.online import Streamed
from sunup.stream.aggregate.partition import Counts
from sunup.stream.aggregate.table import Table
from sunup.stream.broker import Broker, Record
from sunup.types import Aggregated, Aggregation

HOP = 60
SPEC = Aggregated(
    topic="in",
    timestamp="at",
    hop_s=HOP,
    late_s=120.0,
    event_id="id",
    aggregations=(
        Aggregation("count_1h", "count", "amount", 3600),
        Aggregation("sum_1h", "sum", "amount", 3600),
        Aggregation("max_10m", "max", "amount", 600),
    ),
)
VIEW = Streamed("cards", SPEC, (0, 1, 2), ("INT64", "DOUBLE", "DOUBLE"))


def message(key: str, at: float, amount: float, id_: int) -> Message:
    return key.encode(), json.dumps({"key": key, "at": at, "amount": amount, "id": id_}).encode(), []


def events(records: Sequence[Record]) -> list[list[Event | None]]:
    """Of one view: what stream.scoring.events does, for these records."""
    found: list[Event | None] = []
    for record in records:
        one = json.loads(record.value or b"null")
        found.append(one and Event(record.offset, one["key"].encode(), one["at"], one["id"], (one["amount"],)))
    return [found]


class Store:
    """A FeatureWriter with a store in memory."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, bytes], Write] = {}
        self.is_down = False
        self.mark = b""
        self.there = b""
        self.passed_over = 0
        self.writes = 0

    def write(self, view: str, rows: Sequence[Write]) -> None:
        self._up()
        for row in rows:
            old = self.rows.get((view, row.key))
            if old is not None and old.version > row.version:
                self.passed_over += 1
            else:
                self.rows[view, row.key] = row
                self.writes += 1

    def is_lost(self) -> bool:
        self._up()
        self.mark = self.mark or self.there
        return not self.there or self.there != self.mark

    def begin(self) -> None:
        self._up()
        self.mark = self.there = self.there or os.urandom(4)

    def close(self) -> None: ...

    def lose(self) -> None:
        self.rows.clear()
        self.there = b""

    def values(self) -> dict[bytes, tuple[object, ...]]:
        return {key: row.values for (_, key), row in self.rows.items()}

    def _up(self) -> None:
        if self.is_down:
            raise StoreUnavailable("the store is down")


class Told:
    """A Teller that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.counts = Counts(0, 0, 0)

    def aggregated(self, view: str, counts: Counts) -> None:  # noqa: ARG002
        self.counts = Counts(*(a + b for a, b in zip(self.counts, counts, strict=True)))

    def note(self, message: str) -> None:
        self.notes.append(message)


def aggregates(
    folder: Path,
    admin: Admin | None,
    *,
    topic: str,
    group: str,
    changelog: str | None = None,
    store: Store | None = None,
    told: Told | None = None,
    clock: Clock | None = None,
    views: Sequence[Streamed] = (VIEW,),
    open_admin: object = None,
) -> Aggregates:
    return Aggregates(
        views,
        folder,
        group=group,
        topic=topic,
        changelog=changelog,
        open_admin=open_admin or (lambda: admin),  # type: ignore[arg-type]
        events=lambda records: events(records) * len(views),
        writer=store or Store(),
        teller=told or Told(),
        clock=clock,
    )


def killed(made: Aggregates) -> None:
    """What a kill -9 leaves: nothing more is kept, the locks are free, and so are the sockets."""
    for part in made._parts.values():
        part.state.close()
    made._opening.close()


def turn(broker: Broker, made: Aggregates, records_max: int = 500, seconds: float = 0.2) -> list[tuple[Record, object]]:
    """One batch: what each record's score would see of its entity."""
    records = broker.poll(seconds, records_max)
    made.share(broker.reads())
    if not records:
        return []
    before = made.take(records, events(records) * len(made.facts()))
    broker.commit(made.outputs())
    made.committed()
    return list(zip(records, before[0], strict=True))


class Reference:
    """What an undisturbed run gives: every partition's records through one table, one after the other."""

    def __init__(self, admin: Admin, topic: str) -> None:
        self.before: dict[tuple[int, int], tuple[object, ...]] = {}
        self.tables: dict[int, tuple[Table, list[bytes]]] = {}
        for number, (first, end) in admin.span(topic).items():
            table, keys, at = Table(SPEC), dict[bytes, None](), first
            while at < end and (records := admin.read(topic, number, at, 5000)):
                at = records[-1].offset + 1
                some = [event for event in events(records)[0] if event is not None]
                table.load({event.key: None for event in some})
                taken = table.take(some)
                keys |= dict.fromkeys(event.key for event in some)
                self.before |= {(number, e.offset): before for e, before in zip(some, taken.before, strict=True)}
            self.tables[number] = table, list(keys)

    def values(self, wall: float) -> dict[bytes, tuple[object, ...]]:
        """Of every entity, online."""
        return {
            key: one.values
            for table, keys in self.tables.values()
            for key, one in zip(keys, table.values(keys, wall), strict=True)
        }


def drawn(count: int, keys: int, start: float, seed: int = 1, span: float = 7200.0) -> list[Message]:
    """Messages over `span` seconds up to `start`, out of order by up to 200 s, one in ten twice."""
    draw = random.Random(seed)
    made: list[Message] = []
    for number in range(count):
        at = start - span + span * number / count - draw.choice((0, 0, 0, 30, 100, 200)) * draw.random()
        made.append(message(f"card {draw.randrange(keys)}", at, round(draw.uniform(1, 100), 2), number))
        if draw.random() < 0.1:
            made.append(draw.choice(made[-50:]))
    return made
