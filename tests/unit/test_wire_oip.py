# Longer than 300 lines: each way a tensor can be given or be wrong is a case here.
"""Open Inference Protocol v2 in JSON: tensors in every datatype and shape it takes, and how it refuses the rest."""

import base64
import json
import math
from typing import Any

import numpy as np
import pytest

from sunup.errors import BadRequest, CallError, FeaturesMissing, TooLarge
from sunup.limits import RECORDS_MAX
from sunup.types import Call, Column, Field, Reply, Tensor, Timings
from sunup.wire.oip import OipCodec

REQUEST = (Field("card_id", "int64"), Field("amount", "float64"), Field("country", "string"))
RESPONSE = (Field("score", "float64"), Field("label", "int64"), Field("decision", "string"))
INPUTS = (
    {"name": "card_id", "shape": [2], "datatype": "INT64", "data": [7, 8]},
    {"name": "amount", "shape": [2, 1], "datatype": "FP64", "data": [[1.5], [2]]},
    {"name": "country", "shape": [2], "datatype": "BYTES", "data": ["AT", "IT"]},
)
WIDE = Tensor("X", "float64", (-1, 3), ("b", "a", "n"))


@pytest.fixture
def codec() -> OipCodec:
    return OipCodec(request=REQUEST, response=RESPONSE, function="fraud", version="3")


@pytest.fixture
def matrix() -> OipCodec:
    fields = [Field("a", "float64"), Field("b", "float64"), Field("n", "int64")]
    return OipCodec(request=fields, response=RESPONSE, function="fraud", version="3", matrix=WIDE)


def one(dtype: str, shape: tuple[int, ...] = ()) -> OipCodec:
    return OipCodec(request=[Field("x", dtype, shape)], response=RESPONSE, function="f", version="1")


def tensor(datatype: str, data: Any, shape: list[int] | None = None, **more: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [len(data)] if shape is None else shape, "datatype": datatype, "data": data} | more


def decode(codec: OipCodec, *inputs: dict[str, Any], **members: Any) -> Call:
    return codec.decode(json.dumps({"inputs": inputs} | members).encode(), id="r1", deadline=5.0)


def reply(call: Call, **columns: Column) -> Reply:
    return Reply(call, columns, range(call.count), {}, None, None, Timings())


def said(codec: OipCodec, answer: Reply) -> Any:
    body = codec.encode(answer)
    assert isinstance(body, bytes)
    return json.loads(body)


def test_tensors_become_rows_whatever_their_order(codec: OipCodec) -> None:
    for inputs in (INPUTS, tuple(reversed(INPUTS))):
        call = decode(codec, *inputs)
        assert list(call.rows) == [(7, 1.5, "AT"), (8, 2.0, "IT")]
        assert (call.id, call.count, call.single, call.wanted) == ("r1", 2, False, ())


def test_what_extensions_add_is_let_pass(codec: OipCodec) -> None:
    inputs = [one | {"parameters": {"content_type": "np", "x": 1}} for one in INPUTS]
    call = decode(codec, *inputs, parameters={"binary_data_output": False}, extra=1)
    assert call.count == 2


@pytest.mark.parametrize(
    ("dtype", "datatype", "data", "values"),
    [
        ("int64", "INT64", [7], [7]),
        ("int64", "UINT8", [255], [255]),
        ("int64", "UINT64", [2**63 - 1], [2**63 - 1]),
        ("int64", "FP64", [7.0, 8], [7, 8]),
        ("int32", "FP32", [7.0], [7]),
        ("int32", "INT64", [-(2**31)], [-(2**31)]),
        ("float64", "FP64", [0.1], [0.1]),
        ("float64", "FP32", [0.5, 1], [0.5, 1.0]),
        ("float64", "FP16", [0.5], [0.5]),
        ("float64", "INT32", [3], [3.0]),
        ("float64", "INT64", [2**53], [2.0**53]),
        ("float32", "FP64", [0.5], [0.5]),
        ("float32", "INT8", [-3], [-3.0]),
        ("bool", "BOOL", [True, False], [True, False]),
        ("string", "BYTES", ["ü", ""], ["ü", ""]),
        ("bytes", "BYTES", ["ü"], ["ü".encode()]),
    ],
)
def test_datatypes_that_fit(dtype: str, datatype: str, data: list[Any], values: list[Any]) -> None:
    rows = decode(one(dtype), tensor(datatype, data)).rows
    assert [row[0] for row in rows] == values
    assert [type(row[0]) for row in rows] == [type(value) for value in values]


@pytest.mark.parametrize(
    ("dtype", "datatype", "data"),
    [
        ("int64", "FP64", [7.5]),
        ("int64", "FP64", [1e30]),
        ("int64", "FP64", [None]),
        ("int64", "UINT64", [2**63]),
        ("int64", "BOOL", [True]),
        ("int64", "BYTES", ["7"]),
        ("int32", "INT64", [2**31]),
        ("float64", "INT64", [2**53 + 1]),
        ("float64", "BOOL", [True]),
        ("float32", "INT64", [2**24 + 1]),
        ("float32", "FP64", [1e39]),
        ("bool", "UINT8", [1]),
        ("string", "INT64", [1]),
        ("bytes", "FP32", [1.0]),
    ],
)
def test_datatypes_that_would_lose_something(dtype: str, datatype: str, data: list[Any]) -> None:
    with pytest.raises(BadRequest) as caught:
        decode(one(dtype), tensor(datatype, data))
    assert (caught.value.code, caught.value.field) == ("wrong_type", "x")


@pytest.mark.parametrize(
    "wrong",
    [
        tensor("UINT8", [256]),
        tensor("INT8", [-129]),
        tensor("INT64", [1.5]),
        tensor("INT64", ["1"]),
        tensor("INT64", [None]),
        tensor("INT64", [True]),
        tensor("BYTES", [1]),
        tensor("FP64", ["x"]),
        tensor("FP99", [1]),
        tensor("fp64", [1]),
        tensor("FP64", [1], shape=[2]),
        tensor("FP64", [1, 2], shape=[1, 1]),
        tensor("FP64", [1], shape=[]),
        tensor("FP64", [1], shape=[-1]),
        tensor("FP64", [1], shape=[1, 1, 1]),
        tensor("FP64", [1, 2], shape=[1, 2]),
        tensor("FP64", {"a": 1}, shape=[1]),
        tensor("FP64", [{"a": 1}]),
        tensor("FP64", [[1], ["x"]]),
        {"name": "x", "shape": [1], "datatype": "FP64"},
        {"name": "x", "shape": [1], "datatype": "FP64", "parameters": {"binary_data_size": 8}},
    ],
)
def test_tensors_that_are_wrong_in_themselves(wrong: dict[str, Any]) -> None:
    codec = one("float64")
    with pytest.raises(BadRequest) as caught:
        decode(codec, wrong)
    assert caught.value.field == "x"
    assert list(json.loads(codec.error(caught.value))) == ["error"]


def test_null_in_a_float_tensor_is_missing() -> None:
    rows = decode(one("float64"), tensor("FP64", [1, None])).rows
    assert rows[0][0] == 1.0
    assert math.isnan(rows[1][0])
    assert math.isnan(decode(one("float32"), tensor("FP32", [None])).rows[0][0])


def test_base64_bytes() -> None:
    data = [base64.b64encode(b"\xff\x00").decode()]
    call = decode(one("bytes"), tensor("BYTES", data, parameters={"content_type": "base64"}))
    assert call.rows[0] == (b"\xff\x00",)


@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]], [[[1, 2, 3]], [[4, 5, 6]]]])
def test_data_is_flat_or_nested(data: list[Any]) -> None:
    for shape in ((3,), (-1,)):
        rows = decode(one("float64[]", shape), tensor("INT64", data, shape=[2, 3])).rows
        assert list(rows) == [([1.0, 2.0, 3.0],), ([4.0, 5.0, 6.0],)]


def test_a_list_field_of_another_length_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"\[n, k\]"):
        decode(one("float64[]", (4,)), tensor("FP64", [1, 2, 3], shape=[1, 3]))


def test_inputs_must_be_the_functions(codec: OipCodec) -> None:
    with pytest.raises(BadRequest) as caught:
        decode(codec, *INPUTS[:2])
    assert (caught.value.code, caught.value.field) == ("missing_field", "country")
    with pytest.raises(BadRequest) as caught:
        decode(codec, *INPUTS, dict(INPUTS[1], name="ammount"))
    assert (caught.value.code, caught.value.hint) == ("unknown_field", "did you mean amount?")
    with pytest.raises(BadRequest, match="twice"):
        decode(codec, *INPUTS, INPUTS[0])
    with pytest.raises(BadRequest, match="first dimension"):
        decode(codec, *INPUTS[:2], dict(INPUTS[2], shape=[1], data=["AT"]))


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"5", b"{}", b'{"inputs": 5}', b'{"inputs": [5]}', b'{"inputs": [{"name": "x"}]}', b"\xff"],
)
def test_bodies_that_are_no_infer_request(codec: OipCodec, body: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        codec.decode(body, id="r", deadline=1.0)
    assert caught.value.code in {"wrong_type", "invalid_json"}


@pytest.mark.parametrize("data", ["[" * 100_000, '["\\ud800"]', "[1"])
def test_data_that_is_hostile(data: str) -> None:
    body = b'{"inputs":[{"name":"x","shape":[1],"datatype":"BYTES","data":' + data.encode() + b"}]}"
    with pytest.raises(BadRequest):
        one("string").decode(body, id="r", deadline=1.0)


def test_too_many_rows() -> None:
    with pytest.raises(TooLarge):
        decode(one("float64"), tensor("FP64", [1.0], shape=[RECORDS_MAX + 1]))
    assert decode(one("float64"), tensor("FP64", [1.0] * RECORDS_MAX)).count == RECORDS_MAX


def test_a_matrix_fills_the_fields_its_columns_name(matrix: OipCodec) -> None:
    whole = {"name": "X", "shape": [2, 3], "datatype": "FP32", "data": [[1, 2, 3], [4, 5, 6]]}
    rows = list(decode(matrix, whole).rows)
    assert rows == [(2.0, 1.0, 3), (5.0, 4.0, 6)]
    assert type(rows[0][2]) is int
    by_name = [
        {"name": name, "shape": [1], "datatype": "FP64", "data": [value]}
        for name, value in zip("abn", (2, 1, 3), strict=True)
    ]
    assert list(decode(matrix, *by_name).rows) == [(2.0, 1.0, 3)]


@pytest.mark.parametrize("shape", [[2, 2], [4], [4, 1], [1, 4], [1, 2, 2]])
def test_a_matrix_of_another_shape(matrix: OipCodec, shape: list[int]) -> None:
    with pytest.raises(BadRequest, match=r"\[n, 3\]"):
        decode(matrix, {"name": "X", "shape": shape, "datatype": "FP32", "data": [1, 2, 3, 4]})


def test_a_matrix_with_columns_from_elsewhere_is_not_offered() -> None:
    codec = OipCodec(request=REQUEST, response=RESPONSE, function="f", version="1", matrix=WIDE)
    with pytest.raises(BadRequest, match="no input 'X'"):
        decode(codec, {"name": "X", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]})


def test_the_reply(codec: OipCodec) -> None:
    call = decode(codec, *INPUTS, id="mine")
    body = said(codec, reply(call, score=np.array([0.5, np.nan]), label=np.array([0, 1]), decision=["a", "b"]))
    assert body == {
        "model_name": "fraud",
        "model_version": "3",
        "id": "mine",
        "outputs": [
            {"name": "score", "shape": [2], "datatype": "FP64", "data": [0.5, None]},
            {"name": "label", "shape": [2], "datatype": "INT64", "data": [0, 1]},
            {"name": "decision", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]},
        ],
    }


def test_without_an_id_the_requests_own_is_told(codec: OipCodec) -> None:
    call = decode(codec, *INPUTS, outputs=[{"name": "label", "parameters": {"binary_data": False}}])
    assert call.wanted == ("label",)
    body = said(codec, reply(call, label=np.array([0, 1])))
    assert body["id"] == "r1"
    assert [output["name"] for output in body["outputs"]] == ["label"]


def test_an_output_that_does_not_exist(codec: OipCodec) -> None:
    with pytest.raises(BadRequest) as caught:
        decode(codec, *INPUTS, outputs=[{"name": "scor"}])
    assert caught.value.hint == "did you mean score?"


def test_matrices_are_flat_in_the_reply() -> None:
    codec = OipCodec(request=[Field("x", "float64")], response=[Field("p", "float32", (2,))], function="f", version="1")
    call = decode(codec, tensor("FP64", [1, 2, 3]))
    (output,) = said(codec, reply(call, p=np.arange(6, dtype=np.float32).reshape(3, 2)))["outputs"]
    assert output == {"name": "p", "shape": [3, 2], "datatype": "FP32", "data": [0, 1, 2, 3, 4, 5]}


def test_defaulted_features_are_told_once_each(codec: OipCodec) -> None:
    call = decode(codec, *INPUTS, outputs=[{"name": "score"}])
    answer = Reply(call, {"score": [0.1, 0.2]}, [0, 1], {}, [("a", "b"), ("b",)], [(), ()], Timings())
    assert said(codec, answer)["parameters"] == {"defaulted": "a,b"}


def test_one_failed_record_fails_the_call(codec: OipCodec) -> None:
    call = decode(codec, *INPUTS)
    answer = Reply(call, {"score": [0.1]}, [0], {1: FeaturesMissing("none")}, None, None, Timings())
    with pytest.raises(CallError) as caught:
        codec.encode(answer)
    assert caught.value.status == 503


def test_metadata(codec: OipCodec) -> None:
    assert json.loads(codec.metadata()) == {
        "name": "fraud",
        "versions": ["3"],
        "platform": "onnx_onnxv1",
        "inputs": [
            {"name": "card_id", "datatype": "INT64", "shape": [-1]},
            {"name": "amount", "datatype": "FP64", "shape": [-1]},
            {"name": "country", "datatype": "BYTES", "shape": [-1]},
        ],
        "outputs": [
            {"name": "score", "datatype": "FP64", "shape": [-1]},
            {"name": "label", "datatype": "INT64", "shape": [-1]},
            {"name": "decision", "datatype": "BYTES", "shape": [-1]},
        ],
    }
    listed = json.loads(one("int64[]").metadata())["inputs"]
    assert listed == [{"name": "x", "datatype": "INT64", "shape": [-1, -1]}]
