"""What stream feature views see of a record: whatever form it has, and whatever becomes of its score."""

import json
from base64 import b64encode
from typing import Any

import pytest

from sunup.limits import AGGREGATE_AHEAD_SECONDS_MAX
from sunup.lookup.keys import key_maker
from sunup.lookup.plan import Entity, Feature, JoinKey, ReadPlan, View, entity_columns
from sunup.stream.aggregate.event import Event
from sunup.stream.broker import Headers, Record
from sunup.stream.scoring.batch import Reading
from sunup.stream.scoring.events import EventReader, Events
from sunup.types import Aggregated, Aggregation, Field
from sunup.wire.record import RecordCodec

WALL = 1_700_000_000.0
CARD, SHOP = JoinKey("card_id", "card", "INT32"), JoinKey("shop_id", "shop", "STRING")
REQUEST = (
    Field("card", "int64"),
    Field("shop", "string"),
    Field("amount", "float64"),
    Field("tax", "float32"),
    Field("online", "bool"),
    Field("id", "string"),
    Field("time", "string"),
    Field("at", "float64"),
)
BINARY = [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/s"), ("ce_type", b"t")]
WHOLE: dict[str, Any] = {
    "card": 7, "shop": "a", "amount": 12.5, "tax": 2, "online": True, "id": "x-1", "time": "2023-11-14T22:13:20Z",
    "at": WALL, "extra": {"deep": [1, None]},
}  # fmt: skip


def view(name: str, *pairs: tuple[str, str], time: str = "time", id: str = "id") -> View:
    made = tuple(Aggregation(f"{name}{at}", *pair, 3600) for at, pair in enumerate(pairs))  # type: ignore[arg-type]
    features = tuple(Feature(each.feature, each.feature, "DOUBLE") for each in made)
    return View(name, name, None, None, features, aggregated=Aggregated("payments", time, 60, 30.0, id, made))


def reader(*entities: Entity, content: str = "auto") -> EventReader:
    plan = ReadPlan(1, "p", 3, 20.0, "default", entities, entity_columns(entities))
    codec = RecordCodec(request=REQUEST, response=[Field("score", "float64")], function="f", model="m/1", revision=1)
    return EventReader(plan, REQUEST, Reading(codec, content))


def record(value: object, headers: Headers = (), at: float = WALL) -> Record:
    data = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
    return Record("payments", 0, 41, None, data, headers, at)


def one(value: object, *pairs: tuple[str, str], time: str = "time", id: str = "id") -> Event | None:
    ((found,),) = reader(Entity((CARD,), (view("v", *(pairs or [("sum", "amount")]), time=time, id=id),))).read(
        [record(value)]
    )
    return found


KEY = key_maker([CARD], {"card": 0})((7,))


def test_an_event_is_key_time_id_and_values() -> None:
    found = one(WHOLE, ("sum", "amount"), ("count", "amount"), ("max", "tax"))
    assert found is not None
    assert (found.offset, found.key, found.time, found.values) == (41, KEY, WALL, (12.5, 2.0))
    assert found.id is not None
    assert 0 <= found.id < 2**64


def test_every_form_of_a_record_is_the_same_event() -> None:
    data = json.dumps(WHOLE).encode()
    whole = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
    structured = [("content-type", b"application/cloudevents+json")]
    forms = [
        record(WHOLE),
        record(json.dumps(WHOLE, indent=2).encode()),
        record(WHOLE, [("mine", b"1")]),
        record(WHOLE, BINARY),
        record({**whole, "data": WHOLE}, structured),
        record({**whole, "data_base64": b64encode(data).decode()}, structured),
    ]
    (events,) = reader(Entity((CARD,), (view("v", ("sum", "amount")),))).read(forms)
    assert len(set(events)) == 1
    assert events[0] == one(WHOLE)


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("2023-11-14T22:13:20", 0.0),
        ("2023-11-14T22:13:20Z", 0.0),
        ("2023-11-14t22:13:20.25z", 0.25),
        ("2023-11-15T00:13:20.000001+02:00", 1e-6),
        ("2023-11-14 12:13:20-10:00", 0.0),
        (1_700_000_000, 0.0),
        (1_700_000_000.5, 0.5),
        (1.7e9, 0.0),
    ],
)
def test_times_are_rfc_3339_or_seconds(time: object, seconds: float) -> None:
    found = one({**WHOLE, "time": time})
    assert found is not None
    assert found.time == WALL + seconds
    assert type(found.time) is float


@pytest.mark.parametrize(
    "time", ["2023-11-14", "yesterday", "1700000000", "", None, True, [1], 1e300, -1.0, "0001-01-01T00:00:00Z"]
)
def test_what_is_no_time_makes_no_event(time: object) -> None:
    assert one({**WHOLE, "time": time}) is None


def test_a_time_far_ahead_of_its_record_makes_no_event() -> None:
    most = WALL + AGGREGATE_AHEAD_SECONDS_MAX
    reads = reader(Entity((CARD,), (view("v", ("sum", "amount"), time="at"),)))
    ((ahead, far),) = reads.read([record({**WHOLE, "at": most}), record({**WHOLE, "at": most + 0.001})])
    assert ahead is not None
    assert far is None
    assert (reads.refused, reads.reasons) == ([1], ["its time is more than 60 s ahead of when the record was written"])
    assert reads.read([record({**WHOLE, "at": most + 1}, at=-0.001)])[0][0] is not None  # nobody says when


def test_ids_are_equal_where_their_values_are() -> None:
    def id_of(id: object) -> int | None:
        found = one({**WHOLE, "id": id})
        assert found is not None
        return found.id

    assert id_of("x-1") == id_of("x-1")
    assert one(json.dumps({**WHOLE, "id": "ä"}, ensure_ascii=False).encode()) == one({**WHOLE, "id": "ä"})
    assert id_of(1) == id_of(1.0) == id_of(10**0)
    ids = ["x-1", "x-2", "", "1", 1, 1.5, True, False, 0, "\x001", -1, 2**70]
    assert len({id_of(id) for id in ids}) == len(ids)
    assert one(WHOLE, id="") == one(WHOLE, id="")
    without = one({name: value for name, value in WHOLE.items() if name != "id"}, id="")
    assert without is not None
    assert without.id is None
    for id in (None, [1], {"a": 1}):
        assert one({**WHOLE, "id": id}) is None


def test_values_are_numbers_or_null() -> None:
    pairs = [("sum", "amount"), ("mean", "online"), ("count", "shop"), ("min", "other"), ("count", "gone")]

    def values(**changed: object) -> tuple[float | None, ...]:
        found = one({**WHOLE, **changed}, *pairs)
        assert found is not None
        return found.values

    assert values() == (12.5, 1.0, 1.0, None, None)
    assert values(amount=None, online=False, shop=None, other=3, gone={"a": []}) == (None, 0.0, None, 3.0, 1.0)
    assert one({**WHOLE, "amount": "12.5"}, *pairs) is None
    assert one({**WHOLE, "amount": True}, *pairs) is None
    assert all(type(value) is float for value in values(amount=3)[:3])


def test_one_member_may_be_key_and_value_and_id() -> None:
    found = one(WHOLE, ("count", "card"), ("max", "at"), ("count", "id"), ("count", "time"), time="at", id="card")
    assert found is not None
    assert (found.key, found.time, found.values) == (KEY, WALL, (1.0, WALL, 1.0, 1.0))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "no value"),
        (b'{"card": 1', "truncated"),
        (b"\xff\xfe", "malformed"),
        (b'{"card": 7, "id": "\xff"}', "utf-8"),
        (b"[1]", "Expected `object`"),
        ({**WHOLE, "card": "7"}, "$.card"),
        ({**WHOLE, "card": 2**31}, "cannot be used as a feature key"),
        ({**WHOLE, "time": "secret"}, "$.time"),
        ({name: value for name, value in WHOLE.items() if name != "card"}, "`card`"),
    ],
)
def test_what_is_no_event_is_counted_with_a_reason(value: object, reason: str) -> None:
    reads = reader(Entity((CARD,), (view("v", ("sum", "amount")),)))
    assert reads.read([record(value), record(WHOLE), record(b"{}")])[0][1] is not None
    assert reads.refused == [2]
    assert reason.lower() in reads.reasons[0].lower()
    assert "secret" not in reads.reasons[0]
    reads.read([record(WHOLE)])
    assert (reads.refused, reads.reasons) == ([0], [""])


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e300"])
@pytest.mark.parametrize("written", [0.0, WALL])
def test_a_time_that_is_none_is_invalid(text: str, written: float) -> None:
    reads = reader(Entity((CARD,), (view("v", ("sum", "amount")),)))
    value = json.dumps({**WHOLE, "time": 0}).replace('"time": 0', f'"time": {text}').encode()
    assert reads.read([record(value, at=written)]) == [[None]]
    assert reads.refused == [1]


def test_a_record_without_a_value_is_none_and_not_counted() -> None:
    reads = reader(Entity((CARD,), (view("v", ("sum", "amount")),)))
    assert reads.read([record(None), record(None, BINARY)]) == [[None, None]]
    assert reads.refused == [0]


def test_an_image_has_no_events() -> None:
    reads = reader(Entity((CARD,), (view("v", ("sum", "amount")),)))
    assert reads.read([record(b"\x89PNG", [("content-type", b"image/png")])]) == [[None]]
    assert "image" in reads.reasons[0]


def test_views_see_what_is_theirs() -> None:
    by_card = view("c", ("sum", "amount"))
    by_shop = view("s", ("count", "id"), ("max", "tax"))
    later = view("l", ("sum", "amount"), time="at", id="")
    reads = reader(Entity((CARD,), (by_card, later)), Entity((SHOP,), (by_shop,)))
    values = [WHOLE, {**WHOLE, "card": None}, {**WHOLE, "shop": 3}, {**WHOLE, "time": "?"}, {**WHOLE, "at": "?"}, b"?"]
    events: Events = reads.read([record(value) for value in values])
    there = [[event is not None for event in some] for some in events]
    assert there == [
        [True, False, True, False, True, False],
        [True, False, True, True, False, False],
        [True, True, False, False, True, False],
    ]
    assert reads.refused == [3, 3, 3]
    shop = key_maker([SHOP], {"shop": 0})(("a",))
    assert [some[0].key if some[0] else None for some in events] == [KEY, KEY, shop]
    assert [some[0].id if some[0] else 0 for some in events][1] is None
    assert events[2][0] is not None
    assert events[2][0].values == (1.0, 2.0)
