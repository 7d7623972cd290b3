# Longer than 300 lines: each way an event can be wrong is a case here.
"""CloudEvents over Kafka: both modes in, binary mode out, and what is refused with which reason."""

import base64
import json
import random
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest

from sunup.errors import BadRequest
from sunup.wire.cloudevent import Event, Headers, Outgoing, answering, read, stamp

DATA = b'{"amount": 12.5, "note": "gr\xc3\xbc\xc3\x9fe"}'
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET = "4000-1234"  # what a record holds must not be in a refusal

BINARY: dict[str, bytes] = {
    "ce_specversion": b"1.0",
    "ce_type": b"com.example.payment",
    "ce_source": b"/pos/7",
    "ce_id": b"a-1",
    "ce_time": b"2026-04-05T17:31:00Z",
    "content-type": b"application/json",
}
STRUCTURED: dict[str, Any] = {
    "specversion": "1.0",
    "type": "com.example.payment",
    "source": "/pos/7",
    "id": "a-1",
    "time": "2026-04-05T17:31:00Z",
    "subject": None,
    "datacontenttype": "application/json",
    "data": {"amount": 12.5},
}
JSON_EVENT = [("content-type", b"application/cloudevents+json; charset=UTF-8")]


def binary(
    changes: Mapping[str, bytes | None] = MappingProxyType({}), *, value: bytes | None = DATA, content: str = "auto"
) -> Event:
    """Read an event in binary mode, with other headers; None takes one out."""
    return read(value, [(name, given) for name, given in {**BINARY, **changes}.items() if given is not None], content)


def structured(
    changes: Mapping[str, Any] = MappingProxyType({}), *, without: str = "", headers: Headers = JSON_EVENT
) -> Event:
    """Read an event in structured mode, with other members."""
    event = {name: given for name, given in {**STRUCTURED, **changes}.items() if name != without}
    return read(json.dumps(event).encode(), headers, "auto")


def refused(code: str, *, field: str | None = None) -> Any:
    """The block must raise BadRequest with this code and field, and tell nothing of the record."""
    return pytest.raises(
        BadRequest, check=lambda error: (error.code, error.field) == (code, field) and SECRET not in error.message
    )


def test_a_value_without_headers_is_the_data() -> None:
    assert read(DATA, [], "auto") == Event(DATA, None, None)
    assert read(DATA, [("content-type", b"application/json"), ("origin", b"\xff")], "auto") == Event(DATA, None, None)


@pytest.mark.parametrize("content", ["auto", "json", "cloudevent"])
@pytest.mark.parametrize("value", [None, b""])
def test_no_value_is_refused(value: bytes | None, content: str) -> None:
    with refused("empty_value"):
        read(value, [], content)
    with refused("empty_value"):
        binary(value=value, content=content)
    with refused("empty_value"):
        read(value, JSON_EVENT, content)


# --- Binary mode ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["auto", "cloudevent"])
def test_binary_mode(content: str) -> None:
    assert binary(content=content) == Event(DATA, "a-1", None)
    assert binary({"content-type": None}, content=content) == Event(DATA, "a-1", None)
    assert binary({"ce_specversion": b"1.1"}, content=content) == Event(DATA, "a-1", None)


def test_header_names_have_no_case_and_the_last_of_equal_ones_counts() -> None:
    headers = [("CE_ID", b"old"), *((name.upper(), given) for name, given in BINARY.items())]
    assert read(DATA, headers, "auto").id == "a-1"


def test_attributes_are_utf_8_and_not_percent_encoded() -> None:
    assert binary({"ce_id": "Straße 1".encode()}).id == "Straße 1"
    assert binary({"ce_id": b"Stra%C3%9Fe"}).id == "Stra%C3%9Fe"


@pytest.mark.parametrize("media", ["application/JSON; charset=utf-8", "application/vnd.pos+json", "text/json"])
def test_what_is_json(media: str) -> None:
    assert binary({"content-type": media.encode()}).data == DATA
    assert structured({"datacontenttype": media}).data == b'{"amount": 12.5}'


@pytest.mark.parametrize(
    "media", ["application/avro", "text/plain", "json", "application/json-seq", "text/csv; a=json", "/"]
)
def test_what_is_not_json(media: str) -> None:
    with refused("unsupported_media_type"):
        binary({"content-type": media.encode()})
    with refused("unsupported_media_type"):
        structured({"datacontenttype": media})


@pytest.mark.parametrize("attribute", ["id", "source", "type"])
@pytest.mark.parametrize("given", [None, b""])
def test_a_missing_attribute_is_named(attribute: str, given: bytes | None) -> None:
    with refused("missing_attribute", field=attribute) as caught:
        binary({f"ce_{attribute}": given})
    assert f"ce_{attribute}" in str(caught.value)


@pytest.mark.parametrize("version", ["", "0.3", "2.0", "1", "1.", "1.x", "11.0", "v1.0", SECRET])
def test_other_versions_are_refused(version: str) -> None:
    with refused("unsupported_specversion", field="specversion"):
        binary({"ce_specversion": version.encode()})
    with refused("unsupported_specversion", field="specversion"):
        structured({"specversion": version})


def test_an_id_that_is_no_text_is_refused() -> None:
    with refused("wrong_type", field="id"):
        binary({"ce_id": b"\xff" + SECRET.encode()})


def test_headers_without_a_version_are_no_event() -> None:
    assert binary({"ce_specversion": None}) == Event(DATA, None, None)
    with refused("not_cloudevent") as caught:
        binary({"ce_specversion": None}, content="cloudevent")
    assert "ce_specversion" in str(caught.value)


@pytest.mark.parametrize("headers", [[], [("content-type", b"application/json")], [("traceparent", TRACE.encode())]])
def test_what_must_be_an_event_and_is_none_is_refused(headers: list[tuple[str, bytes]]) -> None:
    with refused("not_cloudevent"):
        read(DATA, headers, "cloudevent")


def test_json_takes_the_value_as_it_is() -> None:
    value = json.dumps(STRUCTURED).encode()
    assert read(value, JSON_EVENT, "json") == Event(value, None, None)
    assert binary({"ce_specversion": b"9", "traceparent": TRACE.encode()}, content="json") == Event(DATA, None, TRACE)


# --- Structured mode --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "media", ["application/cloudevents+json", "Application/CloudEvents+JSON;charset=utf-8", "application/cloudevents"]
)
@pytest.mark.parametrize("content", ["auto", "cloudevent"])
def test_structured_mode(media: str, content: str) -> None:
    event = read(json.dumps(STRUCTURED).encode(), [("Content-Type", media.encode())], content)
    assert event == Event(b'{"amount": 12.5}', "a-1", None)


def test_structured_mode_goes_before_the_headers_of_binary_mode() -> None:
    headers = [*((name, given) for name, given in BINARY.items() if name != "content-type"), *JSON_EVENT]
    assert structured({"id": "inner"}, headers=headers).id == "inner"


@pytest.mark.parametrize("data", [None, 5, "text", [1, 2], {}, {"a": {"b": None}}])
def test_data_may_be_any_json(data: object) -> None:
    assert json.loads(structured({"data": data}).data) == data


def test_data_in_base64() -> None:
    event = structured({"data_base64": base64.b64encode(DATA).decode()}, without="data")
    assert event == Event(DATA, "a-1", None)


def test_no_data_is_refused() -> None:
    changes: list[dict[str, Any]] = [{}, {"data_base64": None}, {"data_base64": ""}]
    for given in changes:
        with refused("empty_value"):
            structured(given, without="data")


@pytest.mark.parametrize("given", [SECRET, "a", "ü", "e30 ", "e30\n"])
def test_what_is_no_base64_is_refused(given: str) -> None:
    with refused("invalid_base64", field="data_base64"):
        structured({"data_base64": given}, without="data")


def test_data_twice_is_refused() -> None:
    with refused("ambiguous_data"):
        structured({"data_base64": "e30="})


@pytest.mark.parametrize("attribute", ["specversion", "id", "source", "type"])
def test_a_missing_attribute_of_the_json_is_named(attribute: str) -> None:
    with refused("missing_attribute", field=attribute):
        structured(without=attribute)
    with refused("missing_attribute", field=attribute):
        structured({attribute: None})


def test_an_empty_attribute_is_missing() -> None:
    for attribute in ("id", "source", "type"):
        with refused("missing_attribute", field=attribute):
            structured({attribute: ""})


@pytest.mark.parametrize("attribute", ["specversion", "id", "source", "type", "datacontenttype", "data_base64"])
def test_attributes_are_text(attribute: str) -> None:
    with refused("wrong_type") as caught:
        structured({attribute: [SECRET]})
    assert attribute in str(caught.value)


@pytest.mark.parametrize("value", [b"5", b"[]", b'"x"', b"null", b'[{"specversion": "1.0"}]'])
def test_json_that_is_no_object_is_no_event(value: bytes) -> None:
    with refused("wrong_type"):
        read(value, JSON_EVENT, "auto")


@pytest.mark.parametrize(
    "value", [b" ", b"{", b"{]", b'{"id": "\xff"}', b'{"id": "\\ud800"}', b'{"data": ' + b"[" * 100_000, b"\x00\x01"]
)
def test_what_is_no_json_is_no_event(value: bytes) -> None:
    with refused("invalid_json"):
        read(value, JSON_EVENT, "auto")


@pytest.mark.parametrize("kind", ["-batch+json", "-batch", "+avro", "+protobuf; a=b", "s", "+jsonx"])
def test_batches_and_other_formats_are_refused(kind: str) -> None:
    with refused("unsupported_media_type") as caught:
        structured(headers=[("content-type", f"application/cloudevents{kind}".encode())])
    assert ("one record per event" in str(caught.value)) == ("batch" in kind)


def test_every_cut_and_every_flipped_byte_is_refused_or_read_but_never_breaks() -> None:
    chance = random.Random(5)
    whole = json.dumps(STRUCTURED | {"traceparent": TRACE}).encode()
    headers = [*BINARY.items(), ("traceparent", TRACE.encode())]
    for _ in range(3000):
        value = bytearray(whole[: chance.randrange(1, len(whole) + 1)] if chance.random() < 0.3 else whole)
        value[chance.randrange(len(value))] = chance.randrange(256)
        given = [(name, chance.randbytes(3) if chance.random() < 0.2 else held) for name, held in headers]
        for named in (JSON_EVENT, given):
            try:
                read(bytes(value), named, chance.choice(["auto", "json", "cloudevent"]))
            except BadRequest as error:
                assert error.code != "bad_request"  # noqa: PT017


# --- Trace ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["traceparent", "ce_traceparent", "TraceParent"])
def test_the_trace_is_kept(name: str) -> None:
    assert read(DATA, [(name, TRACE.encode())], "auto") == Event(DATA, None, TRACE)
    assert binary({name: TRACE.encode()}).trace == TRACE
    assert structured(headers=[*JSON_EVENT, (name, TRACE.encode())]).trace == TRACE


def test_the_trace_of_a_structured_event_is_an_attribute() -> None:
    assert structured({"traceparent": TRACE}).trace == TRACE
    other = TRACE.replace("0af7", "1af7")
    assert structured({"traceparent": TRACE}, headers=[*JSON_EVENT, ("traceparent", other.encode())]).trace == other


@pytest.mark.parametrize(
    "trace",
    [
        "",
        "x",
        TRACE.upper(),
        TRACE[:-1],
        TRACE + "-0",
        TRACE + "\n",
        "01" + TRACE[2:],
        TRACE.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32),
        TRACE.replace("b7ad6b7169203331", "0" * 16),
    ],
)
def test_an_invalid_trace_is_dropped(trace: str) -> None:
    assert binary({"traceparent": trace.encode()}).trace is None
    assert binary({"traceparent": trace.encode(), "ce_traceparent": TRACE.encode()}).trace == TRACE
    assert structured({"traceparent": trace}).trace is None


@pytest.mark.parametrize("trace", [None, 5, [TRACE], {"a": 1}])
def test_a_trace_of_another_type_is_dropped(trace: object) -> None:
    assert structured({"traceparent": trace}) == Event(b'{"amount": 12.5}', "a-1", None)


# --- Out --------------------------------------------------------------------------------------------------------------


def test_what_goes_out_is_an_event_in_binary_mode() -> None:
    outgoing = Outgoing("/functions/fraud", {"revision": "7", "model": "fraud/3"})
    headers = answering(outgoing.at(stamp(1_700_000_000.0626)), b"tx-0-12", Event(b"", "ß-1", TRACE))
    assert dict(headers) == {
        "content-type": b"application/json",
        "ce_specversion": b"1.0",
        "ce_type": b"dev.sunup.prediction",
        "ce_source": b"/functions/fraud",
        "ce_id": b"tx-0-12",
        "ce_time": b"2023-11-14T22:13:20.062Z",
        "ce_subject": "ß-1".encode(),
        "ce_traceparent": TRACE.encode(),
        "ce_revision": b"7",
        "ce_model": b"fraud/3",
    }
    assert len(headers) == len(dict(headers))
    assert read(b"{}", headers, "cloudevent") == Event(b"{}", "tx-0-12", TRACE)
    assert "ce_model" in repr(outgoing)


def test_what_is_not_known_is_not_said() -> None:
    begin = Outgoing("/functions/f", {}).at(b"t")
    first = answering(begin, b"1", None)
    assert {"ce_subject", "ce_traceparent"}.isdisjoint(dict(first))
    assert answering(begin, b"2", Event(b"", None, None)) != first  # each has its own list
    assert dict(first)["ce_id"] == b"1"
    assert "ce_subject" not in dict(answering(begin, b"3", Event(b"", None, TRACE)))
    assert "ce_traceparent" not in dict(answering(begin, b"3", Event(b"", "id", None)))


@pytest.mark.parametrize(
    ("wall", "text"),
    [
        (0.0, b"1970-01-01T00:00:00.000Z"),
        (1e9 + 0.5, b"2001-09-09T01:46:40.500Z"),
        (0.9999, b"1970-01-01T00:00:00.999Z"),
    ],
)
def test_times_are_utc_with_milliseconds(wall: float, text: bytes) -> None:
    assert stamp(wall) == text
