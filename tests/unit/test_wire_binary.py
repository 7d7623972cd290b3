"""The Open Inference Protocol's binary tensors: every datatype there and back, and sizes that lie."""

import json
import struct
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sunup.errors import BadRequest, TooLarge, UnsupportedMedia
from sunup.limits import RECORDS_MAX
from sunup.types import Call, Column, Field, Reply, Tensor, Timings
from sunup.wire.codec import Encoded
from sunup.wire.oip import OipCodec

RESPONSE = (
    Field("score", "float64"),
    Field("p", "float32", (2,)),
    Field("label", "int64"),
    Field("ok", "bool"),
    Field("decision", "string"),
)
OCTETS = b"application/octet-stream"


def codec(*fields: Field, matrix: Tensor | None = None) -> OipCodec:
    return OipCodec(request=fields, response=RESPONSE, function="f", version="1", matrix=matrix)


def one(dtype: str, shape: tuple[int, ...] = ()) -> OipCodec:
    return codec(Field("x", dtype, shape))


def frame(head: dict[str, Any], raw: bytes) -> tuple[bytes, bytes]:
    text = json.dumps(head).encode()
    return text + raw, str(len(text)).encode()


def described(datatype: str, shape: list[int], size: int, **more: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}} | more


def decode(made: OipCodec, body: bytes, length: bytes, kind: bytes = OCTETS) -> Call:
    return made.reading(kind, length).decode(body, id="r", deadline=1.0)


def send(made: OipCodec, datatype: str, raw: bytes, shape: list[int], **more: Any) -> Call:
    return decode(made, *frame({"inputs": [described(datatype, shape, len(raw), **more)]}, raw))


def packed(*elements: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


@pytest.mark.parametrize(
    ("dtype", "datatype", "values"),
    [
        ("float64", "FP64", np.array([1.5, np.nan, np.inf, -0.0])),
        ("float64", "FP32", np.array([0.5, np.nan], "f4")),
        ("float64", "FP16", np.array([0.5, -2], "f2")),
        ("float64", "INT64", np.array([2**53, -(2**53)])),
        ("float64", "UINT8", np.array([255], "u1")),
        ("float32", "FP64", np.array([0.5, np.nan, -np.inf])),
        ("float32", "FP32", np.array([0.1, np.inf], "f4")),
        ("float32", "INT16", np.array([-3], "i2")),
        ("int64", "INT64", np.array([-(2**63), 2**63 - 1])),
        ("int64", "UINT64", np.array([2**63 - 1], "u8")),
        ("int64", "UINT32", np.array([2**32 - 1], "u4")),
        ("int64", "FP64", np.array([7.0, -(2.0**63)])),
        ("int32", "INT64", np.array([-(2**31)])),
        ("int32", "INT8", np.array([-128], "i1")),
        ("int32", "UINT16", np.array([65535], "u2")),
        ("int32", "FP32", np.array([7], "f4")),
        ("bool", "BOOL", np.array([True, False])),
    ],
)
def test_numbers(dtype: str, datatype: str, values: NDArray[Any]) -> None:
    rows = send(one(dtype), datatype, values.tobytes(), [len(values), 1]).rows
    np.testing.assert_array_equal([row[0] for row in rows], values.astype(dtype))
    assert {type(row[0]) for row in rows} == {type(np.dtype(dtype).type(0).item())}


@pytest.mark.parametrize(
    ("dtype", "datatype", "values"),
    [
        ("float32", "FP64", np.array([1e39])),
        ("float32", "INT32", np.array([2**24 + 1], "i4")),
        ("float64", "UINT64", np.array([2**53 + 1], "u8")),
        ("float64", "BOOL", np.array([True])),
        ("int64", "FP64", np.array([7.5])),
        ("int64", "FP64", np.array([np.nan])),
        ("int64", "FP64", np.array([np.inf])),
        ("int64", "FP64", np.array([2.0**63])),
        ("int64", "UINT64", np.array([2**63], "u8")),
        ("int64", "BOOL", np.array([True])),
        ("int32", "INT64", np.array([2**31])),
        ("int32", "FP32", np.array([2.0**31], "f4")),
        ("bool", "UINT8", np.array([1], "u1")),
        ("string", "UINT8", np.array([1], "u1")),
        ("bytes", "FP32", np.array([1], "f4")),
    ],
)
def test_numbers_that_would_lose_something(dtype: str, datatype: str, values: NDArray[Any]) -> None:
    with pytest.raises(BadRequest) as caught:
        send(one(dtype), datatype, values.tobytes(), [len(values)])
    assert (caught.value.code, caught.value.field) == ("wrong_type", "x")


def test_bytes_and_strings() -> None:
    raw = packed(b"\xff\x00", b"", "ü".encode())
    assert [row[0] for row in send(one("bytes"), "BYTES", raw, [3]).rows] == [b"\xff\x00", b"", "ü".encode()]
    assert [row[0] for row in send(one("string"), "BYTES", packed("ü".encode(), b""), [2, 1]).rows] == ["ü", ""]
    with pytest.raises(BadRequest, match="UTF-8"):
        send(one("string"), "BYTES", raw, [3])
    with pytest.raises(BadRequest):
        send(one("float64"), "BYTES", packed(b"1"), [1])
    parameters = {"binary_data_size": 8, "content_type": "base64"}
    assert send(one("bytes"), "BYTES", packed(b"aGk="), [1], parameters=parameters).rows[0] == (b"hi",)


def test_lists() -> None:
    values = np.arange(6.0)
    for shape in ((3,), (-1,)):
        rows = send(one("float64[]", shape), "FP64", values.tobytes(), [2, 3]).rows
        assert list(rows) == [([0.0, 1.0, 2.0],), ([3.0, 4.0, 5.0],)]
    assert list(send(one("string[]", (-1,)), "BYTES", packed(b"a", b"b"), [1, 2]).rows) == [(["a", "b"],)]


def test_tensors_behind_the_json_follow_each_other_and_json_ones_may_be_between() -> None:
    made = codec(Field("a", "float64"), Field("b", "int64"), Field("c", "string"))
    raw = {"a": np.array([1.0, 2.0]).tobytes(), "c": packed(b"x", b"yz")}
    inputs = [
        {"name": "c", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(raw["c"])}},
        {"name": "b", "datatype": "INT64", "shape": [2], "data": [3, 4]},
        {"name": "a", "datatype": "FP64", "shape": [2], "parameters": {"binary_data_size": len(raw["a"])}},
    ]
    call = decode(made, *frame({"id": "mine", "inputs": inputs}, raw["c"] + raw["a"]), b"application/json")
    assert list(call.rows) == [(1.0, 3, "x"), (2.0, 4, "yz")]


@pytest.mark.parametrize(
    ("tensor", "raw"),
    [
        (described("FP64", [1], 7), b"1234567"),
        (described("FP64", [2], 8), b"12345678"),
        (described("FP64", [1], 16), b"12345678"),
        (described("FP64", [1], 8), b"123456789"),
        (described("FP64", [1], -8), b"12345678"),
        (described("FP64", [-1], 8), b"12345678"),
        (described("FP64", [2**62], 8), b"12345678"),
        (described("FP64", [1], 8, parameters={"binary_data_size": "8"}), b"12345678"),
        (described("FP64", [1], 8, parameters={"binary_data_size": True}), b"1"),
        (described("FP64", [1], 8, parameters={"binary_data_size": 8.0}), b"12345678"),
        (described("FP64", [1], 8, parameters={}), b"12345678"),
        (described("FP64", [1], 8, data=[1.0]), b"12345678"),
        (described("BF16", [1], 2), b"12"),
        (described("BOOL", [1], 1), b"\x02"),
        (described("BYTES", [1], 4), b"\xff\xff\xff\xff"),
        (described("BYTES", [1], 5), b"\x02\0\0\0a"),
        (described("BYTES", [1], 3), b"\0\0\0"),
        (described("BYTES", [1], 8), packed(b"", b"")),
        (described("BYTES", [2], 5), packed(b"a")),
        (described("BYTES", [10**12], 5), packed(b"a")),
    ],
)
def test_sizes_that_lie(tensor: dict[str, Any], raw: bytes) -> None:
    for dtype in ("float64", "bool", "string"):
        with pytest.raises((BadRequest, TooLarge)):
            decode(one(dtype), *frame({"inputs": [tensor]}, raw))


@pytest.mark.parametrize("length", [b"", b"-1", b"x", b"1e3", b"99999", b"9" * 5000, b" 1", "²".encode(), b"5"])
def test_header_lengths_that_lie(length: bytes) -> None:
    with pytest.raises(BadRequest):
        decode(one("float64"), b'{"inputs":[]}', length)


def test_too_many_rows() -> None:
    values = np.zeros(RECORDS_MAX + 1)
    with pytest.raises(TooLarge):
        send(one("float64"), "FP64", values.tobytes(), [len(values)])


@pytest.mark.parametrize(
    ("dtype", "shape", "raw", "rows"),
    [
        ("float64", (), np.array([1.0, 2.0]).tobytes(), [(1.0,), (2.0,)]),
        ("float64[]", (2,), np.arange(4.0).tobytes(), [([0.0, 1.0],), ([2.0, 3.0],)]),
        ("int64[]", (-1,), np.arange(3).tobytes(), [([0, 1, 2],)]),
        ("bool", (), b"\1\0", [(True,), (False,)]),
        ("bytes", (), b"\xff\xd8 an image", [(b"\xff\xd8 an image",)]),
        ("string", (), b"text", [("text",)]),
        ("float64", (), b"", []),
    ],
)
def test_one_raw_tensor(dtype: str, shape: tuple[int, ...], raw: bytes, rows: list[Any]) -> None:
    call = decode(one(dtype, shape), raw, b"0")
    assert list(call.rows) == rows
    assert call.parameters["binary"] == {field.name for field in RESPONSE}


def test_one_raw_matrix() -> None:
    matrix = Tensor("X", "float32", (-1, 2), ("b", "a"))
    made = codec(Field("a", "float64"), Field("b", "float64"), matrix=matrix)
    assert list(decode(made, np.arange(4, dtype="f4").tobytes(), b"0").rows) == [(1.0, 0.0), (3.0, 2.0)]
    with pytest.raises(BadRequest):
        decode(made, b"123", b"0")


def test_a_raw_body_needs_one_input() -> None:
    with pytest.raises(BadRequest, match="2 inputs"):
        decode(codec(Field("a", "float64"), Field("b", "float64")), b"12345678", b"0")
    for raw in (b"1", b"123456789"):
        with pytest.raises(BadRequest):
            decode(one("float64"), raw, b"0")


def test_content_types() -> None:
    made = one("float64")
    for kind in (b"", b"application/json", OCTETS, b"Application/Octet-Stream"):
        assert made.reading(kind, None) is made
    with pytest.raises(UnsupportedMedia):
        made.reading(b"text/csv", b"0")


# --- Replies ----------------------------------------------------------------------------------------------------------

COLUMNS: dict[str, Column] = {
    "score": np.array([0.5, np.nan]),
    "p": np.array([[0.25, 0.75], [1, 0]], "f4"),
    "label": np.array([0, -1]),
    "ok": np.array([True, False]),
    "decision": ["ü", ""],
}


def reply(**members: Any) -> bytes | Encoded:
    inputs = [{"name": "x", "shape": [2], "datatype": "FP64", "data": [1, 2]}]
    call = one("float64").decode(json.dumps({"inputs": inputs} | members).encode(), id="r", deadline=1.0)
    columns = {name: COLUMNS[name] for name in call.wanted or COLUMNS}
    return one("float64").encode(Reply(call, columns, [0, 1], {}, None, None, Timings()))


def test_every_output_as_raw_bytes() -> None:
    body = reply(parameters={"binary_data_output": True})
    assert isinstance(body, Encoded)
    length = int(dict(body.headers)[b"inference-header-content-length"])
    assert body.headers[0] == (b"content-type", OCTETS)
    outputs = json.loads(body.body[:length])["outputs"]
    assert not any("data" in output for output in outputs)
    rest, raw = body.body[length:], {}
    for output in outputs:
        size = output["parameters"]["binary_data_size"]
        raw[output["name"]], rest = rest[:size], rest[size:]
    assert rest == b""
    assert [output["shape"] for output in outputs] == [[2], [2, 2], [2], [2], [2]]
    np.testing.assert_array_equal(np.frombuffer(raw["score"], "<f8"), COLUMNS["score"])
    np.testing.assert_array_equal(np.frombuffer(raw["p"], "<f4").reshape(2, 2), COLUMNS["p"])
    np.testing.assert_array_equal(np.frombuffer(raw["label"], "<i8"), COLUMNS["label"])
    assert (raw["ok"], raw["decision"]) == (b"\1\0", packed("ü".encode(), b""))


def test_outputs_say_for_themselves() -> None:
    wanted = [{"name": "label", "parameters": {"binary_data": False}}, {"name": "score"}]
    body = reply(outputs=wanted, parameters={"binary_data_output": True})
    assert isinstance(body, Encoded)
    length = int(dict(body.headers)[b"inference-header-content-length"])
    label, score = json.loads(body.body[:length])["outputs"]
    assert label == {"name": "label", "shape": [2], "datatype": "INT64", "data": [0, -1]}
    assert score["parameters"] == {"binary_data_size": 16} == {"binary_data_size": len(body.body) - length}
    assert isinstance(reply(outputs=[{"name": "label"}], parameters={"binary_data_output": False}), bytes)


@pytest.mark.parametrize(
    "members",
    [{"parameters": {"binary_data_output": 1}}, {"outputs": [{"name": "label", "parameters": {"binary_data": "yes"}}]}],
)
def test_flags_are_true_or_false(members: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        reply(**members)
