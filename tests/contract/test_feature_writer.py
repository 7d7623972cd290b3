"""What everything that writes features must do, the same tests on the stub and on the real stores."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.random_values import random_scalar
from tests.writer_fill import (
    AT,
    PLAN,
    SCALARS,
    card_key,
    make_postgres_tables,
    make_sqlite_tables,
    pair_key,
    rows,
    version,
)

from sunup.limits import STORE_SCRIPT_KEYS, STORE_WRITE_ROWS
from sunup.lookup.store import Answer, Store
from sunup.lookup.stores.open import open_store
from sunup.lookup.values import decoder
from sunup.lookup.writing.memory import MemoryWriter
from sunup.lookup.writing.open import open_writer
from sunup.lookup.writing.writer import FeatureWriter, Write

TOPOLOGIES = ("redis_sentinels", "redis_cluster", "redis_secured")  # fixtures of tests/redis_topologies.py
STATS, ODD = "stats", "od\"d's"


@dataclass
class Place:
    """A store, empty but for its tables; `lose`: everything in it, and the tables come back."""

    url: str
    lose: Callable[[], Any]
    memory: MemoryWriter | None = None

    def writer(self) -> FeatureWriter:
        return self.memory or open_writer(self.url, PLAN)

    def read(self, cards: Sequence[bytes], pairs: Sequence[bytes] = ()) -> Answer:
        """What a worker's store finds."""
        store: Store = self.memory.store if self.memory else open_store(self.url, PLAN)

        async def read() -> Answer:
            await store.open()
            try:
                return await store.read([cards, pairs], time.monotonic() + 10)
            finally:
                await store.close()

        return asyncio.run(read())

    def stats(self, cards: Sequence[bytes]) -> list[tuple[Any, ...]]:
        """Values and times of view `stats`."""
        whole, real = decoder("INT64"), decoder("DOUBLE")
        return [(whole(found[0]), real(found[1]), found[2]) for found in self.read(cards)[0]]


@pytest.fixture(params=["memory", "sqlite", "redis", *TOPOLOGIES, "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "memory":
        writer = MemoryWriter(PLAN)
        yield Place("memory:", writer.forget, writer)
    elif request.param == "sqlite":
        path = tmp_path / "önline ?.db"
        make_sqlite_tables(path)
        yield Place(f"sqlite://{str(path).replace('?', '%3F')}", lambda: make_sqlite_tables(path))
    elif request.param == "postgres":
        server = request.getfixturevalue("postgres_server")
        with server.client() as client:
            make_postgres_tables(client)
            yield Place(server.url, lambda: make_postgres_tables(client))
    else:
        servers = request.getfixturevalue("redis_server" if request.param == "redis" else request.param)
        with servers.client() as client:
            client.flushall()
            yield Place(servers.url, client.flushall)


@pytest.fixture
def writer(place: Place) -> Iterator[FeatureWriter]:
    made = place.writer()
    yield made
    made.close()
    made.close()


def keys_of(written: Sequence[Write]) -> list[bytes]:
    return [row.key for row in written]


def test_what_is_written_is_read(place: Place, writer: FeatureWriter) -> None:
    writer.write(STATS, rows(3, 5))
    assert place.stats([*keys_of(rows(3, 5)), card_key(("nobody",))]) == [
        (5, 2.5, AT),
        (6, 3.0, AT),
        (7, 3.5, AT),
        (None, None, None),
    ]


def test_nothing_is_nothing(place: Place, writer: FeatureWriter) -> None:
    writer.write(STATS, [])
    assert place.stats(keys_of(rows(1, 0))) == [(None, None, None)]


def test_every_type_nulls_and_views_side_by_side(place: Place, writer: FeatureWriter) -> None:
    """Thousands of seeded values; three views, of which two share their keys."""
    rng = random.Random(20261122)
    cards = [card_key((f"{name} {n}",)) for n in range(300) for name in ("", "käse", "日本語 😀")]
    pairs = [pair_key((f"c{n % 7}", n)) for n in range(-50, 50)]
    written = {key: [_random(rng, kind) for kind in SCALARS] for key in cards}
    writer.write(
        ODD, [Write(key, tuple(values), AT + n, version(n)) for n, (key, values) in enumerate(written.items())]
    )
    writer.write(STATS, [Write(key, (n, None), AT - n, version(n)) for n, key in enumerate(cards)])
    writer.write("päirs", [Write(key, (n / 4,), AT, version(n)) for n, key in enumerate(pairs)])
    found_cards, found_pairs = place.read(cards, pairs)
    decode: list[Callable[[Any], Any]] = [decoder("INT64"), decoder("DOUBLE"), float, *map(decoder, SCALARS), float]
    for n, (values, found) in enumerate(zip(written.values(), found_cards, strict=True)):
        expected = [n, None, AT - n, *values, AT + n]
        assert [make(each) for make, each in zip(decode, found, strict=True)] == expected, n
    assert [(decoder("FLOAT")(value), at) for value, at in found_pairs] == [(n / 4, AT) for n in range(100)]


def _random(rng: random.Random, kind: str) -> Any:
    if rng.random() < 0.15:
        return None
    value = random_scalar(rng, kind)
    return value.replace("\x00", "0") if kind == "STRING" else value


def test_what_is_newer_stays(place: Place, writer: FeatureWriter) -> None:
    """Whichever writer it comes from, in whichever order; the same version is written again."""
    other = open_writer(place.url, PLAN) if place.memory is None else writer
    keys = keys_of(rows(2, 0))
    writer.write(STATS, rows(2, 10))
    other.write(STATS, rows(2, 9, at=AT + 100))
    assert place.stats(keys) == [(10, 5.0, AT), (11, 5.5, AT)]
    other.write(STATS, rows(2, 10, at=AT + 1))
    assert place.stats(keys) == [(10, 5.0, AT + 1), (11, 5.5, AT + 1)]
    other.write(STATS, rows(1, 256, at=AT - 5))  # an older event time is no older version
    writer.write(STATS, rows(3, 11))
    assert place.stats(keys) == [(256, 128.0, AT - 5), (12, 6.0, AT)]
    other.close()


def test_versions_are_compared_byte_by_byte(place: Place, writer: FeatureWriter) -> None:
    rng = random.Random(7)
    key, highest = card_key(("one",)), b""
    for n in range(400):
        mine = bytes(rng.choice((0, 1, 127, 128, 255)) if rng.random() < 0.3 else 7 for _ in range(16))
        writer.write(STATS, [Write(key, (n, None), AT, mine)])
        if mine >= highest:
            highest, last = mine, n
        assert place.stats([key])[0][0] == last if n % 40 == 0 else True
    assert place.stats([key]) == [(last, None, AT)]


def test_every_byte_of_a_version_counts(place: Place, writer: FeatureWriter) -> None:
    keys = [card_key((f"byte {at}",)) for at in range(16)]
    for number, byte in enumerate((7, 200, 7, 130, 3)):  # 200 is the greatest, and stays
        made = [bytes(byte if at == place else 7 for at in range(16)) for place in range(16)]
        writer.write(STATS, [Write(key, (number, None), AT, mine) for key, mine in zip(keys, made, strict=True)])
    assert place.stats(keys) == [(1, None, AT)] * 16


def test_views_have_versions_of_their_own(place: Place, writer: FeatureWriter) -> None:
    key = card_key(("one",))
    writer.write(STATS, [Write(key, (1, 1.0), AT, version(9))])
    writer.write(ODD, [Write(key, (2,) + (None,) * 7, AT, version(1))])
    found = place.read([key])[0][0]
    assert decoder("INT32")(found[3]) == 2


def test_a_batch_of_any_size(place: Place, writer: FeatureWriter) -> None:
    sizes = (1, STORE_SCRIPT_KEYS - 1, STORE_SCRIPT_KEYS, STORE_SCRIPT_KEYS + 1, STORE_WRITE_ROWS + 1)
    first = 0
    for size in sizes:
        writer.write(STATS, rows(size, 1, first=first))
        assert place.stats(keys_of(rows(size, 1, first=first))) == [
            (n + 1, (n + 1) / 2, AT) for n in range(first, first + size)
        ]
        first += size


def test_a_loss_is_seen(place: Place, writer: FeatureWriter) -> None:
    assert writer.is_lost()  # nobody began
    writer.begin()
    writer.write(STATS, rows(2, 1))
    assert not writer.is_lost()
    place.lose()
    assert writer.is_lost()
    assert writer.is_lost()
    writer.begin()
    assert not writer.is_lost()
    writer.write(STATS, rows(2, 1))
    assert place.stats(keys_of(rows(1, 1))) == [(1, 0.5, AT)]


def test_everybody_sees_a_loss_for_himself(place: Place) -> None:
    """Though another one has marked the store again since; in a next life, too."""
    if place.memory is not None:
        return  # there is one writer
    first, second = place.writer(), place.writer()
    first.begin()
    second.begin()
    assert first.mark == second.mark != b""
    assert [first.is_lost(), second.is_lost()] == [False, False]
    place.lose()
    assert first.is_lost()
    first.begin()
    assert second.is_lost()
    third = place.writer()
    third.mark = second.mark
    assert third.is_lost()
    second.begin()
    assert [first.is_lost(), second.is_lost()] == [False, False]
    fourth = place.writer()
    assert not fourth.is_lost()
    assert fourth.mark == first.mark
    for each in (first, second, third, fourth):
        each.close()


def test_a_writer_says_what_it_is(writer: FeatureWriter) -> None:
    assert "Writer" in repr(writer)
