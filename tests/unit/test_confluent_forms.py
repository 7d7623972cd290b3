"""Confluent's wire format in a stream: how it is known, and a registry that is away while records wait."""

import asyncio
import json
from typing import Any

import pytest
from tests.schema_registry_fixture import framed
from tests.unit.scripted_registry import KNOWN, UNKNOWN, Scripted, payment, registry, serving
from tests.unit.streaming import REQUEST, STREAM, TRACE, Bench, bench, body, error_of, prediction, quick

from sunup import limits
from sunup.clock import ManualClock
from sunup.errors import BadRequest, CallError
from sunup.stream.broker import Trouble
from sunup.wire.cloudevent import FRAMED, read
from sunup.wire.confluent.schemas import Schemas

__all__ = ["quick"]

# --- How it is known --------------------------------------------------------------------------------------------------

EVENT = [("ce_specversion", b"1.0"), ("ce_id", b"e1"), ("ce_source", b"/s"), ("ce_type", b"t")]


def test_a_zero_byte_means_confluent() -> None:
    for content in ("auto", "confluent"):
        assert read(payment(), [], content) == (payment(), None, None, FRAMED)
        headers = [*EVENT, ("content-type", b"application/avro"), ("traceparent", TRACE)]
        assert read(payment(), headers, content) == (payment(), "e1", TRACE.decode(), FRAMED)
    assert read(payment(), [], "json").kind == ""
    assert read(b"\0abc", [], "auto").kind == ""  # too short to have a schema


@pytest.mark.parametrize(
    ("value", "headers", "content", "code"),
    [
        (body(), [], "confluent", "not_confluent"),
        (b"\0abc", [], "confluent", "not_confluent"),
        (b"", [], "confluent", "empty_value"),
        (payment(), EVENT[:2], "confluent", "missing_attribute"),
        (b"\x02\x06abc", [("__value_schema_id", b"\x01" + bytes(16))], "auto", "unsupported_schema_id"),
        (b"\x02\x06abc", [("__value_schema_id", b"\x01" + bytes(16))], "confluent", "unsupported_schema_id"),
        (payment(), [("content-type", b"text/csv"), *EVENT], "cloudevent", "unsupported_media_type"),
    ],
)
def test_what_is_not_read_says_why(value: bytes, headers: Any, content: str, code: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read(value, headers, content)
    assert refused.value.code == code


def test_json_whose_schema_is_named_in_a_header_is_json() -> None:
    assert read(body(), [("__value_schema_id", b"\x01" + bytes(16))], "auto").kind == ""


# --- In the loop ------------------------------------------------------------------------------------------------------


def test_records_of_every_form_are_scored_together() -> None:
    async def test(one: Bench) -> None:
        with serving(Scripted(lambda path: KNOWN if path == "/base/schemas/ids/7" else UNKNOWN)) as scripted:
            one.schemas = Schemas(registry(scripted.url()), REQUEST, one.clock)
            one.topics.add(payment(1, 0.5))
            one.topics.add(body(2, 0.25))
            one.topics.add(payment(3, 0.75), headers=[*EVENT, ("ce_traceparent", TRACE)])
            one.topics.add(framed(8, b"x"))
            one.topics.add(payment()[:-1])
            one.topics.add(None)
            await one.finish()
        found = [json.loads(output.value or b"") for output in one.topics.of(STREAM.output)]
        assert found == [prediction(0.5), prediction(0.25), prediction(0.75)]
        assert dict(one.topics.of(STREAM.output)[2].headers)["ce_subject"] == b"e1"
        dead = one.topics.of(STREAM.dead_letter)
        assert [(error_of(letter), letter.value) for letter in dead] == [
            ("unknown_schema", framed(8, b"x")),
            ("invalid_avro", payment()[:-1]),
        ]

    bench(test)


def test_without_a_registry_a_dead_letter_says_what_to_declare() -> None:
    async def test(one: Bench) -> None:
        one.topics.add(payment())
        one.topics.add(body())
        await one.finish()
        (letter,) = one.topics.of(STREAM.dead_letter)
        assert error_of(letter) == "no_schema_registry"
        assert b"schema_registry" in dict(letter.headers)["sunup_error_hint"]
        assert len(one.topics.of(STREAM.output)) == 1

    bench(test)


def test_a_registry_that_is_down_is_waited_for() -> None:
    async def test(one: Bench) -> None:
        with serving(Scripted((503, {}), (500, b"<html>"), (401, {"error_code": 401}), (200, b"{"), KNOWN)) as scripted:
            one.schemas = Schemas(registry(scripted.url()), REQUEST, one.clock)
            for card in range(10):
                one.topics.add(payment(card))
            await one.finish()
        assert one.told.states == [Trouble.WAITING, Trouble.WAITING, Trouble.WAITING, Trouble.WAITING, None]
        assert "schema registry at 127.0.0.1" in one.told.messages[0]
        assert (one.told.scored, one.told.dead) == (10, 0)

    bench(test)


def test_one_that_stays_down_makes_dead_letters_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SCHEMA_WAIT_SECONDS_MAX", 0.0)

    async def test(one: Bench) -> None:
        with serving(Scripted((503, {}))) as scripted:
            one.schemas = Schemas(registry(scripted.url()), REQUEST, one.clock)
            one.topics.add(payment())
            one.topics.add(body())
            await one.finish()
        assert error_of(one.topics.of(STREAM.dead_letter)[0]) == "schema_registry"
        assert one.told.scored == 1

    bench(test)


def test_a_loop_that_waits_for_a_registry_can_be_drained() -> None:
    async def test(one: Bench) -> None:
        with serving(Scripted((503, {}))) as scripted:
            one.schemas = Schemas(registry(scripted.url()), REQUEST, one.clock)
            one.topics.add(payment())
            running = asyncio.create_task(one.make().run())
            await one.told.until(lambda: Trouble.WAITING in one.told.states)
            one.loop.drain()
            await running
        assert not one.topics.written
        assert one.topics.waiting == 1

    bench(test)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"schema": 'syntax = "proto3";', "schemaType": "PROTOBUF"}, "unsupported_schema"),
        ({"schema": '"string"'}, "invalid_schema"),
        ({"schema": '{"type": "record"'}, "invalid_schema"),
        ({"schema": '{"type": "record", "name": "R", "fields": [{"name": "x", "type": "Nowhere"}]}'}, "invalid_schema"),
        ({"schema": "[" * 100_000}, "invalid_schema"),
    ],
)
def test_schemas_that_are_not_read(said: dict[str, str], code: str) -> None:
    async def test(one: Bench) -> None:
        with serving(Scripted((200, said))) as scripted:
            one.schemas = Schemas(registry(scripted.url()), REQUEST, one.clock)
            one.topics.add(payment())
            await one.finish()
        assert error_of(one.topics.of(STREAM.dead_letter)[0]) == code

    bench(test)


class Waiting:
    async def pause(self, seconds: float, error: CallError) -> bool:  # noqa: ARG002
        return False

    async def stay(self) -> None:
        pass


def test_a_schema_that_was_unknown_is_asked_for_again_after_a_while() -> None:
    clock = ManualClock()
    with serving(Scripted(UNKNOWN, KNOWN)) as scripted:
        schemas = Schemas(registry(scripted.url()), REQUEST, clock)

        def codes() -> str:
            assert asyncio.run(schemas.learn([payment()], Waiting()))
            try:
                return schemas.json(payment()).decode()
            except BadRequest as error:
                return error.code

        assert [codes(), codes()] == ["unknown_schema", "unknown_schema"]
        clock.advance(limits.SCHEMA_UNKNOWN_SECONDS + 1)
        assert codes() == '{"card_id":1,"amount":1.0}'
        assert len(scripted.heard) == 2
