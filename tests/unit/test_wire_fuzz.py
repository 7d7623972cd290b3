"""Changed bodies for a function with fields of every type: a codec reads them or raises CallError, and nothing else."""

import json
import random
import struct
from typing import Any

import pytest
from tests.mutation import mutated

from sunup.errors import CallError
from sunup.types import Field, ResponseField, Tensor
from sunup.wire.codec import Codec
from sunup.wire.oip import OipCodec
from sunup.wire.record import RecordCodec
from sunup.wire.tables.kserve import KServeCodec
from sunup.wire.tables.mlflow import MlflowCodec

BODIES = 2000
FIELDS = {
    "flag": ("bool", True, b"\1"),
    "i": ("int32", -7, struct.pack("<i", -7)),
    "id": ("int64", 7, struct.pack("<q", 7)),
    "x": ("float32", 0.5, struct.pack("<f", 0.5)),
    "y": ("float64", None, struct.pack("<d", 0.25)),
    "text": ("string", "é", b"\2\0\0\0\xc3\xa9"),
    "raw": ("bytes", "aGk=", b"\2\0\0\0hi"),
    "many": ("float64[]", [1, None], struct.pack("<2d", 1, 2)),
    "ids": ("int64[]", [1, 2.0], struct.pack("<2q", 1, 2)),
    "words": ("string[]", ["a", "b"], b"\1\0\0\0a\1\0\0\0b"),
}
REQUEST = [Field(name, dtype) for name, (dtype, _, _) in FIELDS.items()]
RESPONSE = [ResponseField("score", "float64", "score")]
RECORD = {name: value for name, (_, value, _) in FIELDS.items()}
FLAT = [field for field in REQUEST if not field.dtype.endswith("[]")]
DATATYPES = {field.name: field.datatype for field in REQUEST}
PARAMETERS = {"content_type": "base64"}

RECORDS = RecordCodec(request=REQUEST, response=[RESPONSE[0].field], function="f", model="f/1", revision=1)
OIP = OipCodec(request=REQUEST, response=[RESPONSE[0].field], function="f", version="1")
KSERVE = KServeCodec(request=REQUEST, response=RESPONSE)
MLFLOW = MlflowCodec(request=REQUEST, response=RESPONSE)
MATRIX = OipCodec(
    request=[Field("a", "float64"), Field("b", "int64")],
    response=[RESPONSE[0].field],
    function="f",
    version="1",
    matrix=Tensor("X", "float32", (-1, 2), ("b", "a")),
)


def tensor(name: str, value: Any, *, raw: bytes | None = None) -> dict[str, Any]:
    shape = [1, len(value)] if isinstance(value, list) else [1]
    made: dict[str, Any] = {"name": name, "shape": shape, "datatype": DATATYPES[name]}
    if raw is not None:
        return {**made, "parameters": {"binary_data_size": len(raw)}}
    data = value if isinstance(value, list) else [value]
    if DATATYPES[name] == "INT64":
        data = [int(one) for one in data]
    return {**made, "data": data, "parameters": PARAMETERS if name == "raw" else {}}


def dump(value: Any) -> bytes:
    return json.dumps(value).encode()


BEHIND = dump({"inputs": [tensor(name, value, raw=raw) for name, (_, value, raw) in FIELDS.items()]})
CSV = b'flag,i,id,x,y,text,raw,more\ntrue,-7,7,0.5,NA,"a,\nb",aGk=,\n'
CASES: dict[str, tuple[Codec, bytes]] = {
    "record": (RECORDS, dump({**RECORD, "ids": [1, 2]})),
    "records": (RECORDS, dump([{**RECORD, "ids": [1, 2]}] * 2)),
    "oip": (OIP, dump({"id": "1", "inputs": [tensor(name, value) for name, value in RECORD.items()]})),
    "oip-binary": (OIP.reading(b"", b"%d" % len(BEHIND)), BEHIND + b"".join(raw for _, _, raw in FIELDS.values())),
    "oip-matrix": (MATRIX, dump({"inputs": [{"name": "X", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]})),
    "oip-raw": (MATRIX.reading(b"", b"0"), struct.pack("<4f", 1, 2, 3, 4)),
    "kserve": (KSERVE, dump({"instances": [RECORD, RECORD]})),
    "kserve-rows": (KSERVE, dump({"instances": [[*RECORD.values()]]})),
    "kserve-columns": (KSERVE, dump({"inputs": {name: [value] for name, value in RECORD.items()}})),
    "mlflow-split": (MLFLOW, dump({"dataframe_split": {"columns": [*RECORD], "data": [[*RECORD.values()]]}})),
    "mlflow-records": (MLFLOW, dump({"dataframe_records": [RECORD]})),
    "mlflow-csv": (MlflowCodec(request=FLAT, response=RESPONSE).reading(b"text/csv", None), CSV),
}


def reads(codec: Codec, body: bytes) -> bool:
    """Whether `body` is read. Anything but a whole call or a CallError of the right status is a failure."""
    try:
        call = codec.decode(body, id="r", deadline=1.0)
    except CallError as error:
        refusal = error
    else:
        assert len(call.rows) + len(call.failed) == call.count
        return True
    assert refusal.status in (400, 413)
    assert codec.error(refusal)
    return False


@pytest.mark.parametrize("name", CASES)
def test_changed_bodies(name: str) -> None:
    codec, body = CASES[name]
    assert reads(codec, body)
    read = [reads(codec, changed) for changed in mutated(body, seed=len(name), count=BODIES)]
    assert read.count(False) > BODIES / 10
    assert any(read) or name == "oip-binary"  # whose header then says the wrong length


def test_changed_header_lengths() -> None:
    _, body = CASES["oip-binary"]
    chance = random.Random(1)
    for changed in mutated(body, seed=1, count=BODIES):
        reads(OIP.reading(b"", b"%d" % chance.randrange(len(changed) + 2)), changed)


def test_changed_heads_and_tensors() -> None:
    """With a length that is right, the JSON and the bytes behind it are each reached."""
    _, body = CASES["oip-binary"]
    head, raw = body[: len(BEHIND)], body[len(BEHIND) :]
    read = [reads(OIP.reading(b"", b"%d" % len(made)), made + raw) for made in mutated(head, seed=2, count=BODIES)]
    read += [reads(OIP.reading(b"", b"%d" % len(head)), head + made) for made in mutated(raw, seed=3, count=BODIES)]
    assert BODIES / 50 < sum(read) < BODIES
