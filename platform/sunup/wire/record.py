"""The native protocol: one JSON record or a list of them in, one prediction per record out.

The codec is compiled from the function's fields: a generated msgspec struct per direction, so that a call costs one
typed decode and one encode, and no dictionary is made on the way.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import repeat, starmap
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Raw
from msgspec.json import Decoder
from msgspec.structs import astuple

from sunup.errors import CallError, UnsupportedMedia, UsageError
from sunup.types import Call, Column, Field, Reply, Row
from sunup.wire.codec import image_type, is_json
from sunup.wire.fields import ImageField, Picture, json_type, missing_as_nan
from sunup.wire.refusal import MALFORMED, bound, malformed, refuse

_SPACE: Final = b" \t\r\n"
_RESERVED: Final = ("error", "defaulted", "stale")  # what a prediction says beside the function's own fields


class Refusal(msgspec.Struct, omit_defaults=True):
    """The public part of an error, as callers read it."""

    code: str
    message: str
    field: str | None = None
    hint: str | None = None


class RecordCodec:
    """The native codec of one deployed function. `model` is "name/version" as replies show it. `beside`: what records
    may hold beside the request fields, whatever it is; it is not read.

    Raises UsageError for a field name JSON templates cannot carry, or a response field named like our own members.
    """

    def __init__(
        self,
        *,
        request: Sequence[Field],
        response: Sequence[Field],
        function: str,
        model: str,
        revision: int,
        beside: Sequence[str] = (),
    ) -> None:
        self._request = tuple(request)
        self._beside = tuple(beside)
        self._taken = _first(len(self._request)) if beside else astuple
        self._names = tuple(field.name for field in response)
        self._record = Decoder(_request_struct(self._request, nullable=False, beside=self._beside))
        self._answer = _answer_struct(self._names)
        self._to_json = msgspec.json.Encoder().encode
        head = self._to_json({"function": function, "revision": revision, "model": model})
        self._head = head[:-1] + b',"id":'

    def __repr__(self) -> str:
        return f"RecordCodec({', '.join(field.name for field in self._request)} -> {', '.join(self._names)})"

    def reading(self, content_type: bytes, json_bytes: bytes | None) -> "RecordCodec":  # noqa: ARG002  # JSON only
        """See Codec: JSON by any of its names, or an image."""
        if is_json(content_type):
            return self
        if kind := image_type(content_type):
            return _Pictured(self, kind)
        raise UnsupportedMedia("Send JSON, with content-type: application/json.")

    def decode(self, body: bytes, *, id: str, deadline: float) -> Call:
        """One record or a list of them. A single bad record raises BadRequest; in a list it fails alone.

        Raises TooLarge for more than RECORDS_MAX records.
        """
        if body[:1] == b"{" or body.lstrip(_SPACE)[:1] != b"[":
            return Call(id=id, rows=(self.row(body),), count=1, deadline=deadline, single=True)
        return self._list(body, id, deadline)

    def row(self, raw: bytes | Raw) -> Row:
        """One record, never a list: its values in the order of the request fields. Raises BadRequest."""
        # Nulls are tried second: most bodies have none, and a plain `float` decodes faster than `float | None`.
        try:
            return self._taken(self._record.decode(raw))
        except MALFORMED:
            pass
        try:
            return missing_as_nan(self._taken(self._record_with_nulls.decode(raw)))
        except MALFORMED as error:
            raise refuse(raw, self._request, error, self._beside) from None

    def picture(self, data: bytes, kind: str) -> Row:
        """A record that is an image of content type `kind`. Raises UnsupportedMedia where a record is more or other."""
        if not any(type(field) is ImageField for field in self._request):
            raise UnsupportedMedia("The function takes no image. Send JSON, with content-type: application/json.")
        if len(self._request) > 1:
            names = ", ".join(field.name for field in self._request)
            raise UnsupportedMedia(f"A record has the fields {names}. Send JSON with the image in base64.")
        return (Picture(data, kind),)

    def encode(self, reply: Reply) -> bytes:
        """The reply's predictions in the caller's order; a record that failed carries its error instead."""
        answers = self._answers(reply)
        if reply.failed:
            errors = {position: {"error": _refusal(error)} for position, error in reply.failed.items()}
            answers = _in_order(reply, answers, errors)
        to_json = self._to_json
        return b"".join(
            (self._head, to_json(reply.call.id), b',"predictions":', to_json(answers), b"}"),
        )

    def predictions(self, reply: Reply) -> list[bytes | CallError]:
        """The same one by one: per record a JSON object, or the error it failed with."""
        encoded: list[bytes | CallError] = list(map(self._to_json, self._answers(reply)))
        return _in_order(reply, encoded, reply.failed) if reply.failed else encoded

    def error(self, error: CallError) -> bytes:
        """`{"error": {code, message, field?, hint?}}`."""
        return self._to_json({"error": _refusal(error)})

    # --- Decoding -----------------------------------------------------------------------------------------------------

    def _list(self, body: bytes, id: str, deadline: float) -> Call:
        try:
            records = self._records.decode(body)
        except MALFORMED:
            return self._one_by_one(body, id, deadline)
        bound(len(records))
        return Call(id=id, rows=[self._taken(record) for record in records], count=len(records), deadline=deadline)

    def _one_by_one(self, body: bytes, id: str, deadline: float) -> Call:
        """The list again, record by record, so that a bad one (or one with nulls) does not touch the others."""
        try:
            raws = self._raws.decode(body)
        except MALFORMED as error:
            raise malformed(error) from None
        bound(len(raws))
        rows: list[Row] = []
        failed: dict[int, CallError] = {}
        for index, raw in enumerate(raws):
            try:
                rows.append(self.row(raw))
            except CallError as error:
                failed[index] = error
        return Call(id=id, rows=rows, count=len(raws), deadline=deadline, failed=failed)

    # What only some calls need is made when the first of them comes: a cold start pays for one decoder, not four.

    @cached_property
    def _record_with_nulls(self) -> Decoder[Any]:
        return Decoder(_request_struct(self._request, nullable=True, beside=self._beside))

    @cached_property
    def _records(self) -> Decoder[list[Any]]:
        return Decoder(list[self._record.type])  # type: ignore[name-defined]  # made at run time

    @cached_property
    def _raws(self) -> Decoder[list[Raw]]:
        return Decoder(list[Raw])

    # --- Encoding -----------------------------------------------------------------------------------------------------

    def _answers(self, reply: Reply) -> list[Any]:
        """What is said of each answered row, in their order, ready to be encoded."""
        values = [_values(reply.columns[name]) for name in self._names]
        if reply.defaulted is not None or reply.stale is not None:
            values += [reply.defaulted or repeat(()), reply.stale or repeat(())]
        return list(starmap(self._answer, zip(*values, strict=False)))


class _Pictured(RecordCodec):
    """The same codec for one body that is an image."""

    def __init__(self, codec: RecordCodec, kind: str) -> None:
        vars(self).update(vars(codec))
        self._kind = kind

    def decode(self, body: bytes, *, id: str, deadline: float) -> Call:
        return Call(id=id, rows=(self.picture(body, self._kind),), count=1, deadline=deadline, single=True)


def _first(count: int) -> Callable[[msgspec.Struct], Row]:
    """What gives the first so many members of a struct: those behind them are not read."""
    return lambda record: astuple(record)[:count]


def _request_struct(fields: Sequence[Field], *, nullable: bool, beside: Sequence[str]) -> type[msgspec.Struct]:
    members: list[Any] = [
        (f"f{i}", json_type(field, nullable=nullable), *((None,) if field.optional else ()))
        for i, field in enumerate(fields)
    ]
    members += [(f"f{i}", Raw, None) for i in range(len(fields), len(fields) + len(beside))]
    # gc=False: a record holds only scalars and lists of them, so it can be in no reference cycle.
    return msgspec.defstruct(
        "Record",
        members,
        rename=_renamed([*(field.name for field in fields), *beside]),
        forbid_unknown_fields=True,
        gc=False,
        kw_only=True,  # so that an optional field may stand before one that is not
    )


def _answer_struct(names: Sequence[str]) -> type[msgspec.Struct]:
    taken = [name for name in names if name in _RESERVED]
    if taken:
        raise UsageError(
            f"A response field cannot be called {taken[0]!r}: replies use that name. Rename it in [response]."
        )
    members: list[Any] = [(f"f{i}", Any) for i in range(len(names))]
    members += [("defaulted", tuple[str, ...], ()), ("stale", tuple[str, ...], ())]
    return msgspec.defstruct("Answer", members, rename=_renamed(names), omit_defaults=True, gc=False)


def _renamed(names: Any) -> dict[str, str]:
    """f0, f1, ... -> the fields' own names, which need not be Python identifiers ("petal length (cm)")."""
    renamed = {f"f{i}": name for i, name in enumerate(names)}
    for name in renamed.values():
        if '"' in name or "\\" in name or not name.isprintable():
            raise UsageError(f"The field name {name!r} has a quote, backslash or control character. Rename it.")
    return renamed


def _values(column: Column) -> Any:
    return column.tolist() if type(column) is np.ndarray else column


def _in_order(reply: Reply, answers: Sequence[Any], errors: Mapping[int, Any]) -> list[Any]:
    """Answers and errors at their records' places."""
    ordered: list[Any] = [None] * reply.call.count
    for position, answer in zip(reply.positions, answers, strict=True):
        ordered[position] = answer
    for position, error in errors.items():
        ordered[position] = error
    return ordered


def _refusal(error: CallError) -> Refusal:
    return Refusal(error.code, error.message, error.field, error.hint)
