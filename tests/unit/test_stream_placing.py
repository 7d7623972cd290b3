"""Topics whose records are not keyed by what a view's entity is keyed by."""

from sunup.limits import AGGREGATE_PLACES_MAX
from sunup.stream.aggregate.event import Event
from sunup.stream.broker import Record
from sunup.stream.scoring.placing import Placing


def record(key: bytes | None) -> Record:
    return Record("in", 1, 0, key, b"", (), 0.0)


def event(key: bytes) -> Event:
    return Event(0, key, 0.0, None, ())


def test_events_of_one_entity_under_two_keys_are_counted() -> None:
    placing = Placing(2)
    keys = (b"card 1", b"card 2", b"card 1", b"card 1")
    cards = [event(key) for key in keys]
    shops = [event(b"shop"), event(b"shop"), event(b"other"), None]
    records = [record(key) for key in keys]
    assert placing.misplaced(records, [cards, shops]) == [0, 1]
    assert placing.misplaced(records[1:2], [cards[1:2], shops[1:2]]) == [0, 1]


def test_records_without_a_key_are_anywhere() -> None:
    assert Placing(1).misplaced([record(None), record(b"")], [[event(b"a"), event(b"b")]]) == [1]


def test_not_everything_is_remembered() -> None:
    placing = Placing(1)
    keys = [b"%d" % number for number in range(AGGREGATE_PLACES_MAX + 1)]
    assert placing.misplaced([record(key) for key in keys], [[event(key) for key in keys]]) == [0]
    assert placing.misplaced([record(b"x")], [[event(keys[0])]]) == [0]
