"""How a field looks in JSON: the msgspec type that decodes it strictly, and the name someone meant to type."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from math import nan
from types import GenericAlias
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from sunup.types import Field, numpy_dtype

_FLOAT32_MAX: Final = 3.4028234663852886e38  # the largest finite float32; beyond it a value would turn into infinity

# Integers may stand for floats, never floats for integers; msgspec's strict mode refuses strings and booleans for both.
_SCALARS: Final[Mapping[str, Any]] = {
    "bool": bool,
    "int32": Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)],
    "int64": Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)],
    "float32": Annotated[float, Meta(ge=-_FLOAT32_MAX, le=_FLOAT32_MAX)],
    "float64": float,
    "string": str,
    "bytes": bytes,  # base64 in JSON
}


class ImageField(Field, frozen=True):
    """The request field that is an image: a caller may also say what it holds, see Picture."""


class Picture(Struct, forbid_unknown_fields=True):
    """An image as {"b64": ..., "content_type"?: "image/png"} holds it, or with the content type it was sent with.

    An image whose content type nobody said is just its bytes.
    """

    b64: bytes
    content_type: str = ""


def json_type(field: Field, *, nullable: bool) -> Any:
    """The msgspec type of one record's value of `field`. `nullable`: floats may also be null, which means missing; an
    optional list may always be."""
    numpy_dtype(field.dtype)  # refuses a dtype we do not know, with the list of those we do
    scalar = field.dtype.removesuffix("[]")
    element: Any = _SCALARS[scalar]
    if nullable and scalar in ("float32", "float64"):
        element = element | None
    if type(field) is ImageField:
        return bytes | Picture
    if not field.dtype.endswith("[]"):
        return element
    many: Any = GenericAlias(list, (element,))  # list[element], made at run time
    if field.optional:
        return many | None
    if len(field.shape) == 1 and field.shape[0] >= 0:
        length = field.shape[0]
        return Annotated[many, Meta(min_length=length, max_length=length)]
    return many


def missing_as_nan(values: Iterable[Any]) -> tuple[Any, ...]:
    """A decoded row with NaN for null. Only floats (and lists of them) can be null here, so no type is looked at."""
    return tuple(_filled(value) for value in values)


def _filled(value: Any) -> Any:
    if value is None:
        return nan
    return [_filled(one) for one in value] if type(value) is list else value


def closest(name: str, names: Iterable[str]) -> str | None:
    """A hint for an unknown name: the closest known one, as a question; None when nothing is close."""
    found = get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"did you mean {found[0]}?" if found else None
