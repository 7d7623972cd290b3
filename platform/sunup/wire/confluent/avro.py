"""Avro's binary encoding as the function's own JSON: what a record's schema calls its fields is what the function does.

A schema may have more fields than the function, and nest them: a request field is the field of that name of the record
itself, else the only one of that name in the records within. Of logical types a decimal is a number, a uuid, date, time
or timestamp its text (ISO 8601), and where the function wants a number a date, time or timestamp is what Avro stores:
days, milliseconds or microseconds. A bytes or fixed value is base64, as in JSON; NaN and infinities, which JSON has
not, are missing.
"""

import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from io import BytesIO
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
from fastavro import parse_schema, schemaless_reader
from fastavro.schema import SchemaParseException, UnknownType

from sunup.errors import BadRequest
from sunup.types import Field
from sunup.wire.confluent.registry import Schema

Path: TypeAlias = tuple[str, ...]

# What reading hostile bytes or schemas raises.
_UNREADABLE: Final = (
    *(EOFError, LookupError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError, struct.error),
    *(SchemaParseException, UnknownType),
)
_TIMES: Final = ("date", "time-", "timestamp-", "local-timestamp-")


class _Leaf(NamedTuple):
    path: Path
    field: dict[str, Any]  # as fastavro keeps it


class AvroForm:
    """Reads records of one schema. `number`: the schema's, for messages. Raises BadRequest (invalid_schema)."""

    def __init__(self, number: int, schema: Schema, fields: Sequence[Field]) -> None:
        named: dict[str, Any] = {}
        try:
            for text in schema.references:
                parse_schema(json.loads(text), named_schemas=named)
            self._schema: Any = parse_schema(json.loads(schema.text), named_schemas=named)
        except _UNREADABLE as error:
            raise BadRequest(f"schema {number} is not read: {type(error).__name__}", code="invalid_schema") from error
        if not isinstance(self._schema, dict) or self._schema.get("type") != "record":
            raise BadRequest(f"schema {number} is no record", code="invalid_schema")
        self._number = number
        self._to_json = msgspec.json.Encoder(decimal_format="number").encode
        leaves = list(_leaves(self._schema, named, (), ()))
        self._picks = [pick for field in fields if (pick := _pick(field, leaves, number)) is not None]

    def __repr__(self) -> str:
        return f"AvroForm({self._number}, {', '.join(name for name, _ in self._picks)})"

    def __call__(self, payload: bytes) -> bytes:
        """The record as a JSON object of the function's fields. Raises BadRequest (invalid_avro)."""
        source = BytesIO(payload)
        try:
            record: Any = schemaless_reader(source, self._schema, None)
        except _UNREADABLE as error:
            what = f"the value is no record of schema {self._number}"
            raise BadRequest(what, code="invalid_avro", hint=type(error).__name__) from error
        if source.tell() != len(payload):
            raise BadRequest(f"bytes are left behind the record of schema {self._number}", code="invalid_avro")
        return self._to_json({name: value(record) for name, value in self._picks})


def _leaves(record: dict[str, Any], named: Mapping[str, Any], path: Path, above: Path) -> Iterator[_Leaf]:
    """Every field of a record and of the records in it, the record's own first; none of a type within itself."""
    inner: list[tuple[dict[str, Any], Path]] = []
    for field in record["fields"]:
        here = (*path, field["name"])
        yield _Leaf(here, field)
        kinds = field["type"] if isinstance(field["type"], list) else [field["type"]]
        found = [kind for one in kinds if (kind := _record(one, named)) is not None]
        inner += [(kind, here) for kind in found if len(found) == 1 and kind["name"] not in above]
    for kind, here in inner:
        yield from _leaves(kind, named, here, (*above, record["name"]))


def _record(kind: Any, named: Mapping[str, Any]) -> dict[str, Any] | None:
    if isinstance(kind, str):
        kind = named.get(kind)
    return kind if isinstance(kind, dict) and kind.get("type") == "record" else None


def _pick(field: Field, leaves: Sequence[_Leaf], number: int) -> tuple[str, Callable[[Any], Any]] | None:
    """A request field's name, and how its value is taken from a record; None where the schema does not have it."""
    found = [leaf for leaf in leaves if leaf.path[-1] == field.name]
    found = [leaf for leaf in found if len(leaf.path) == 1] or found
    if not found:
        return None
    if len(found) > 1:
        places = ", ".join(".".join(leaf.path) for leaf in found)
        what = f"schema {number} has {field.name!r} more than once: {places}"
        raise BadRequest(what, code="invalid_schema", field=field.name)
    leaf = found[0]
    if field.dtype.removesuffix("[]") not in ("string", "bytes"):
        leaf.field["type"] = _without_times(leaf.field["type"])
    return field.name, _taker(leaf.path, text=field.dtype == "string")


def _taker(path: Path, *, text: bool) -> Callable[[Any], Any]:
    def take(record: Any) -> Any:
        for name in path:
            if record is None:  # a record within that is null
                return None
            record = record[name]
        return str(record) if text and type(record) is Decimal else record

    return take


def _without_times(kind: Any) -> Any:
    """A type, or union of them, with dates and times as the numbers they are stored as."""
    if isinstance(kind, list):
        return [_without_times(one) for one in kind]
    if isinstance(kind, dict) and str(kind.get("logicalType", "")).startswith(_TIMES):
        return {name: value for name, value in kind.items() if name != "logicalType"}
    return kind
