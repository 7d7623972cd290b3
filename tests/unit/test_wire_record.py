# Longer than 300 lines: each way a record can be wrong is a case here.
"""The native codec: what it reads, what it refuses and how it says so, what it writes."""

import json
import math
import random
from typing import Any

import msgspec
import numpy as np
import pytest

from sunup.errors import BadRequest, CallError, FeaturesMissing, TooLarge, UsageError
from sunup.limits import RECORDS_MAX
from sunup.types import Call, Column, Field, Reply, Timings
from sunup.wire.record import RecordCodec

REQUEST = (
    Field("card_id", "int64"),
    Field("amount", "float64"),
    Field("country", "string"),
    Field("online", "bool"),
    Field("small", "int32"),
    Field("ratio", "float32"),
    Field("items", "int64[]", (-1,)),
    Field("vector", "float64[]", (3,)),
)
RESPONSE = (Field("score", "float64"), Field("decision", "string"))
GOOD: dict[str, Any] = {
    "card_id": 7,
    "amount": 12.5,
    "country": "AT",
    "online": True,
    "small": -3,
    "ratio": 0.5,
    "items": [1, 2],
    "vector": [0.1, 0.2, 0.3],
}
ROW = (7, 12.5, "AT", True, -3, 0.5, [1, 2], [0.1, 0.2, 0.3])


@pytest.fixture
def codec() -> RecordCodec:
    return RecordCodec(request=REQUEST, response=RESPONSE, function="fraud", model="fraud/3", revision=7)


def decode(codec: RecordCodec, body: object) -> Call:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return codec.decode(raw, id="r1", deadline=5.0)


def refusal(codec: RecordCodec, body: object) -> dict[str, Any]:
    with pytest.raises(CallError) as caught:
        decode(codec, body)
    error: dict[str, Any] = json.loads(codec.error(caught.value))["error"]
    return error


def reply(call: Call, **columns: Column) -> Reply:
    return Reply(call, columns, range(call.count), {}, None, None, Timings())


def test_one_record_becomes_a_row_in_field_order(codec: RecordCodec) -> None:
    call = decode(codec, dict(reversed(GOOD.items())))
    assert call.rows == (ROW,)
    assert (call.id, call.count, call.deadline, call.single, call.failed) == ("r1", 1, 5.0, True, {})


@pytest.mark.parametrize("space", [b" ", b"\n\t ", b"\r\n"])
def test_space_around_a_body_is_fine(codec: RecordCodec, space: bytes) -> None:
    body = json.dumps(GOOD).encode()
    assert decode(codec, space + body + space).single
    assert not decode(codec, space + b"[" + body + b"]" + space).single


def test_a_list_keeps_its_order(codec: RecordCodec) -> None:
    call = decode(codec, [GOOD | {"card_id": n} for n in range(50)])
    assert [row[0] for row in call.rows] == list(range(50))
    assert (call.count, call.single) == (50, False)


def test_an_empty_list_is_no_records(codec: RecordCodec) -> None:
    call = decode(codec, [])
    assert (list(call.rows), call.count) == ([], 0)
    assert json.loads(codec.encode(reply(call, score=[], decision=[])))["predictions"] == []


def test_integers_stand_for_floats(codec: RecordCodec) -> None:
    row = decode(codec, GOOD | {"amount": 12, "ratio": 1, "vector": [1, 2, 3]}).rows[0]
    assert (row[1], type(row[1]), row[5], row[7]) == (12.0, float, 1.0, [1.0, 2.0, 3.0])


def test_null_is_a_missing_float(codec: RecordCodec) -> None:
    for body in (GOOD | {"amount": None, "vector": [1, None, 3]}, [GOOD | {"amount": None, "vector": [1, None, 3]}]):
        row = decode(codec, body).rows[0]
        assert math.isnan(row[1])
        assert math.isnan(row[7][1])
        assert row[0] == 7


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"card_id": "7"}, "card_id"),
        ({"card_id": 7.5}, "card_id"),
        ({"card_id": True}, "card_id"),
        ({"card_id": None}, "card_id"),
        ({"card_id": 2**63}, "card_id"),
        ({"card_id": -(2**63) - 1}, "card_id"),
        ({"amount": "12.5"}, "amount"),
        ({"amount": True}, "amount"),
        ({"amount": [1.0]}, "amount"),
        ({"country": 1}, "country"),
        ({"country": None}, "country"),
        ({"online": 1}, "online"),
        ({"small": 2**31}, "small"),
        ({"ratio": 1e39}, "ratio"),
        ({"items": 3}, "items"),
        ({"items": [1, "2"]}, "items"),
        ({"items": [None]}, "items"),
        ({"vector": [1.0]}, "vector"),
        ({"vector": {"a": 1}}, "vector"),
    ],
)
def test_wrong_types_name_their_field(codec: RecordCodec, change: dict[str, Any], field: str) -> None:
    error = refusal(codec, GOOD | change)
    assert (error["code"], error["field"]) == ("wrong_type", field)
    assert field in error["message"]


def test_an_unknown_field_names_the_closest(codec: RecordCodec) -> None:
    body = {("ammount" if name == "amount" else name): value for name, value in GOOD.items()}
    error = refusal(codec, body)
    assert (error["code"], error["field"], error["hint"]) == ("unknown_field", "ammount", "did you mean amount?")


def test_an_unknown_field_like_nothing_lists_what_there_is(codec: RecordCodec) -> None:
    error = refusal(codec, GOOD | {"zzzzzzzz": 1})
    assert (error["code"], error["field"]) == ("unknown_field", "zzzzzzzz")
    assert "card_id, amount" in error["hint"]


def test_a_missing_field_says_what_to_send(codec: RecordCodec) -> None:
    error = refusal(codec, {name: value for name, value in GOOD.items() if name != "country"})
    assert (error["code"], error["field"], error["hint"]) == ("missing_field", "country", "send country as string")


@pytest.mark.parametrize("body", [b"5", b"null", b'"x"', b"true", b"1.5"])
def test_a_body_that_is_no_record_is_a_wrong_type(codec: RecordCodec, body: bytes) -> None:
    error = refusal(codec, body)
    assert error["code"] == "wrong_type"
    assert "field" not in error


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"[",
        b"[{]",
        b"{}x",
        b"[{},]",
        b'{"card_id": 1,}',
        b'{"card_id": NaN}',
        b'{"amount": Infinity}',
        b'{"amount": -Infinity}',
        b"{'card_id': 1}",
        b"\xef\xbb\xbf{}",
        b"\x00",
        b'{"country": "\xff"}',
        b'{"country": "a',
        b'{"card_\xff": 1}',
        b"card_id=1&amount=2",
        b'{"vector": ' + b"[" * 100_000,
        b"[" * 100_000,
        b'[{"a":' * 50_000,
    ],
)
def test_what_is_not_json_is_invalid_json(codec: RecordCodec, body: bytes) -> None:
    assert refusal(codec, body)["code"] == "invalid_json"


def test_every_cut_and_every_flipped_byte_is_refused_or_read_but_never_breaks(codec: RecordCodec) -> None:
    chance = random.Random(7)
    whole = json.dumps([GOOD, GOOD]).encode()
    for _ in range(3000):
        body = bytearray(whole[: chance.randrange(len(whole) + 1)] if chance.random() < 0.3 else whole)
        for _ in range(chance.randrange(3)):
            if body:
                body[chance.randrange(len(body))] = chance.randrange(256)
        try:
            call = decode(codec, bytes(body))
        except BadRequest as error:
            assert error.code in {"invalid_json", "wrong_type", "unknown_field", "missing_field"}  # noqa: PT017
        else:
            assert len(call.rows) + len(call.failed) == call.count
            assert all(error.status == 400 for error in call.failed.values())


def test_one_bad_record_fails_alone(codec: RecordCodec) -> None:
    chance = random.Random(1)
    spoils: list[Any] = [{"card_id": "x"}, {"extra": 1}, 5, None, []]
    for _ in range(50):
        bad = {index: chance.choice(spoils) for index in range(20) if chance.random() < 0.2}
        records = [GOOD | {"card_id": index, "amount": chance.choice([1.5, None])} for index in range(20)]
        body = [
            (records[i] | bad[i] if isinstance(bad[i], dict) else bad[i]) if i in bad else records[i] for i in range(20)
        ]
        call = decode(codec, body)
        assert set(call.failed) == set(bad)
        assert [row[0] for row in call.rows] == [index for index in range(20) if index not in bad]


def test_too_many_records_are_refused() -> None:
    narrow = RecordCodec(request=REQUEST[:1], response=RESPONSE, function="f", model="f/1", revision=1)
    assert decode(narrow, [{"card_id": 1}] * RECORDS_MAX).count == RECORDS_MAX
    for last in ({"card_id": 1}, {"card_id": "x"}):
        with pytest.raises(TooLarge):
            decode(narrow, [*([{"card_id": 1}] * RECORDS_MAX), last])


def test_what_a_record_holds_beside_the_request_is_not_read() -> None:
    """Fields of events, on a topic whose records both a stream feature view and a model are made of."""
    codec = RecordCodec(
        request=REQUEST, response=RESPONSE, function="f", model="f/1", revision=1, beside=["id", "event_time"]
    )
    more = {"event_time": {"any": ["thing", None]}, "id": None}
    (row,) = decode(codec, GOOD).rows
    assert decode(codec, more | GOOD).rows == (row,)
    assert decode(codec, [GOOD, GOOD | more, {"id": 7} | GOOD]).rows == [row] * 3
    assert len(decode(codec, [GOOD | more | {"card_id": 1}, GOOD | {"card_id": 2}, more]).rows) == 2
    null = {name: None for name in GOOD if name == "amount"}
    assert decode(codec, GOOD | null | more).rows[0][1:] != row[1:]
    wrong = refusal(codec, more | GOOD | {"card_id": "x"})
    assert (wrong["code"], wrong["field"]) == ("wrong_type", "card_id")
    unknown = refusal(codec, more | GOOD | {"event_tim": 1})
    assert (unknown["code"], unknown["field"]) == ("unknown_field", "event_tim")
    assert refusal(codec, more)["code"] == "missing_field"


def test_bytes_travel_as_base64() -> None:
    codec = RecordCodec(
        request=[Field("raw", "bytes")], response=[Field("raw", "bytes")], function="f", model="f/1", revision=1
    )
    call = decode(codec, {"raw": "aGk="})
    assert call.rows == ((b"hi",),)
    assert json.loads(codec.encode(reply(call, raw=[b"hi"])))["predictions"] == [{"raw": "aGk="}]
    assert refusal(codec, {"raw": "not base64!"})["code"] == "wrong_type"


def test_field_names_need_not_be_identifiers() -> None:
    names = ["petal length (cm)", "class", "ümlaut", "a-b", ""]
    codec = RecordCodec(
        request=[Field(name, "float64") for name in names],
        response=[Field("is it?", "int64")],
        function="f",
        model="f/1",
        revision=1,
    )
    call = decode(codec, {name: at for at, name in enumerate(names)})
    assert call.rows == ((0.0, 1.0, 2.0, 3.0, 4.0),)
    assert json.loads(codec.encode(reply(call, **{"is it?": np.array([1])})))["predictions"] == [{"is it?": 1}]


@pytest.mark.parametrize(
    ("request_name", "response_name"), [('a"b', "y"), ("a\\b", "y"), ("x", "error"), ("x", "stale")]
)
def test_names_that_replies_cannot_carry_are_refused(request_name: str, response_name: str) -> None:
    with pytest.raises(UsageError):
        RecordCodec(
            request=[Field(request_name, "float64")],
            response=[Field(response_name, "float64")],
            function="f",
            model="f/1",
            revision=1,
        )


def test_the_reply_is_what_the_contract_says(codec: RecordCodec) -> None:
    call = decode(codec, GOOD)
    body = codec.encode(reply(call, score=np.array([0.031]), decision=["allow"]))
    assert body == (
        b'{"function":"fraud","revision":7,"model":"fraud/3","id":"r1",'
        b'"predictions":[{"score":0.031,"decision":"allow"}]}'
    )


def test_an_id_is_escaped(codec: RecordCodec) -> None:
    call = codec.decode(json.dumps(GOOD).encode(), id='a"\\\n', deadline=1.0)
    assert json.loads(codec.encode(reply(call, score=[0.5], decision=["x"])))["id"] == 'a"\\\n'


def test_numbers_that_json_has_not_become_null(codec: RecordCodec) -> None:
    call = decode(codec, [GOOD] * 3)
    body = codec.encode(reply(call, score=np.array([np.nan, np.inf, -np.inf]), decision=["a"] * 3))
    assert [p["score"] for p in json.loads(body)["predictions"]] == [None, None, None]


def test_matrices_and_labels_are_written_as_they_are() -> None:
    fields = [Field("probability", "float64", (2,)), Field("label", "string")]
    codec = RecordCodec(request=REQUEST[:1], response=fields, function="f", model="f/1", revision=1)
    call = decode(codec, [{"card_id": 1}, {"card_id": 2}])
    columns = {"probability": np.array([[0.25, 0.75], [1, 0]]), "label": np.array(["a", "b"], dtype=object)}
    assert json.loads(codec.encode(reply(call, **columns)))["predictions"] == [
        {"probability": [0.25, 0.75], "label": "a"},
        {"probability": [1.0, 0.0], "label": "b"},
    ]


def test_failures_defaults_and_stale_features_stand_with_their_record(codec: RecordCodec) -> None:
    call = decode(codec, [GOOD, GOOD | {"card_id": "x"}, GOOD, GOOD])
    failed = dict(call.failed) | {3: FeaturesMissing("no fresh value", field="n", hint="later")}
    answer = Reply(
        call,
        {"score": np.array([0.1, 0.2]), "decision": ["a", "b"]},
        [0, 2],
        failed,
        [(), ("n", "m")],
        [("k",), ()],
        Timings(),
    )
    predictions = json.loads(codec.encode(answer))["predictions"]
    assert predictions[0] == {"score": 0.1, "decision": "a", "stale": ["k"]}
    assert predictions[1]["error"]["field"] == "card_id"
    assert predictions[2] == {"score": 0.2, "decision": "b", "defaulted": ["n", "m"]}
    assert predictions[3] == {
        "error": {"code": "features_missing", "message": "no fresh value", "field": "n", "hint": "later"}
    }


def test_only_defaulted_or_only_stale(codec: RecordCodec) -> None:
    call = decode(codec, GOOD)
    for defaulted, stale, said in (([("n",)], None, "defaulted"), (None, [("n",)], "stale")):
        answer = Reply(call, {"score": [0.1], "decision": ["a"]}, [0], {}, defaulted, stale, Timings())
        (prediction,) = json.loads(codec.encode(answer))["predictions"]
        assert prediction == {"score": 0.1, "decision": "a", said: ["n"]}


def test_a_row_is_one_record_and_never_a_list(codec: RecordCodec) -> None:
    body = json.dumps(GOOD).encode()
    assert codec.row(body) == ROW
    assert codec.row(msgspec.Raw(body)) == ROW
    assert math.isnan(codec.row(json.dumps(GOOD | {"amount": None}).encode())[1])
    for bad, code in ((b"[" + body + b"]", "wrong_type"), (b"{", "invalid_json"), (b"{}", "missing_field")):
        with pytest.raises(BadRequest) as caught:
            codec.row(bad)
        assert caught.value.code == code


def test_predictions_are_those_of_the_reply_one_by_one(codec: RecordCodec) -> None:
    call = decode(codec, [GOOD, GOOD | {"card_id": "x"}, GOOD, GOOD])
    missing = FeaturesMissing("no fresh value", field="n")
    answer = Reply(
        call,
        {"score": np.array([0.1, np.nan]), "decision": ["a", "b"]},
        [0, 2],
        dict(call.failed) | {3: missing},
        [(), ("n", "m")],
        [("k",), ()],
        Timings(),
    )
    first, second, third, fourth = codec.predictions(answer)
    assert first == b'{"score":0.1,"decision":"a","stale":["k"]}'
    assert second is call.failed[1]
    assert third == b'{"score":null,"decision":"b","defaulted":["n","m"]}'
    assert fourth is missing


def test_predictions_say_what_the_reply_says(codec: RecordCodec) -> None:
    call = decode(codec, [GOOD] * 3)
    answer = reply(call, score=np.array([0.1, 0.2, 0.3]), decision=["a", "b", "c"])
    whole = json.loads(codec.encode(answer))["predictions"]
    assert [json.loads(one) for one in codec.predictions(answer) if isinstance(one, bytes)] == whole
    nothing = reply(decode(codec, []), score=[], decision=[])
    assert codec.predictions(nothing) == []


def test_where_every_record_failed_predictions_are_errors(codec: RecordCodec) -> None:
    call = decode(codec, [5, GOOD])
    failed = dict(call.failed) | {1: FeaturesMissing("none")}
    answer = Reply(call, {"score": [], "decision": []}, [], failed, None, None, Timings())
    assert codec.predictions(answer) == [failed[0], failed[1]]


def test_errors_leave_out_what_they_do_not_say(codec: RecordCodec) -> None:
    assert codec.error(BadRequest("no")) == b'{"error":{"code":"bad_request","message":"no"}}'
