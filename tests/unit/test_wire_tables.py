"""KServe v1: the shapes tables come in, what is refused of them, and what is answered."""

import json
import math
from typing import Any

import numpy as np
import pytest

from sunup.errors import BadRequest, CallError, FeaturesMissing, TooLarge, UnsupportedMedia
from sunup.limits import RECORDS_MAX
from sunup.types import Call, Column, Decision, Field, Reply, ResponseField, Timings
from sunup.wire.tables.kserve import KServeCodec

REQUEST = (Field("card_id", "int64"), Field("amount", "float64"), Field("country", "string"))
SCORE = ResponseField("score", "float64", "probability", 1)
LABEL = ResponseField("label", "int64", "label")
PROBABILITY = ResponseField("probability", "float64", "probability", shape=(2,))
DECISION = ResponseField("decision", "string", decision=Decision("score", 0.9, "block", "allow"))
RECORDS = [{"card_id": 7, "amount": 1.5, "country": "AT"}, {"country": "IT", "amount": 2, "card_id": 8}]
ROWS = [[7, 1.5, "AT"], [8, 2, "IT"]]
WANTED = [(7, 1.5, "AT"), (8, 2.0, "IT")]


@pytest.fixture
def codec() -> KServeCodec:
    return KServeCodec(request=REQUEST, response=(SCORE, DECISION))


def one(dtype: str, shape: tuple[int, ...] = ()) -> KServeCodec:
    return KServeCodec(request=[Field("x", dtype, shape)], response=(SCORE,))


def decode(codec: KServeCodec, **members: Any) -> Call:
    return codec.decode(json.dumps(members).encode(), id="r1", deadline=5.0)


def answer(count: int, **columns: Column) -> Reply:
    call = Call(id="r1", rows=[()] * count, count=count, deadline=5.0)
    return Reply(call, columns, range(count), {}, None, None, Timings())


@pytest.mark.parametrize(
    "members",
    [
        {"instances": RECORDS},
        {"instances": ROWS},
        {"inputs": RECORDS},
        {"inputs": ROWS},
        {"inputs": {"country": ["AT", "IT"], "amount": [1.5, 2], "card_id": [7, 8]}},
        {"instances": ROWS, "signature_name": "serving_default", "parameters": {}},
    ],
)
def test_records_rows_and_columns_are_the_same(codec: KServeCodec, members: dict[str, Any]) -> None:
    call = decode(codec, **members)
    assert list(call.rows) == WANTED
    assert [type(value) for value in call.rows[1]] == [int, float, str]
    assert (call.id, call.count, call.deadline, call.single) == ("r1", 2, 5.0, False)


def test_one_record_as_an_object(codec: KServeCodec) -> None:
    assert list(decode(codec, inputs=RECORDS[0]).rows) == WANTED[:1]


def test_no_records(codec: KServeCodec) -> None:
    assert decode(codec, instances=[]).count == 0
    assert codec.encode(answer(0, score=[], decision=[])) == b'{"predictions":[]}'


@pytest.mark.parametrize(
    ("dtype", "given", "values"),
    [
        ("float64", [1, 2.5, None], [1.0, 2.5, math.nan]),
        ("float64", [[1], [2]], [1.0, 2.0]),
        ("float32", [0.5, None], [0.5, math.nan]),
        ("int64", [7.0, 8], [7, 8]),
        ("int32", [[7.0]], [7]),
        ("bool", [True, False], [True, False]),
        ("string", ["ü"], ["ü"]),
        ("bytes", ["aGk=", {"b64": "aGk="}], [b"hi", b"hi"]),
        ("bytes", [{"b64": "aGk="}, "aGk="], [b"hi", b"hi"]),
        ("float64[]", [[1, 2], [3]], [[1.0, 2.0], [3.0]]),
        ("float64[]", [[None]], [[math.nan]]),
        ("int64[]", [[1.0, 2]], [[1, 2]]),
    ],
)
def test_a_function_of_one_field_takes_its_values(dtype: str, given: list[Any], values: list[Any]) -> None:
    rows = decode(one(dtype), instances=given).rows
    np.testing.assert_equal([row[0] for row in rows], values)
    assert [type(row[0]) for row in rows] == [type(value) for value in values]


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("int64", 7.5),
        ("int64", 1e30),
        ("int64", 2**63),
        ("int64", None),
        ("int64", True),
        ("int64", "7"),
        ("int32", 2**31),
        ("float64", "1"),
        ("float64", True),
        ("float64", int("9" * 400)),
        ("float32", 1e39),
        ("bool", 1),
        ("string", 1),
        ("string", None),
        ("bytes", "?"),
        ("bytes", {"b64": 1}),
        ("bytes", {"base64": "aGk="}),
        ("float64", [1, 2]),
        ("float64[]", ["x"]),
        ("float64[]", 1),
    ],
)
def test_values_that_do_not_fit(dtype: str, value: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        decode(one(dtype), inputs={"x": [value]})
    assert (caught.value.code, caught.value.field) == ("wrong_type", "x")


def test_a_list_of_another_length_is_refused() -> None:
    assert decode(one("float64[]", (2,)), instances=[[1, 2]]).rows[0] == ([1.0, 2.0],)
    with pytest.raises(BadRequest):
        decode(one("float64[]", (2,)), instances=[[1, 2, 3]])


@pytest.mark.parametrize(
    ("members", "code", "field"),
    [
        ({"instances": [{"card_id": 7, "amount": 1.5}]}, "missing_field", "country"),
        ({"instances": [RECORDS[0] | {"x": 1}]}, "unknown_field", "x"),
        ({"instances": [{"card_id": 7, "amount": 1.5, "contry": "AT"}]}, "unknown_field", "contry"),
        ({"instances": [RECORDS[0], 5]}, "wrong_type", None),
        ({"instances": [[7, 1.5]]}, "wrong_type", None),
        ({"instances": [[7, 1.5, "AT", 1]]}, "wrong_type", None),
        ({"instances": [7]}, "wrong_type", None),
        ({"instances": 7}, "wrong_type", None),
        ({"instances": RECORDS[0]}, "wrong_type", None),
        ({"inputs": {"card_id": [7], "amount": [1.5, 2], "country": ["AT"]}}, "wrong_type", None),
        ({"inputs": {"card_id": [7], "amount": [1.5]}}, "missing_field", "country"),
        ({"inputs": {"card_id": [7], "amount": [1.5], "country": ["AT"], "x": [1]}}, "unknown_field", "x"),
        ({"inputs": "x"}, "wrong_type", None),
        ({"instances": ROWS, "inputs": ROWS}, "wrong_type", None),
        ({}, "wrong_type", None),
        ({"instances": None}, "wrong_type", None),
    ],
)
def test_tables_that_are_refused(codec: KServeCodec, members: dict[str, Any], code: str, field: str | None) -> None:
    with pytest.raises(BadRequest) as caught:
        decode(codec, **members)
    assert (caught.value.code, caught.value.field) == (code, field)
    assert list(json.loads(codec.error(caught.value))) == ["error"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"5", b"\xff", b'{"instances": [', b'{"instances":' + b"[" * 100_000]
)
def test_bodies_that_are_no_predict_request(codec: KServeCodec, body: bytes) -> None:
    with pytest.raises(BadRequest):
        codec.decode(body, id="r", deadline=1.0)


def test_too_many_records() -> None:
    for given in ([1.0] * (RECORDS_MAX + 1), [{"x": 1}] * (RECORDS_MAX + 1), [[1]] * (RECORDS_MAX + 1)):
        with pytest.raises(TooLarge):
            decode(one("float64"), instances=given)
    assert decode(one("float64"), instances=[1.0] * RECORDS_MAX).count == RECORDS_MAX


def test_content_types(codec: KServeCodec) -> None:
    assert codec.reading(b"application/json; charset=utf-8", None) is codec
    with pytest.raises(UnsupportedMedia):
        codec.reading(b"text/csv", None)


# --- What is answered -------------------------------------------------------------------------------------------------


def test_records_of_the_response_fields(codec: KServeCodec) -> None:
    body = codec.encode(answer(2, score=np.array([0.5, np.nan]), decision=["allow", "block"]))
    assert json.loads(body) == {
        "predictions": [{"score": 0.5, "decision": "allow"}, {"score": None, "decision": "block"}]
    }


@pytest.mark.parametrize("response", [(LABEL,), (LABEL, PROBABILITY)])
def test_a_classifier_whose_response_nobody_declared_answers_labels(response: tuple[ResponseField, ...]) -> None:
    codec = KServeCodec(request=REQUEST, response=response)
    columns: dict[str, Column] = {"label": np.array([0, 1]), "probability": np.eye(2)}
    assert codec.encode(answer(2, **columns)) == b'{"predictions":[0,1]}'


def test_what_was_declared_is_answered_in_full() -> None:
    codec = KServeCodec(request=REQUEST, response=(LABEL, SCORE))
    body = codec.encode(answer(1, label=np.array([1]), score=np.array([0.75])))
    assert json.loads(body) == {"predictions": [{"label": 1, "score": 0.75}]}


def test_a_single_response_field_is_answered_by_its_values() -> None:
    body = one("float64").encode(answer(2, score=np.array([0.5, 0.25])))
    assert json.loads(body) == {"predictions": [0.5, 0.25]}


def test_defaulted_features_are_told_once_each() -> None:
    reply = answer(2, score=np.array([0.5, 0.25]))
    told = Reply(reply.call, reply.columns, [0, 1], {}, [("a", "b"), ("b",)], [(), ()], Timings())
    assert json.loads(one("float64").encode(told)) == {"predictions": [0.5, 0.25], "defaulted": ["a", "b"]}


def test_one_failed_record_fails_the_call() -> None:
    reply = answer(2, score=[0.1])
    with pytest.raises(CallError) as caught:
        one("float64").encode(
            Reply(reply.call, reply.columns, [0], {1: FeaturesMissing("none")}, None, None, Timings())
        )
    assert caught.value.status == 503
