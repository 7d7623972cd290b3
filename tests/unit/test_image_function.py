"""Functions that take a picture: how they are declared, how codecs and events carry one, and the stage that decodes."""

import asyncio
import json
from base64 import b64encode
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.pictures import PHOTOGRAPH, encoded

from sunup.bundle.declare.file import parse
from sunup.bundle.declare.fit import fit
from sunup.bundle.declare.image import as_taken
from sunup.bundle.declare.spec import Spec
from sunup.bundle.declare.write import derive, write
from sunup.errors import BadRequest, CallError, Overloaded, TooLarge, UnsupportedMedia, UsageError
from sunup.limits import IMAGES_MAX
from sunup.types import Call, Field, ImageSpec, Timings
from sunup.wire.cloudevent import read
from sunup.wire.fields import ImageField, Picture
from sunup.wire.image.pictures import Pictures
from sunup.wire.oip import OipCodec
from sunup.wire.record import RecordCodec

DECLARED = """
[request]
photo = "bytes"
price = "float64"

[image]
size = [48, 64]
"""
COLUMNS = (Field("image", "uint8", (48, 64, 3)), Field("price", "float64"))
IMAGE = ImageSpec("photo", (48, 64))
REQUEST = (ImageField("photo", "bytes"),)
JPEG = encoded(PHOTOGRAPH)


# --- declared ---------------------------------------------------------------------------------------------------------


def declared(text: str) -> Spec:
    return parse(text, source="function.toml", name="look")


def test_the_field_of_bytes_is_the_image() -> None:
    spec = declared(DECLARED)
    assert spec.image == IMAGE
    assert fit(spec, COLUMNS, ()).request == (Field("photo", "bytes"), Field("price", "float64"))
    assert as_taken(spec, COLUMNS) == (Field("photo", "uint8", (48, 64, 3)), Field("price", "float64"))
    assert declared(write(spec)) == spec
    other = msgspec.structs.replace(spec, image=ImageSpec("photo", (8, 8), "contain", 100))
    assert declared(write(other)) == other


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[image]\nsize = [8, 8]", "no field is of type"),
        ('[request]\na = "bytes"\nb = "bytes"\n[image]\nsize = [8, 8]', "2 fields are of type"),
        ('[request]\na = "bytes"\n[image]\nsize = [8]', "image"),
        ('[request]\na = "bytes"\n[image]\nsize = [8, 9000]', "2048"),
        ('[request]\na = "bytes"\n[image]\nsize = [8, 8]\nresize = "crop"', "resize"),
        ('[request]\na = "bytes"\n[image]\nsize = [8, 8]\nresise = "cover"', "Did you mean `resize`"),
    ],
)
def test_what_is_no_image_is_refused(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        declared(text)


def test_a_model_that_takes_an_image_needs_no_declaration() -> None:
    spec = derive("look", COLUMNS)
    assert spec.image == ImageSpec("image", (48, 64))
    assert spec.request == (Field("image", "bytes"), Field("price", "float64"))
    with pytest.raises(UsageError, match="images of any size"):
        derive("look", [Field("image", "uint8", (-1, -1, 3))])


def test_function_and_model_must_agree() -> None:
    with pytest.raises(UsageError, match=r"takes images. Add to function.toml"):
        fit(declared('[request]\nphoto = "bytes"'), COLUMNS, ())
    with pytest.raises(UsageError, match="the model look takes none"):
        fit(declared(DECLARED), COLUMNS[1:], ())
    with pytest.raises(UsageError, match=r"size of look is \[48, 64\], but the model look takes \[64, 64\]"):
        fit(declared(DECLARED), (Field("image", "uint8", (64, 64, 3)), COLUMNS[1]), ())
    assert fit(declared(DECLARED), (Field("image", "uint8", (-1, -1, 3)), COLUMNS[1]), ())


# --- carried ----------------------------------------------------------------------------------------------------------


def codec(request: tuple[Field, ...] = REQUEST) -> RecordCodec:
    return RecordCodec(request=request, response=(), function="look", model="look/1", revision=1)


def test_a_body_that_is_a_picture_is_one_record() -> None:
    call = codec().reading(b"image/JPEG; q=1", None).decode(JPEG, id="1", deadline=1.0)
    assert call.single
    assert call.rows == ((Picture(JPEG, "image/jpeg"),),)


def test_a_picture_in_json_may_say_what_it_is() -> None:
    text = b64encode(JPEG).decode()
    forms: list[Any] = [text, {"b64": text}, {"b64": text, "content_type": "image/jpeg"}]
    body = json.dumps([{"photo": form} for form in [*forms, {"b64": 5}, {"url": "x"}]]).encode()
    call = codec().decode(body, id="1", deadline=1.0)
    assert call.rows == [(JPEG,), (Picture(JPEG),), (Picture(JPEG, "image/jpeg"),)]
    assert {at: error.field for at, error in call.failed.items()} == {3: "photo", 4: "photo"}


def test_a_body_that_is_a_picture_is_refused_where_a_record_is_more_or_other() -> None:
    for fields, told in ((REQUEST + COLUMNS[1:], "base64"), ((Field("a", "bytes"),), "takes no image")):
        with pytest.raises(UnsupportedMedia, match=told):
            codec(fields).reading(b"image/png", None).decode(JPEG, id="1", deadline=1.0)
    with pytest.raises(UnsupportedMedia):
        codec().reading(b"video/mp4", None)


def test_tensors_of_pictures_are_base64_in_json_and_bytes_behind_it() -> None:
    oip = OipCodec(request=REQUEST, response=(), function="look", version="1")
    tensor = {"name": "photo", "datatype": "BYTES", "shape": [1], "data": [b64encode(JPEG).decode()]}
    for more in ({}, {"parameters": {"content_type": "base64"}}):
        call = oip.decode(json.dumps({"inputs": [tensor | more]}).encode(), id="1", deadline=1.0)
        assert call.rows == [(JPEG,)]
    framed = oip.reading(b"application/octet-stream", b"0").decode(JPEG, id="1", deadline=1.0)
    assert framed.rows == [(JPEG,)]
    with pytest.raises(BadRequest):
        oip.decode(json.dumps({"inputs": [tensor | {"data": ["no base64"]}]}).encode(), id="1", deadline=1.0)


def test_records_of_a_topic_that_are_pictures() -> None:
    event = [("ce_specversion", b"1.0"), ("ce_id", b"7"), ("ce_source", b"/s"), ("ce_type", b"t")]
    kind = [("content-type", b"Image/PNG")]
    assert read(b"x", [], "image") == (b"x", None, None, "image/*")
    assert read(b"x", kind, "image") == read(b"x", kind, "auto") == (b"x", None, None, "image/png")
    assert read(b"x", event + kind, "auto") == read(b"x", event + kind, "image") == (b"x", "7", None, "image/png")
    assert read(b"x", kind, "json").kind == ""
    structured = {"specversion": "1.0", "id": "7", "source": "/s", "type": "t", "datacontenttype": "image/webp"}
    given = json.dumps(structured | {"data_base64": b64encode(b"x").decode()}).encode()
    assert read(given, [("content-type", b"application/cloudevents+json")], "auto") == (b"x", "7", None, "image/webp")
    with pytest.raises(BadRequest, match="datacontenttype is not JSON"):
        read(
            json.dumps(structured | {"data": "x"}).encode(),
            [("content-type", b"application/cloudevents+json")],
            "auto",
        )


# --- decoded ----------------------------------------------------------------------------------------------------------


class Stopped:
    """A clock."""

    def now(self) -> float:
        return 10.0

    def wall(self) -> float:
        return 0.0


def decoded(rows: list[Any], *, deadline: float = 11.0, at_once: int = 1, bytes_max: int = 10**6) -> list[Any]:
    """What becomes of `at_once` calls with these rows, each a Call or what it raised."""

    async def run() -> list[Any]:
        pictures = Pictures(IMAGE, (Field("price", "float64"), *REQUEST), bytes_max=bytes_max, clock=Stopped())
        call = Call(id="1", rows=rows, count=len(rows) + 1, deadline=deadline, failed={0: BadRequest("earlier")})
        try:
            calls = (pictures.decoded(call, Timings()) for _ in range(at_once))
            return list(await asyncio.gather(*calls, return_exceptions=True))
        finally:
            pictures.close()

    return asyncio.run(run())


def test_each_picture_becomes_a_tensor_or_its_records_error() -> None:
    (call,) = decoded([(1.0, JPEG), (2.0, b"x"), (3.0, Picture(JPEG, "image/png")), (4.0, Picture(JPEG))])
    assert [row[0] for row in call.rows] == [1.0, 4.0]
    assert all(row[1].shape == (48, 64, 3) and row[1].dtype == np.uint8 for row in call.rows)
    codes = {at: (error.code, error.field) for at, error in call.failed.items()}
    expected = {0: ("bad_request", None), 2: ("unknown_image", "photo"), 3: ("image_type_mismatch", "photo")}
    assert codes == expected


def test_bounds() -> None:
    (large,) = decoded([(1.0, JPEG)], bytes_max=1000)
    (late,) = decoded([(1.0, JPEG)], deadline=10.0)
    assert [call.failed[1].code for call in (large, late)] == ["too_large", "deadline_exceeded"]
    (many,) = decoded([(1.0, b"")] * (IMAGES_MAX + 1))
    assert isinstance(many, TooLarge)
    several = decoded([(1.0, b"")] * (IMAGES_MAX // 2), at_once=3)
    assert [type(one) for one in several] == [Call, Call, Overloaded]
    assert all(isinstance(error, CallError) for error in several[0].failed.values())
