"""Tiles, offsets and values in step: whatever goes wrong in between, on the embedded log."""

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import aggregating
from tests.aggregating import HOP, VIEW, Reference, Store, Told, aggregates, drawn, message, turn

from sunup.clock import ManualClock
from sunup.stream.aggregate import partition
from sunup.stream.aggregate.aggregates import Aggregates
from sunup.stream.aggregate.kept.state import Change, State
from sunup.stream.aggregate.online import Streamed
from sunup.stream.broker import BrokerError, Reader, Stream, Trouble
from sunup.stream.embedded import EmbeddedBroker, Log
from sunup.stream.embedded_admin import EmbeddedAdmin

STREAM = Stream("group", "in", "out", "dead")


class Place:
    """A log with two partitions, a folder for tiles, a store, and who reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "tiles"
        self.path = folder / "log.db"
        self.log = Log(self.path)
        self.log.create("in", 2)
        self.admin = EmbeddedAdmin(self.path)
        self.clock = ManualClock()
        self.store = Store()
        self.told = Told()
        self.made: list[Aggregates] = []
        self.brokers: list[EmbeddedBroker] = []

    def send(self, count: int, keys: int = 20, seed: int = 1) -> None:
        self.log.append("in", drawn(count, keys, self.clock.wall(), seed))

    def open(self, views: tuple[Streamed, ...] = (VIEW,)) -> tuple[EmbeddedBroker, Aggregates]:
        self.end()
        broker = EmbeddedBroker(self.path, STREAM, Reader("reader"))
        broker.join(0, 1)
        made = aggregates(
            self.folder,
            self.admin,
            topic="in",
            group="group",
            store=self.store,
            told=self.told,
            clock=self.clock,
            views=views,
        )
        self.made.append(made)
        self.brokers.append(broker)
        return broker, made

    def end(self) -> None:
        """What a kill -9 leaves: nothing is kept, the locks are free."""
        for made in self.made:
            for part in made._parts.values():
                part.state.close()
        for broker in self.brokers:
            broker.close()
        self.made.clear()
        self.brokers.clear()

    def read(self, broker: EmbeddedBroker, made: Aggregates) -> dict[tuple[int, int], object]:
        """To the end of the topic."""
        seen: dict[tuple[int, int], object] = {}
        while got := turn(broker, made, seconds=0.0):
            seen |= {(record.partition, record.offset): before for record, before in got}
        return seen

    def settle(self, made: Aggregates) -> None:
        """Everything that is due is written."""
        for _ in range(100):
            due = made.tick()
            if due is None or due > self.clock.wall():
                return
            self.clock.advance(0.3)
        pytest.fail("something stays due")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.end()


def test_scores_see_what_was_before_and_the_store_what_is_now(place: Place) -> None:
    place.send(2000)
    broker, made = place.open()
    seen = place.read(broker, made)
    reference = Reference(place.admin, "in")
    assert seen == reference.before
    place.settle(made)
    assert place.store.values() == reference.values(place.clock.wall())
    assert place.told.counts.late > 0
    assert place.told.counts.duplicates > 0
    assert sum(place.told.counts) == len(seen)
    assert place.told.notes == []


@pytest.mark.parametrize("seed", range(8))
def test_any_end_at_any_time_changes_nothing(place: Place, seed: int) -> None:
    """Batches that are given up, commits that fail before or after they are done, processes that end."""
    draw = random.Random(seed)
    place.send(4000, seed=seed)
    broker, made = place.open()
    seen: dict[tuple[int, int], object] = {}
    while True:
        records = broker.poll(0.0, draw.choice((50, 200, 700)))
        made.share(broker.reads())
        if not records:
            break
        events = aggregating.events(records)
        before = made.take(records, events)
        what = draw.choice(("goes well",) * 4 + ("given up", "not committed", "lost", "killed before", "killed after"))
        outputs = made.outputs()
        if what in ("goes well", "lost", "killed after"):
            broker.commit(outputs)
            seen |= {(r.partition, r.offset): b for r, b in zip(records, before[0], strict=True)}
        if what == "goes well":
            made.committed()
            place.clock.advance(draw.choice((0.1, 0.3)))
            if draw.random() < 0.3:
                made.tick()
        elif what.startswith("killed"):
            broker, made = place.open()
        else:
            made.forget()
            broker.close()
            broker = EmbeddedBroker(place.path, STREAM, Reader("reader"))
            broker.join(0, 1)
            place.brokers.append(broker)
    reference = Reference(place.admin, "in")
    assert seen == reference.before
    place.settle(made)
    assert place.store.values() == reference.values(place.clock.wall())


def test_a_value_falls_when_a_tile_leaves_its_window(place: Place) -> None:
    now = place.clock.wall()
    place.log.append("in", [message("card", now - 1, 10.0, 1), message("card", now, 5.0, 2)])
    broker, made = place.open()
    place.read(broker, made)
    assert place.store.values() == {b"card": (2, 15.0, 10.0)}
    due = made.tick()
    assert due is not None
    assert due == (now // HOP + 10) * HOP  # the tile leaves the window of ten minutes first
    place.clock.advance(due - now)
    assert (made.tick(), place.store.values()) == ((now // HOP + 60) * HOP, {b"card": (2, 15.0, None)})
    place.clock.advance(3600)
    assert made.tick() is None
    assert place.store.values() == {b"card": (0, 0.0, None)}
    row = place.store.rows["cards", b"card"]
    assert row.at == place.clock.wall() // HOP * HOP


def test_a_store_that_is_down_holds_nothing_up(place: Place) -> None:
    place.send(500)
    broker, made = place.open()
    place.store.is_down = True
    seen = place.read(broker, made)
    reference = Reference(place.admin, "in")
    assert seen == reference.before
    assert made.tick() == place.clock.wall()
    (facts,) = made.facts()
    assert (facts.behind, facts.reason, facts.entities) == (20, "the store is down", 20)
    broker, made = place.open()  # and this one knows what the store does not have
    made.share(broker.reads())
    place.store.is_down = False
    place.settle(made)
    assert place.store.values() == reference.values(place.clock.wall())
    assert made.facts()[0].behind == 0


def test_a_store_that_lost_everything_gets_it_again(place: Place) -> None:
    place.send(3000, keys=2500)
    broker, made = place.open()
    place.read(broker, made)
    place.settle(made)
    before = {key: values for key, values in place.store.values().items() if values[0]}
    assert len(before) > 1000
    place.store.lose()
    place.clock.advance(6)
    place.settle(made)
    assert before.items() <= place.store.values().items()
    place.store.lose()  # while nobody is there
    place.store.mark = b""
    broker, made = place.open()
    made.share((0, 1))
    place.settle(made)
    assert before.items() <= place.store.values().items()


def test_no_more_entities_than_allowed_stay_in_memory(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "AGGREGATE_ENTITIES_MAX", 200)
    place.send(6000, keys=3000)
    broker, made = place.open()
    seen: dict[tuple[int, int], object] = {}
    while got := turn(broker, made, 100, 0.0):
        seen |= {(record.partition, record.offset): before for record, before in got}
        place.clock.advance(1.0)
        assert sum(len(part.tables[0]) for part in made._parts.values()) <= 400
    assert seen == Reference(place.admin, "in").before


def test_what_nothing_is_left_of_is_forgotten(place: Place) -> None:
    now = place.clock.wall()
    place.log.append("in", [message(f"card {n}", now, 1.0, n) for n in range(50)])
    broker, made = place.open()
    place.read(broker, made)
    for _ in range(3):
        place.clock.advance(3600)
        made.tick()
        now = place.clock.wall()
        place.log.append("in", [message(f"new {n}", now, 1.0, n) for n in range(10)])  # both partitions go on
        place.read(broker, made)
    assert made.facts()[0].entities == 10
    assert {values for key, values in place.store.values().items() if key.startswith(b"card")} == {(0, 0.0, None)}


def test_two_processes_cannot_have_one_partition(place: Place) -> None:
    place.send(100)
    broker, made = place.open()
    place.read(broker, made)
    other = State(place.folder, 0, [VIEW.digest])
    with pytest.raises(BrokerError, match="another process has the tiles in") as raised:
        other.open(0.1)
    assert raised.value.trouble is Trouble.FENCED
    made.share((1,))
    other.open(0.0)
    assert other.next > 0
    other.close()


def test_a_checkpoint_is_all_or_nothing(tmp_path: Path) -> None:
    state = State(tmp_path, 3, [VIEW.digest])
    state.open()
    state.begin(7, 100, 4)
    state.keep(200, [5.0], [Change(0, b"a", b"blob", 1.0, 2.0)], owed=[(0, b"a")], is_logged=True)

    def failing() -> Iterator[Change]:
        yield Change(0, b"b", b"blob", None, 2.0)
        raise sqlite3.OperationalError("no more")

    with pytest.raises(BrokerError):
        state.keep(300, [6.0], failing(), is_logged=True)
    state.close()
    state = State(tmp_path, 3, [VIEW.digest])
    state.open()
    assert (state.epoch, state.next, state.watermarks, state.partitions) == (7, 200, [5.0], 4)
    assert state.load(0, [b"a", b"b"]) == {b"a": b"blob", b"b": None}
    state.close()
