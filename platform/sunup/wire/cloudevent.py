"""CloudEvents 1.0 over Kafka: what a record of the input topic holds, and the headers of what is written.

After the Kafka protocol binding and the JSON event format of the CloudEvents specification 1.0.2. In binary mode the
attributes are headers with the prefix `ce_` and the value is the data; in structured mode the value is a JSON object
that holds both. Header values are UTF-8 as they are: percent-encoding is a rule of the HTTP binding only.
"""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
from msgspec import Raw, ValidationError
from msgspec.json import Decoder

from sunup.errors import BadRequest
from sunup.wire.codec import ANY_IMAGE, image_type
from sunup.wire.framed import is_framed
from sunup.wire.refusal import MALFORMED, malformed

Headers: TypeAlias = Sequence[tuple[str, bytes]]

FRAMED: Final = "confluent"  # the kind of data in Confluent's wire format, see wire.confluent
TYPE: Final = "dev.sunup.prediction"  # of the events we write

_EVENT: Final = b"application/cloudevents"  # how a content type begins that means structured mode
_VERSION: Final = re.compile(rb"1\.\d+")
_TRACE: Final = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")  # W3C Trace Context
_REQUIRED: Final = ("id", "source", "type")
_SCHEMA_HEADER: Final = "__value_schema_id"  # where Confluent's newer serializers may put a schema's GUID


class Event(NamedTuple):
    """A record's data, not yet decoded; the event's id, if it is one; a valid W3C traceparent, if any.

    `kind`: "" for JSON, FRAMED for Confluent's wire format, else the content type of an image; "image/*" where nothing
    says which.
    """

    data: bytes
    id: str | None
    trace: str | None
    kind: str = ""


class _Structured(msgspec.Struct):
    """A JSON event. An attribute that is null is unset; data may well be null."""

    specversion: str | None = None
    id: str | None = None
    source: str | None = None
    type: str | None = None
    datacontenttype: str | None = None
    data: Raw = Raw()
    data_base64: str | None = None
    traceparent: Any = None  # of another type it is no reason to refuse the event


def read(value: bytes | None, headers: Headers, content: str) -> Event:  # noqa: PLR0911 - one for each form
    """What a record holds. Header names are compared case-insensitively; of equal ones the last counts.

    "auto": a CloudEvent if the headers say so, else the value is the data, an image where content-type says so; "json":
    the value is the data whatever the headers say; "image": the value is an image, alone or as a CloudEvent in binary
    mode; "cloudevent": anything but an event is refused; "confluent": anything but Confluent's wire format is, which
    "auto" knows by its zero byte, and which may be the data of an event in binary mode.

    Raises BadRequest with one of the codes empty_value, not_cloudevent, not_confluent, unsupported_schema_id,
    unsupported_specversion, missing_attribute, wrong_type, unsupported_media_type, ambiguous_data, invalid_base64 and
    invalid_json.
    """
    if not value:
        raise BadRequest("the record has no value; send the function's fields as a JSON object", code="empty_value")
    if content == "confluent" or (value[0] == 0 and content == "auto" and is_framed(value)):
        return _framed(value, headers)
    if not headers and content != "cloudevent":
        return Event(value, None, None, ANY_IMAGE if content == "image" else "")
    named = {name.lower(): given for name, given in headers}
    trace = _trace(named.get("traceparent")) or _trace(named.get("ce_traceparent"))
    if content == "json":
        return Event(value, None, trace)
    kind = named.get("content-type", b"").lower()
    if content == "image":
        id = _binary(value, named, b"", None).id if "ce_specversion" in named else None
        return Event(value, id, trace, image_type(kind) or ANY_IMAGE)
    if kind.startswith(_EVENT):
        return _structured(value, kind, trace)
    if "ce_specversion" in named:
        return _binary(value, named, kind, trace)
    if content == "auto":
        if _SCHEMA_HEADER in named and value[:1] != b"{":
            raise _unread_header()
        return Event(value, None, trace, image_type(kind))
    raise BadRequest(
        "the record is no CloudEvent; send the headers ce_specversion, ce_id, ce_source and ce_type, "
        "or a JSON event with the header content-type: application/cloudevents+json",
        code="not_cloudevent",
    )


def stamp(wall: float) -> bytes:
    """RFC 3339 in UTC with milliseconds. `wall`: seconds since the epoch."""
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f").encode()[:-3] + b"Z"


class Outgoing:
    """The headers of predictions that go out as events in binary mode. What is the same in all of them is made once.

    `source`: a URI reference; `extensions`: attribute names, lower-case letters and digits, and their values.
    """

    def __init__(self, source: str, extensions: Mapping[str, str]) -> None:
        attributes = {"specversion": "1.0", "type": TYPE, "source": source, **extensions}
        self._constant = [
            ("content-type", b"application/json"),
            *((f"ce_{name}", value.encode()) for name, value in attributes.items()),
        ]

    def __repr__(self) -> str:
        return f"Outgoing({', '.join(name for name, _ in self._constant)})"

    def at(self, time: bytes) -> Headers:
        """What the headers of all events of one instant begin with. `time`: see `stamp`."""
        return [*self._constant, ("ce_time", time)]


def answering(begin: Headers, id: bytes, event: Event | None) -> Headers:
    """The headers of one event: `begin`, see Outgoing.at, its id, and whose answer it is, if that was an event."""
    if event is None or (event.id is None and event.trace is None):
        return [*begin, ("ce_id", id)]
    made = [*begin, ("ce_id", id)]
    if event.id is not None:
        made.append(("ce_subject", event.id.encode()))
    if event.trace is not None:
        made.append(("ce_traceparent", event.trace.encode()))
    return made


# --- Binary mode ------------------------------------------------------------------------------------------------------


def _binary(value: bytes, named: Mapping[str, bytes], kind: bytes, trace: str | None) -> Event:
    _check_version(named["ce_specversion"], "header ce_specversion")
    for attribute in _REQUIRED:
        if not named.get(f"ce_{attribute}"):
            raise _missing(attribute, f"header ce_{attribute}")
    if kind and not _is_json(kind) and not image_type(kind):
        raise _unsupported("header content-type")
    try:
        return Event(value, named["ce_id"].decode(), trace, image_type(kind))
    except UnicodeDecodeError:
        raise BadRequest("header ce_id is not UTF-8", code="wrong_type", field="id") from None


# --- Confluent's wire format ------------------------------------------------------------------------------------------


def _framed(value: bytes, headers: Headers) -> Event:
    named = {name.lower(): given for name, given in headers}
    if not is_framed(value):
        if _SCHEMA_HEADER in named:
            raise _unread_header()
        what = "the value is not in Confluent's wire format: a zero byte, 4 bytes of schema number, the record"
        raise BadRequest(what, code="not_confluent")
    trace = _trace(named.get("traceparent")) or _trace(named.get("ce_traceparent"))
    id = _binary(value, named, b"", None).id if "ce_specversion" in named else None  # its content type is the schema's
    return Event(value, id, trace, FRAMED)


def _unread_header() -> BadRequest:
    return BadRequest(
        f"the schema's id is in the header {_SCHEMA_HEADER}, which is not read",
        code="unsupported_schema_id",
        hint="let the serializer put the number of the schema in front of the value (PrefixSchemaIdSerializer)",
    )


# --- Structured mode --------------------------------------------------------------------------------------------------

_event: Final = Decoder(_Structured).decode


def _structured(value: bytes, kind: bytes, trace: str | None) -> Event:
    _check_format(kind.partition(b";")[0].strip())
    try:
        event = _event(value)
    except ValidationError as error:  # says which attribute and type, never what was in it
        raise BadRequest(f"the value is no CloudEvent in JSON: {error}", code="wrong_type") from None
    except MALFORMED as error:
        raise malformed(error) from None
    if event.specversion is None:
        raise _missing("specversion", "attribute specversion")
    _check_version(event.specversion.encode(), "attribute specversion")
    for attribute in _REQUIRED:
        if not getattr(event, attribute):
            raise _missing(attribute, f"attribute {attribute}")
    content_type = (event.datacontenttype or "").lower().encode()
    image = image_type(content_type)
    if content_type and not _is_json(content_type) and not (image and event.data_base64 is not None):
        raise _unsupported("attribute datacontenttype")
    if trace is None and isinstance(event.traceparent, str):
        trace = _trace(event.traceparent.encode())
    return Event(_data(event), event.id, trace, image)


def _check_format(kind: bytes) -> None:
    if kind.startswith(_EVENT + b"-batch"):
        raise BadRequest(
            "a batch of CloudEvents in one record is not read; send one record per event",
            code="unsupported_media_type",
        )
    if kind not in (_EVENT, _EVENT + b"+json"):
        raise BadRequest(
            "the event's format is not read; send application/cloudevents+json, or binary mode",
            code="unsupported_media_type",
        )


def _data(event: _Structured) -> bytes:
    data = bytes(event.data)
    if event.data_base64 is None:
        if not data:
            raise BadRequest("the event has no data; send the function's fields as data", code="empty_value")
        return data
    if data:
        raise BadRequest("the event has both data and data_base64; send one of them", code="ambiguous_data")
    try:
        data = b64decode(event.data_base64, validate=True)
    except (Base64Error, ValueError):  # ValueError: not ASCII
        raise BadRequest("data_base64 is not base64", code="invalid_base64", field="data_base64") from None
    if not data:
        raise BadRequest("data_base64 is empty; send the function's fields as JSON in it", code="empty_value")
    return data


# --- Both -------------------------------------------------------------------------------------------------------------


def _trace(given: bytes | None) -> str | None:
    return given.decode() if given and _TRACE.fullmatch(given) else None


def _is_json(kind: bytes) -> bool:
    """Whether a lower-case content type means JSON: its subtype is json or ends in +json."""
    subtype = kind.partition(b";")[0].strip().partition(b"/")[2]
    return subtype == b"json" or subtype.endswith(b"+json")


def _check_version(version: bytes, where: str) -> None:
    if not _VERSION.fullmatch(version):
        raise BadRequest(f"{where}: send 1.0", code="unsupported_specversion", field="specversion")


def _missing(attribute: str, where: str) -> BadRequest:
    return BadRequest(f"the CloudEvent's {where} is missing or empty", code="missing_attribute", field=attribute)


def _unsupported(where: str) -> BadRequest:
    return BadRequest(f"{where} is not JSON; send application/json", code="unsupported_media_type")
