"""Tiles against the list of all events: whatever comes in whatever order, and however often entities are reloaded."""

import random
from collections import Counter
from collections.abc import Callable
from math import floor, inf, nan
from typing import Any

import pytest
from tests.aggregates import FUNCTIONS, START, Reference, case_of, same, spec_of

from sunup.limits import AGGREGATE_ENTITY_BYTES_MAX, AGGREGATE_IDS_MAX, AGGREGATE_TILES_MAX
from sunup.stream.aggregate.event import Event
from sunup.stream.aggregate.table import Table, Values
from sunup.stream.aggregate.tiling.blob import VERSION
from sunup.types import Aggregated

HOUR_AND_DAY = spec_of(("count", "amount", 3600), ("sum", "amount", 86_400))


def feed(table: Table, stored: dict[bytes, bytes | None], batch: list[Event]) -> Any:
    keys = table.lacks([event.key for event in batch])
    assert len(set(keys)) == len(keys)
    table.load({key: stored.get(key) for key in keys})
    return table.take(batch)


def keep(table: Table, stored: dict[bytes, bytes | None]) -> None:
    stored.update(table.changed())
    table.kept()


@pytest.mark.parametrize("seed", range(100))
def test_what_a_score_sees_is_what_the_events_before_it_come_to(seed: int) -> None:
    for number in range(20):
        rng = random.Random(seed * 1000 + number)
        spec, batches, walls, scale = case_of(rng)
        table, stored, reference = Table(spec), dict[bytes, bytes | None](), Reference(spec)
        counts: Counter[str] = Counter()
        for batch, wall in zip(batches, walls, strict=True):
            taken = feed(table, stored, batch)
            assert len(taken.before) == len(batch)
            for event, before in zip(batch, taken.before, strict=True):
                same(spec, before, reference.take(event), scale)
            counts.update(aggregated=taken.aggregated, late=taken.late, duplicate=taken.duplicate)
            assert table.watermark == reference.watermark
            if rng.random() < 0.5:
                keep(table, stored)
            if rng.random() < 0.3:
                table.drop([event.key for event in batch if rng.random() < 0.7])
            elif rng.random() < 0.2:
                keep(table, stored)
                table = Table(spec, table.watermark)
            keys = list({event.key for event in batch})
            table.load({key: stored.get(key) for key in table.lacks(keys)})
            for key, found in zip(keys, table.values(keys, wall), strict=True):
                values, at = reference.values(key, wall)
                same(spec, found.values, values, scale)
                assert found.at == at
        assert +counts == reference.counts


@pytest.mark.parametrize("seed", range(50))
def test_nothing_depends_on_batches_or_on_what_is_in_memory(seed: int) -> None:
    """One table takes all at once, one event by event, a third is a new one from blobs after every few."""
    for number in range(10):
        rng = random.Random(seed * 1000 + number)
        spec, batches, _, _ = case_of(rng)
        events = [event for batch in batches for event in batch]
        whole, single, stored = Table(spec), Table(spec), dict[bytes, bytes | None]()
        apart: dict[bytes, bytes | None] = {}
        keep_often, before_whole = Table(spec), feed(whole, {}, events).before
        before_single, before_often = [], []
        for event in events:
            before_single += feed(single, {}, [event]).before
            before_often += feed(keep_often, stored, [event]).before
            if rng.random() < 0.3:
                keep(keep_often, stored)
                keep_often.drop([each.key for each in events])
                assert len(keep_often) == 0
        assert before_whole == before_single == before_often
        keep(keep_often, stored)
        keep(whole, apart)
        last = keep_all = Table(spec, whole.watermark)
        last.load(stored)
        assert last.changed() == {}
        single_blobs = single.changed()
        assert single_blobs == apart
        wall = whole.watermark + rng.random() * spec.window_s_max
        keys = list(apart)
        assert keep_all.values(keys, wall) == whole.values(keys, wall) == single.values(keys, wall)


@pytest.mark.parametrize("seed", range(60))
def test_an_idle_entity_changes_when_it_said_it_would_and_not_in_between(seed: int) -> None:
    rng = random.Random(seed)
    spec, batches, _, scale = case_of(rng)
    table, reference = Table(spec), Reference(spec)
    for batch in batches:
        feed(table, {}, batch)
        for event in batch:
            reference.take(event)
    hop, key = spec.hop_s, batches[-1][-1].key
    wall, steps = table.watermark, 0
    while True:
        (found,) = table.values([key], wall)
        same(spec, found.values, reference.values(key, wall)[0], scale)
        if found.due is None:
            break
        assert found.due > wall
        assert found.due % hop == 0
        between = rng.uniform(wall, found.due - 0.001)
        if floor(between) < found.due:
            assert table.values([key], between)[0].values == found.values
        wall, steps = found.due, steps + 1
    assert steps <= len(reference.events.get(key, ())) * len(spec.aggregations)
    empty = {"count": 0, "sum": 0.0}
    assert found.values == tuple(empty.get(each.function) for each in spec.aggregations)


def event(time: float, *values: float | None, key: bytes = b"k", id: int | None = None) -> Event:
    return Event(0, key, time, id, values)


def loaded(spec: Aggregated, *keys: bytes) -> Table:
    table = Table(spec)
    table.load(dict.fromkeys(keys or (b"k",)))
    return table


def test_an_example_by_hand() -> None:
    table = loaded(HOUR_AND_DAY)
    taken = table.take([event(START, 10.0, id=1), event(START + 1, 5.0, id=2), event(START + 1, 5.0, id=2)])
    assert taken == ([(0, 0.0), (1, 10.0), (2, 15.0)], 2, 0, 1)
    first = START // 300 * 300
    assert table.values([b"k"], START + 2) == [Values((2, 15.0), START + 1, first + 3600)]
    assert table.values([b"k"], first + 3600) == [Values((0, 15.0), first + 3600, first + 86_400)]
    assert table.values([b"k"], first + 86_400.5) == [Values((0, 0.0), first + 86_400, None)]
    late = table.take([event(START + 90, 1.0, id=3), event(START + 29, 1.0, id=4), event(START + 30, 1.0, id=5)])
    assert late == ([(2, 15.0), (3, 16.0), (3, 16.0)], 2, 1, 0)


def test_nulls_and_what_is_no_number_take_no_part() -> None:
    spec = spec_of(*((function, "a", 600) for function in FUNCTIONS))
    table = loaded(spec)
    taken = table.take(
        [event(START, None), event(START, nan), event(START, inf), event(START, -2.0), event(START, 0.0)]
    )
    assert taken.before[:4] == [(0.0, 0, None, None, None)] * 4
    assert taken.before[4] == (-2.0, 1, -2.0, -2.0, -2.0)


def test_what_is_stored_is_bounded_by_what_can_be_asked_for() -> None:
    table = loaded(spec_of(("sum", "a", 3600), late_s=30.0))
    sizes = []
    for number in range(1000):
        table.take([event(START + number * 100, 1.0, id=number)])
        (blob,) = table.changed().values()
        table.kept()
        assert blob is not None
        sizes.append(len(blob))
    assert len(set(sizes[50:])) <= 2
    assert max(sizes) < 200


def test_an_entity_of_three_tiles_takes_less_than_a_hundred_bytes() -> None:
    table = loaded(HOUR_AND_DAY)
    table.take([event(START + 300 * number, 1.5, id=number) for number in range(3)])
    (blob,) = table.changed().values()
    assert blob is not None
    assert len(blob) == 88


def test_an_entity_with_a_week_of_minutes_is_what_its_limit_says() -> None:
    """AGGREGATE_TILES_MAX says how much that is; a reload of it gives the same sums to the last bit."""
    spec = spec_of(("sum", "a", 604_800), ("mean", "a", 3600), hop_s=60)
    table = loaded(spec)
    rng = random.Random(5)
    first = START // 60 * 60
    table.take([event(first + 60 * number, rng.gauss(0, 1e6)) for number in range(20_000)])
    blobs = table.changed()
    (blob,) = blobs.values()
    assert blob is not None
    assert len(blob) < 16 * (AGGREGATE_TILES_MAX + 2) + 30
    again = Table(spec, table.watermark)
    again.load(blobs)
    more = [event(first + 60 * (20_000 + number // 3), rng.gauss(0, 1e6)) for number in range(60)]
    assert again.take(more) == table.take(more)
    assert again.values([b"k"], first + 61 * 20_000) == table.values([b"k"], first + 61 * 20_000)


def test_an_entity_of_which_nothing_is_left_is_given_as_none() -> None:
    table = loaded(HOUR_AND_DAY, b"k", b"other")
    table.take([event(START, 1.0, id=1)])
    table.take([event(START + 90_000, 1.0, id=2, key=b"other")])
    found = table.changed()
    assert found[b"k"] is None
    assert found[b"other"] is not None


def test_nothing_is_asked_and_nothing_answered() -> None:
    table = loaded(HOUR_AND_DAY)
    assert table.take([]) == ([], 0, 0, 0)
    assert table.values([], START) == []
    assert table.changed() == {}
    assert table.values([b"k"], START) == [Values((0, 0.0), START // 300 * 300, None)]


def test_only_what_is_kept_leaves_memory() -> None:
    table = loaded(HOUR_AND_DAY, b"k", b"other")
    table.take([event(START, 1.0)])
    table.drop([b"k", b"other", b"unknown"])
    assert table.lacks([b"k", b"other", b"other"]) == [b"other"]
    blobs = table.changed()
    table.drop([b"k"])
    assert len(table) == 1
    assert table.changed() == blobs  # not kept: given again
    table.take([event(START, 1.0)])
    table.kept()
    assert table.changed() != blobs  # what came after `changed` is still to be kept
    table.kept()
    assert table.changed() == {}


DAMAGES: list[tuple[Callable[[bytes], bytes], str]] = [
    (lambda blob: blob[:0], "0 bytes are too few"),
    (lambda blob: blob[:20], "20 bytes are too few"),
    (lambda blob: blob[:-1], "checksum"),
    (lambda blob: blob + b"\0", "checksum"),
    (lambda blob: blob[:-3] + b"\x01" + blob[-2:], "checksum"),
    (lambda blob: bytes([VERSION + 1]) + blob[1:], "layout 2"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_a_damaged_blob_is_said_to_be(damage: Callable[[bytes], bytes], words: str) -> None:
    table = loaded(HOUR_AND_DAY)
    table.take([event(START, 1.0, id=1)])
    (blob,) = table.changed().values()
    assert blob is not None
    with pytest.raises(ValueError, match=words):
        Table(HOUR_AND_DAY).load({b"k": damage(blob)})


def test_every_bit_of_a_blob_counts() -> None:
    table = loaded(HOUR_AND_DAY)
    table.take([event(START, 1.0, id=1)])
    (blob,) = table.changed().values()
    assert blob is not None
    for place in range(len(blob) * 8):
        damaged = bytearray(blob)
        damaged[place // 8] ^= 1 << place % 8
        if place // 8 in (2, 3):  # says nothing yet
            continue
        with pytest.raises(ValueError, match="tiles of an entity"):
            Table(HOUR_AND_DAY).load({b"k": bytes(damaged)})


def test_a_blob_of_another_view_is_refused() -> None:
    table = loaded(HOUR_AND_DAY)
    table.take([event(START, 1.0)])
    with pytest.raises(ValueError, match="2 numbers each, and the view needs 1"):
        Table(spec_of(("sum", "a", 3600))).load(table.changed())


def test_a_window_that_is_not_of_whole_tiles_is_refused() -> None:
    with pytest.raises(ValueError, match="whole tiles of 300 s"):
        Table(spec_of(("sum", "a", 1000)))


def test_a_very_busy_entity_stays_below_what_kafka_takes() -> None:
    spec = spec_of(("count", "amount", 3600))
    table, stored = Table(spec), dict[bytes, bytes | None]()
    for first in range(0, 50_000, 10_000):
        feed(table, stored, [Event(n, b"k", START, n + 1, (1.0,)) for n in range(first, first + 10_000)])
    (blob,) = table.changed().values()
    assert blob is not None
    assert AGGREGATE_IDS_MAX * 16 < len(blob) < 1_000_000 - AGGREGATE_ENTITY_BYTES_MAX
    assert table.forgotten == 50_000 - AGGREGATE_IDS_MAX
    last = feed(table, stored, [Event(50_000, b"k", START, 50_000, (1.0,)), Event(50_001, b"k", START, 1, (1.0,))])
    assert (last.duplicate, last.aggregated) == (1, 1)
    (found,) = table.values([b"k"], START)
    assert found.values == (50_001,)


def test_what_overflows_is_null() -> None:
    spec = spec_of(("sum", "amount", 3600), ("mean", "amount", 3600), ("max", "amount", 3600))
    table = Table(spec)
    events = [Event(n, b"%d" % (n % 30), START + 60 * (n % 7), n, (1e308,)) for n in range(300)]
    feed(table, {}, events)
    feed(table, {}, [Event(n, b"%d" % (n % 30), START + 60 * (n % 7), n, (-1e308,)) for n in range(300, 600)])
    values = {found.values for found in table.values([event.key for event in events], START)}
    assert values == {(None, None, 1e308)}
