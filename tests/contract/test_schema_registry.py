"""Records in Confluent's wire format, with schemas of a real registry."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from tests.ports import free_port
from tests.schema_registry_fixture import SchemaRegistry, avro, framed, schema_registry

from sunup.clock import SystemClock
from sunup.errors import BadRequest, CallError, SchemasUnavailable
from sunup.secret import Secret
from sunup.types import Field, Row
from sunup.wire.confluent.registry import Address, Registry
from sunup.wire.confluent.schemas import Schemas
from sunup.wire.record import RecordCodec

__all__ = ["schema_registry"]

FIELDS = (Field("card_id", "int64"), Field("amount", "float64"), Field("city", "string"))
PAYMENT = {
    "type": "record",
    "name": "Payment",
    "namespace": "shop",
    "fields": [
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}},
        {"name": "city", "type": ["null", "string"], "default": None},
        {"name": "card", "type": {"type": "record", "name": "Card", "fields": [{"name": "card_id", "type": "long"}]}},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
    ],
}
ONE = {"id": UUID(int=7), "amount": Decimal("12.50"), "city": "Köln", "card": {"card_id": 3}, "tags": ["a", "b"]}


class Impatient:
    """Gives up at once."""

    def __init__(self) -> None:
        self.told: list[CallError] = []

    async def pause(self, seconds: float, error: CallError) -> bool:  # noqa: ARG002
        self.told.append(error)
        return True

    async def stay(self) -> None:
        pass


def read(url: str, values: Sequence[bytes], fields: Sequence[Field] = FIELDS) -> list[Row | str]:
    """The rows, or the codes of what is wrong."""
    schemas = Schemas(Registry(Address(Secret(url))), fields, SystemClock())
    codec = RecordCodec(request=fields, response=[Field("y", "float64")], function="f", model="m/1", revision=1)
    patience = Impatient()
    assert asyncio.run(schemas.learn(values, patience)), patience.told
    found: list[Row | str] = []
    for value in values:
        try:
            found.append(codec.row(schemas.json(value)))
        except BadRequest as error:
            found.append(f"{error.code}: {error.field}" if error.field else error.code)
    return found


def one(schema: Mapping[str, Any], record: Mapping[str, Any], registry: SchemaRegistry, *fields: Field) -> Row | str:
    number = registry.register(schema)
    return read(registry.url, [framed(number, avro(schema, record))], fields)[0]


def of(kind: Any) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": [{"name": "x", "type": kind}]}


def test_avro_becomes_rows_of_the_function(schema_registry: SchemaRegistry) -> None:
    number = schema_registry.register(PAYMENT)
    values = [framed(number, avro(PAYMENT, ONE)), framed(number, avro(PAYMENT, {**ONE, "city": None}))]
    assert read(schema_registry.url, values) == [(3, 12.5, "Köln"), "wrong_type: city"]


def test_json_of_a_json_schema_is_the_record(schema_registry: SchemaRegistry) -> None:
    number = schema_registry.register(
        {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "title": "Payment"}, "JSON"
    )
    bodies = [b'{"card_id": 3, "amount": 1, "city": "x"}', b'{"card_id": "3", "amount": 1, "city": "x"}', b"{"]
    assert read(schema_registry.url, [framed(number, body) for body in bodies]) == [
        (3, 1.0, "x"),
        "wrong_type: card_id",
        "invalid_json",
    ]


MOMENT = datetime(2026, 3, 1, 12, 30, 0, 250_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "given", "dtype", "taken"),
    [
        ("int", 3, "float32", 3.0),
        ("float", 0.5, "float64", 0.5),
        (["null", "double"], None, "float64", "nan"),
        ("double", float("inf"), "float64", "nan"),
        (["null", "long"], None, "int64", "wrong_type: x"),
        ("string", "3", "int64", "wrong_type: x"),
        ("double", 1.5, "int64", "wrong_type: x"),
        ("boolean", True, "bool", True),
        ("bytes", b"\x00\xff", "bytes", b"\x00\xff"),
        ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, "B", "string", "B"),
        ({"type": "array", "items": "long"}, [1, 2], "int64[]", [1, 2]),
        ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, Decimal("1.10"), "string", "1.10"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 0}, Decimal(7), "int64", 7),
        ({"type": "string", "logicalType": "uuid"}, UUID(int=1), "string", str(UUID(int=1))),
        ({"type": "int", "logicalType": "date"}, date(2026, 3, 1), "string", "2026-03-01"),
        ({"type": "int", "logicalType": "date"}, date(1970, 1, 3), "int32", 2),
        ({"type": "long", "logicalType": "timestamp-millis"}, MOMENT, "int64", int(MOMENT.timestamp() * 1000)),
        ({"type": "long", "logicalType": "timestamp-micros"}, MOMENT, "string", "2026-03-01T12:30:00.250000Z"),
        (["null", {"type": "long", "logicalType": "timestamp-millis"}], MOMENT, "float64", MOMENT.timestamp() * 1000),
    ],
)
def test_types(kind: Any, given: Any, dtype: str, taken: Any, schema_registry: SchemaRegistry) -> None:
    row = one(of(kind), {"x": given}, schema_registry, Field("x", dtype))
    assert str(row[0]) == "nan" if taken == "nan" else row in (taken, (taken,))


def test_a_field_the_schema_does_not_have_is_missing(schema_registry: SchemaRegistry) -> None:
    assert one(of("int"), {"x": 1}, schema_registry, Field("y", "int64")) == "missing_field: y"


def test_a_name_that_two_inner_records_have_is_refused(schema_registry: SchemaRegistry) -> None:
    inner = {"type": "record", "name": "Card", "fields": [{"name": "card_id", "type": "long"}]}
    schema = {
        "type": "record",
        "name": "Two",
        "fields": [{"name": "first", "type": inner}, {"name": "second", "type": "Card"}],
    }
    record = {"first": {"card_id": 1}, "second": {"card_id": 2}}
    assert one(schema, record, schema_registry, Field("card_id", "int64")) == "invalid_schema: card_id"
    schema["fields"].append({"name": "card_id", "type": "long"})  # type: ignore[attr-defined]
    assert one(schema, {**record, "card_id": 3}, schema_registry, Field("card_id", "int64")) == (3,)


def test_references_are_followed(schema_registry: SchemaRegistry) -> None:
    card = {"type": "record", "name": "shop.Card", "fields": [{"name": "card_id", "type": "long"}]}
    holder = {"type": "record", "name": "shop.Holder", "fields": [{"name": "card", "type": "shop.Card"}]}
    sale = {
        "type": "record",
        "name": "shop.Sale",
        "fields": [{"name": "holder", "type": "shop.Holder"}, {"name": "other", "type": ["null", "shop.Card"]}],
    }
    for subject, schema, references in (
        ("card", card, []),
        ("holder", holder, [{"name": "shop.Card", "subject": "card", "version": 1}]),
    ):
        schema_registry.register(schema, references=references, subject=subject)
    both = [{"name": f"shop.{name.title()}", "subject": name, "version": 1} for name in ("holder", "card")]
    number = schema_registry.register(sale, references=both)
    record = {"holder": {"card": {"card_id": 9}}, "other": None}
    value = framed(number, avro(sale, record, card, holder))
    assert read(schema_registry.url, [value], [Field("card", "int64")]) == ["wrong_type: card"]
    assert read(schema_registry.url, [value], [Field("card_id", "int64")]) == ["invalid_schema: card_id"]


def test_what_cannot_be_read_is_the_records_own_fault(schema_registry: SchemaRegistry) -> None:
    number = schema_registry.register(PAYMENT)
    whole = avro(PAYMENT, ONE)
    values = [whole, whole[:-3], whole + b"x", b"", b"\xff" * 40]
    assert read(schema_registry.url, [framed(number, value) for value in values]) == [
        (3, 12.5, "Köln"),
        *["invalid_avro"] * 4,
    ]
    assert read(schema_registry.url, [framed(2_000_000_000, whole)]) == ["unknown_schema"]


def test_a_registry_that_does_not_answer_is_waited_for(schema_registry: SchemaRegistry) -> None:
    patience = Impatient()
    nowhere = f"http://user:correct-horse@127.0.0.1:{free_port()}"
    elsewhere = schema_registry.url.replace("/apis/ccompat/v7", "/nothing") + "/here"
    for url in (nowhere, elsewhere, "ftp://x", f"{schema_registry.url[:-1]}x"):
        schemas = Schemas(Registry(Address(Secret(url))), FIELDS, SystemClock())
        assert not asyncio.run(schemas.learn([framed(1, b"")], patience)), url
    assert all(isinstance(error, SchemasUnavailable) and error.retry for error in patience.told)
    assert len(patience.told) == 4
    assert "horse" not in " ".join(error.message for error in patience.told)


def test_a_schema_is_asked_for_once(schema_registry: SchemaRegistry) -> None:
    registry = Registry(Address(Secret(schema_registry.url)))
    asked: list[int] = []

    class Counting(Registry):
        def schema(self, number: int) -> Any:
            asked.append(number)
            return registry.schema(number)

    number = schema_registry.register(PAYMENT)
    schemas = Schemas(Counting(Address(Secret(""))), FIELDS, SystemClock())
    value = framed(number, avro(PAYMENT, ONE))

    async def batches() -> None:
        for _ in range(3):
            assert await schemas.learn([value, value, None, b"{}", framed(1_999_999_999, b"")], Impatient())
            assert json.loads(schemas.json(value))["card_id"] == 3

    asyncio.run(batches())
    assert sorted(asked) == sorted([number, 1_999_999_999])
