"""MLflow's scoring server: its bodies, its errors, and that pandas would have read the same values."""

import io
import json
import math
import warnings
from typing import Any

import numpy as np
import pytest

from sunup.errors import BadRequest, BodyTimeout, CallError, ExecutionFailed, TooLarge, Unavailable, UnsupportedMedia
from sunup.limits import RECORDS_MAX
from sunup.types import Call, Field, Reply, ResponseField, Timings
from sunup.wire.codec import Encoded
from sunup.wire.tables.mlflow import MlflowCodec

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of importing what pandas imports: theirs
    import pandas as pd

REQUEST = (Field("card_id", "int64"), Field("amount", "float64"), Field("country", "string"))
SCORE = ResponseField("score", "float64", "probability", 1)
RECORDS = [{"card_id": 7, "amount": 1.5, "country": "AT"}, {"card_id": 8, "amount": 2.0, "country": "IT"}]
FRAME = pd.DataFrame(RECORDS)
WANTED = [(7, 1.5, "AT"), (8, 2.0, "IT")]


@pytest.fixture
def codec() -> MlflowCodec:
    return MlflowCodec(request=REQUEST, response=(SCORE,))


def one(dtype: str) -> MlflowCodec:
    return MlflowCodec(request=[Field("x", dtype)], response=(SCORE,))


def decode(codec: MlflowCodec, body: bytes, kind: bytes = b"application/json") -> Call:
    return codec.reading(kind, None).decode(body, id="r1", deadline=5.0)


def csv(codec: MlflowCodec, text: str) -> list[Any]:
    return list(decode(codec, text.encode(), b"text/csv").rows)


@pytest.mark.parametrize(
    "members",
    [
        {"dataframe_split": FRAME.to_dict(orient="split")},
        {"dataframe_split": {"data": FRAME.to_numpy().tolist()}},
        {"dataframe_split": FRAME[["country", "card_id", "amount"]].assign(more=1).to_dict(orient="split")},
        {"dataframe_records": RECORDS},
        {"dataframe_records": [record | {"more": [1]} for record in RECORDS]},
        {"instances": RECORDS},
        {"instances": FRAME.to_numpy().tolist()},
        {"inputs": FRAME.to_dict(orient="list")},
        {"inputs": RECORDS, "params": {"x": 1}, "other": None},
    ],
)
def test_every_shape_is_the_same_rows(codec: MlflowCodec, members: dict[str, Any]) -> None:
    call = decode(codec, json.dumps(members).encode())
    assert list(call.rows) == WANTED
    assert (call.id, call.count, call.deadline, call.single) == ("r1", 2, 5.0, False)


@pytest.mark.parametrize("kind", [b"text/csv", b"text/csv; charset=utf-8", b"TEXT/CSV;charset=UTF-8"])
def test_csv_as_pandas_writes_it(codec: MlflowCodec, kind: bytes) -> None:
    for text in (
        FRAME.to_csv(index=False),
        FRAME.to_csv(),
        "\ufeff" + FRAME.to_csv(index=False, lineterminator="\r\n"),
    ):
        assert list(decode(codec, text.encode(), kind).rows) == WANTED
    assert csv(codec, "card_id,amount,country\n") == []


@pytest.mark.parametrize(
    "cell", ["1.5", "1", "1e3", "-.5", "", "NA", "NaN", "null", "None", "inf", "-inf", "<NA>", "n/a"]
)
def test_floats_are_what_pandas_reads(cell: str) -> None:
    text = f"x,y\n{cell},1\n"
    expected = pd.read_csv(io.StringIO(text), dtype={"x": "float64"})["x"].iloc[0]
    ((value,),) = csv(one("float64"), text)
    np.testing.assert_equal(value, expected)


@pytest.mark.parametrize(
    ("dtype", "cell", "value"),
    [
        ("int64", "7", 7),
        ("int64", "7.0", 7),
        ("int64", str(-(2**63)), -(2**63)),
        ("int32", "-7", -7),
        ("float32", "0.5", 0.5),
        ("float32", "", math.nan),
        ("bool", "True", True),
        ("bool", "0", False),
        ("string", "NA", "NA"),
        ("string", '"a ""b"", c"', 'a "b", c'),
        ("string", '"two\nlines"', "two\nlines"),
        ("string", "a\u2028b", "a\u2028b"),
        ("bytes", "aGk=", b"hi"),
    ],
)
def test_cells_by_dtype(dtype: str, cell: str, value: Any) -> None:
    ((found, *_),) = csv(one(dtype), f"x,y\n{cell},\n")
    np.testing.assert_equal(found, value)
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("dtype", "cell"),
    [
        ("int64", "7.5"),
        ("int64", ""),
        ("int64", "1_0"),
        ("int64", str(2**63)),
        ("int64", "9" * 5000),
        ("int32", str(2**31)),
        ("float64", "1_0"),
        ("float64", "x"),
        ("float32", "1e39"),
        ("bool", "yes"),
        ("bytes", "?"),
        ("float64[]", "[1]"),
    ],
)
def test_cells_that_do_not_fit(dtype: str, cell: str) -> None:
    with pytest.raises(BadRequest) as caught:
        csv(one(dtype), f"x,y\n{cell},\n")
    assert caught.value.field == "x"


@pytest.mark.parametrize(
    "text",
    ["", "\n\n", "y\n1\n", "x,x\n1,2\n", "x\n1,2\n", "x,y\n1\n", 'x\n"1\n', 'x\n"1"2\n', "x\n" + "1" * 200_000, "\0"],
)
def test_csv_that_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        csv(one("float64"), text)
    with pytest.raises(BadRequest):
        decode(one("float64"), b"x\n\xff\n", b"text/csv")


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"params": {}},
        {"instances": [[1]], "inputs": [[1]]},
        {"dataframe_split": [[1]]},
        {"dataframe_split": {"columns": ["x"]}},
        {"dataframe_split": {"columns": ["x"], "data": [[1]], "more": 1}},
        {"dataframe_split": {"columns": ["x", "x"], "data": [[1, 2]]}},
        {"dataframe_split": {"columns": [["x"]], "data": [[1]]}},
        {"dataframe_split": {"columns": "x", "data": [[1]]}},
        {"dataframe_split": {"columns": [0], "data": [[1]]}},
        {"dataframe_split": {"columns": ["x"], "data": [[1, 2]]}},
        {"dataframe_split": {"columns": ["x"], "data": {"x": 1}}},
        {"dataframe_records": {"x": 1}},
        {"dataframe_records": [1]},
        {"dataframe_records": [{"y": 1}]},
        {"inputs": {"y": [1]}},
        [[1]],
        7,
    ],
)
def test_bodies_that_are_refused(members: Any) -> None:
    codec = one("float64")
    with pytest.raises(BadRequest) as caught:
        decode(codec, json.dumps(members).encode())
    body = codec.error(caught.value)
    assert isinstance(body, bytes)
    missing = caught.value.code == "missing_field"
    assert json.loads(body)["error_code"] == ("INVALID_PARAMETER_VALUE" if missing else "BAD_REQUEST")


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"inputs":' + b"[" * 100_000])
def test_bodies_that_are_no_json(codec: MlflowCodec, body: bytes) -> None:
    with pytest.raises(BadRequest):
        decode(codec, body)


def test_too_many_records() -> None:
    with pytest.raises(TooLarge):
        csv(one("float64"), "x\n" + "1\n" * (RECORDS_MAX + 1))


@pytest.mark.parametrize(
    "kind",
    [
        b"text/plain",
        b"application/vnd.apache.parquet",
        b"application/json; format=pandas-split",
        b"application/json; charset=latin-1",
        b"text/csv; charset=utf-16",
        b"\xff\xfe",
        b"application/json;",
    ],
)
def test_other_content_is_refused_in_text(codec: MlflowCodec, kind: bytes) -> None:
    with pytest.raises(UnsupportedMedia) as caught:
        codec.reading(kind, None)
    body = codec.error(caught.value)
    assert isinstance(body, Encoded)
    assert body.headers == ((b"content-type", b"text/plain; charset=utf-8"),)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadRequest("x"), "BAD_REQUEST"),
        (TooLarge("x"), "BAD_REQUEST"),
        (BodyTimeout("x"), "BAD_REQUEST"),
        (ExecutionFailed("x"), "INTERNAL_ERROR"),
        (Unavailable("x"), "TEMPORARILY_UNAVAILABLE"),
    ],
)
def test_errors_have_mlflows_codes(codec: MlflowCodec, error: CallError, code: str) -> None:
    body = codec.error(error)
    assert isinstance(body, bytes)
    assert json.loads(body) == {"error_code": code, "message": "x"}


def test_the_answer(codec: MlflowCodec) -> None:
    reply = Reply(
        Call(id="r", rows=[()], count=1, deadline=1.0), {"score": np.array([0.5])}, [0], {}, None, None, Timings()
    )
    assert codec.encode(reply) == b'{"predictions":[0.5]}'
    assert codec.reading(b"text/csv", None).encode(reply) == b'{"predictions":[0.5]}'
