"""Why a body was refused, worked out from its bytes after the fact, so that the common path carries none of it."""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Raw, ValidationError
from msgspec.json import Decoder

from sunup.errors import BadRequest, TooLarge
from sunup.limits import RECORDS_MAX
from sunup.types import Field
from sunup.wire.fields import closest, json_type

MALFORMED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # all that decoding hostile bytes raises

_NAMES_SHOWN: Final = 12  # field names in a hint; more would bury the message


def refuse(raw: bytes | Raw, fields: Sequence[Field], error: Exception, beside: Sequence[str] = ()) -> BadRequest:
    """The reason `raw` is no record of `fields`: invalid JSON first, then unknown, missing and ill-typed fields.

    `error` is what decoding raised; it is the reason where nothing better is found (a field sent twice, say). `beside`:
    what a record may hold besides.
    """
    if not isinstance(error, ValidationError):
        return malformed(error)
    try:
        members = Decoder(dict[str, Raw]).decode(raw)
        known = {name: value for name, value in members.items() if name not in beside}
        return _first_wrong(known, fields) or malformed(error)
    except ValidationError:
        message = "send a JSON object with the function's fields, or a list of such objects"
        return BadRequest(message, code="wrong_type")
    except MALFORMED as found:
        return malformed(found)


def malformed(error: Exception) -> BadRequest:
    """The refusal of bytes that are no JSON. The decoder's message names the byte, never its content."""
    if isinstance(error, RecursionError):
        return BadRequest("the body is nested too deeply", code="invalid_json")
    if isinstance(error, UnicodeDecodeError):
        return BadRequest("the body is not UTF-8", code="invalid_json")
    return BadRequest(f"the body is not valid JSON: {error}", code="invalid_json")


def bound(count: int) -> None:
    """Raises TooLarge when a call has more than RECORDS_MAX records."""
    if count > RECORDS_MAX:
        raise TooLarge(f"{count} records in one call; at most {RECORDS_MAX} are taken. Send several calls.")


def _first_wrong(members: dict[str, Raw], fields: Sequence[Field]) -> BadRequest | None:
    names = [field.name for field in fields]
    for name in members:
        if name not in names:
            hint = closest(name, names) or _listed(names)
            return BadRequest(f"the function has no field {name!r}", code="unknown_field", field=name, hint=hint)
    for field in fields:
        if field.name not in members:
            if field.optional:
                continue
            hint = f"send {field.name} as {field.dtype}"
            return BadRequest(f"field {field.name!r} is missing", code="missing_field", field=field.name, hint=hint)
        try:
            Decoder(json_type(field, nullable=True)).decode(members[field.name])
        except ValidationError as wrong:
            reason = str(wrong).partition(" - at ")[0]
            return BadRequest(f"field {field.name!r}: {reason}", code="wrong_type", field=field.name)
    return None


def _listed(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _NAMES_SHOWN else ""
    return f"the fields are {', '.join(names[:_NAMES_SHOWN])}{more}"
