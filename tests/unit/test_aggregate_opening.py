"""How a partition is opened whose file, topic or views are not what they were."""

import msgspec
import pytest
from tests.aggregating import SPEC, VIEW, Reference, turn
from tests.unit.test_aggregate_state import STREAM, Place, place

from sunup.stream.aggregate.kept.origin import is_other, keep_origin
from sunup.stream.broker import BrokerError, Reader
from sunup.stream.embedded import EmbeddedBroker

__all__ = ["place"]  # a fixture


@pytest.mark.parametrize("damage", [b"no database at all" * 100, None])
def test_a_damaged_file_says_what_to_do(place: Place, damage: bytes | None) -> None:
    place.send(3000)
    broker, made = place.open()
    place.read(broker, made)
    made.close()
    place.end()
    file = place.folder / "0.db"
    content = file.read_bytes()
    file.write_bytes(damage or content[:2048] + bytes(len(content) - 2048))
    broker, made = place.open()
    place.send(3000)
    with pytest.raises(BrokerError, match="move it away"):
        place.read(broker, made)
    made.close()
    file.unlink()
    for rest in place.folder.glob("0.db-*"):
        rest.unlink()
    broker, made = place.open()
    place.read(broker, made)
    made.tick()
    assert [note for note in place.told.notes if "in-0 are made of records from offset" in note]


def test_a_view_that_is_defined_in_another_way_begins_empty(place: Place) -> None:
    place.send(500)
    broker, made = place.open()
    place.read(broker, made)
    made.close()
    changed = VIEW._replace(spec=msgspec.structs.replace(SPEC, late_s=60.0))
    broker, made = place.open((changed,))
    made.share((0, 1))
    place.settle(made)
    assert set(place.store.values().values()) == {(0, 0.0, None)}
    assert place.told.notes == [
        "cards is new or defined in another way, and its features are empty: `platform stream replay --features` fills "
        "them with what the topic still holds"
    ]
    made.close()
    broker, made = place.open()  # and back again: what it was is long ago
    made.share((0, 1))
    assert made.facts()[0].entities == 20
    place.settle(made)
    assert set(place.store.values().values()) == {(0, 0.0, None)}


def test_two_views_and_then_one(place: Place) -> None:
    other = VIEW._replace(name="others")
    place.send(500)
    broker, made = place.open((VIEW, other))
    place.read(broker, made)
    made.close()
    broker, made = place.open((other,))
    place.send(500, seed=2)
    seen = place.read(broker, made)
    reference = Reference(place.admin, "in")
    assert seen == {at: before for at, before in reference.before.items() if at in seen}
    assert place.told.notes == []


def test_records_that_come_again_are_not_aggregated_again(place: Place) -> None:
    place.send(500)
    broker, made = place.open()
    place.read(broker, made)
    counts = place.told.counts
    made.close()
    place.end()
    place.admin.move("group", "in", {0: 0, 1: 0})
    broker, made = place.open()
    seen = place.read(broker, made)
    assert len(seen) == sum(counts)
    assert all(seen.values())  # what is known now
    assert place.told.counts == counts
    place.settle(made)
    assert place.store.values() == Reference(place.admin, "in").values(place.clock.wall())


def test_what_the_topic_does_not_hold_any_more_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sunup.limits.EMBEDDED_RECORDS_MAX", 100)
    place.send(150)
    broker, made = place.open()
    turn(broker, made, 10)
    place.end()
    bare = EmbeddedBroker(place.path, STREAM, Reader("reader"))  # goes on without aggregating
    bare.join(0, 1)
    for seed in range(5):
        while bare.poll(0.0):
            bare.commit([])
        place.send(150, seed=seed)
    bare.close()
    broker, made = place.open()
    place.read(broker, made)
    assert any(
        "records of in-0 from offset" in note and "does not hold them any more" in note for note in place.told.notes
    )


def test_a_topic_with_more_partitions_is_told_once(place: Place) -> None:
    place.send(100)
    broker, made = place.open()
    place.read(broker, made)
    made.close()
    with place.log.file.change() as connection:
        connection.execute("INSERT INTO part (topic, number, next) VALUES ('in', 2, 0)")
    for _ in range(2):
        broker, made = place.open()
        made.share((0, 1))
        made.close()
    (note,) = place.told.notes
    assert note.startswith("in has 3 partitions and had 2 when its features were begun")


def test_a_topic_of_another_log_is_another_one_though_its_offsets_go_on(place: Place) -> None:
    place.send(100)
    broker, made = place.open()
    place.read(broker, made)
    epoch = made._parts[0].state.epoch
    made.close()
    place.end()
    for file in place.path.parent.glob("log.db*"):
        file.unlink()
    place.log.file.close()
    place.admin.close()
    place.log.create("in", 2)
    place.send(900, seed=3)
    for _ in range(2):
        broker, made = place.open()
        place.read(broker, made)
        assert made._parts[0].state.epoch > epoch
        made.close()
        place.end()
        assert [note.partition(", on another")[0] for note in place.told.notes] == [
            "in is another topic than the one its features were made of"
        ]
    broker, made = place.open()
    made.share((0, 1))
    place.settle(made)
    assert place.store.values() == Reference(place.admin, "in").values(place.clock.wall())


def test_files_that_do_not_know_their_topic_go_on(place: Place) -> None:
    place.send(100)
    broker, made = place.open()
    place.read(broker, made)
    keep_origin(made._parts[0].state, "")
    made.close()
    place.send(100, seed=2)
    broker, made = place.open()
    seen = place.read(broker, made)
    assert seen == {at: before for at, before in Reference(place.admin, "in").before.items() if at in seen}
    assert place.told.notes == []


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        ("topic:1", "topic:2", True),
        ("topic:1", "topic:1", False),
        ("cluster:1", "cluster:2", True),
        ("cluster:1", "topic:2", False),
        ("log:1", "topic:1", True),
        ("", "topic:1", False),
        ("topic:1", "", False),
    ],
)
def test_what_is_another_topic(one: str, other: str, differ: bool) -> None:
    assert is_other(one, other) is differ


def test_a_topic_that_was_made_anew_begins_anew(place: Place) -> None:
    place.send(500)
    broker, made = place.open()
    place.read(broker, made)
    made.close()
    place.end()
    for file in place.path.parent.glob("log.db*"):
        file.unlink()
    place.log.file.close()
    place.admin.close()
    place.log.create("in", 2)
    place.send(100, seed=3)
    broker, made = place.open()
    seen = place.read(broker, made)
    assert seen == Reference(place.admin, "in").before
