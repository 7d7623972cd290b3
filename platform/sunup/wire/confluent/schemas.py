"""Records in Confluent's wire format as JSON, with the schemas their numbers stand for.

Schemas are learned before a batch is read, off the event loop and each of them once: what a number stands for never
changes. A registry that does not answer is waited for, as a feature store is; a number it does not know is the
record's own fault. Of a JSON Schema nothing is checked but that it is one: the function's own types decide.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeAlias

from sunup import limits
from sunup.clock import Clock
from sunup.errors import BadRequest, CallError, SchemasUnavailable
from sunup.recent import Recent
from sunup.types import Field
from sunup.wire.confluent.registry import Registry, Schema
from sunup.wire.framed import HEAD_BYTES, is_framed, number_of

Form: TypeAlias = Callable[[bytes], bytes]  # what is behind the number -> JSON


class Patience(Protocol):
    """How a loop waits: see stream.scoring.scorer."""

    async def pause(self, seconds: float, error: CallError) -> bool:
        """Wait because of `error`, and stay in the group; whether to give up instead."""
        ...

    async def stay(self) -> None:
        """Let others have a turn, and stay in the group."""
        ...


class Schemas:
    """Belongs to one event loop. `fields`: the function's request fields."""

    def __init__(self, registry: Registry, fields: Sequence[Field], clock: Clock) -> None:
        self._registry = registry
        self._fields = tuple(fields)
        self._clock = clock
        self._known: Recent[int, Form | CallError] = Recent(
            entries_max=limits.SCHEMAS_MAX, bytes_max=limits.SCHEMAS_BYTES_MAX
        )
        self._unknown_since: dict[int, float] = {}
        self._batch: dict[int, Form | CallError] = {}  # what the records in hand need, whatever is forgotten meanwhile

    def __repr__(self) -> str:
        return f"Schemas({self._registry!r}, {self._known!r})"

    async def learn(self, values: Iterable[bytes | None], patience: Patience) -> bool:
        """Know what these records need. False: told to give up."""
        self._batch = {}
        wanted = {number_of(value) for value in values if value is not None and is_framed(value)}
        began, pause = self._clock.now(), limits.STREAM_TRY_SECONDS
        for number in sorted(wanted):
            while (form := self._remembered(number)) is None:
                try:
                    form = await self._asked(number, patience)
                except SchemasUnavailable as error:
                    if self._clock.now() - began >= limits.SCHEMA_WAIT_SECONDS_MAX:
                        form = error
                        break
                    if await patience.pause(pause, error):
                        return False
                    pause = min(2 * pause, limits.STREAM_RETRY_SECONDS_MAX)
            self._batch[number] = form
        return True

    def json(self, value: bytes) -> bytes:
        """A record that was learned, as JSON.

        Raises BadRequest with one of the codes unknown_schema, unsupported_schema, invalid_schema and invalid_avro, and
        SchemasUnavailable.
        """
        form = self._batch[number_of(value)]
        if isinstance(form, CallError):
            raise form.with_traceback(None)
        return form(value[HEAD_BYTES:])

    def _remembered(self, number: int) -> Form | CallError | None:
        """None: not known, or too long ago that it was unknown."""
        since = self._unknown_since.get(number)
        if since is not None and self._clock.now() - since > limits.SCHEMA_UNKNOWN_SECONDS:
            del self._unknown_since[number]
            return None
        return self._known.get(number)

    async def _asked(self, number: int, patience: Patience) -> Form | CallError:
        """What the registry says now. Raises SchemasUnavailable."""
        form: Form | CallError
        asking = asyncio.get_running_loop().run_in_executor(None, self._registry.schema, number)
        while not (await asyncio.wait([asking], timeout=limits.STREAM_KEEP_SECONDS))[0]:
            await patience.stay()
        size = 0
        try:
            schema = asking.result()
            size = len(schema.text) + sum(map(len, schema.references))
            form = self._form(number, schema)
        except BadRequest as error:
            form = error
            if len(self._unknown_since) >= limits.SCHEMAS_MAX:
                self._unknown_since.clear()
            self._unknown_since[number] = self._clock.now()
        self._known.put(number, form, size)
        return form

    def _form(self, number: int, schema: Schema) -> Form:
        if schema.kind == "JSON":
            return bytes
        if schema.kind != "AVRO":
            what = f"schema {number} is {schema.kind}; AVRO and JSON are read"
            raise BadRequest(what, code="unsupported_schema")
        from sunup.wire.confluent.avro import AvroForm  # fastavro: tens of ms, for those whose records are Avro

        return AvroForm(number, schema, self._fields)
