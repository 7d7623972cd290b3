"""Decoding the values of a view together: the hot loop of a call, at a fraction of what one by one costs."""

import struct
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, TypeAlias

from sunup.limits import VALUE_KNOWN_BYTES_MAX, VALUES_KNOWN_MAX
from sunup.lookup.plan import VALUE_TYPES
from sunup.lookup.values import FIXED32, FIXED64, Decoder, decoder

Together: TypeAlias = Callable[[Sequence[Any]], tuple[Any, ...] | None]


class Known(dict[bytes | None, Any]):
    """Values of one value type by their bytes, decoded once: counts, categories and flags come again and again.

    Never more than VALUES_KNOWN_MAX, the first ones that came. Raises KeyError for what `decoder` makes None of.
    """

    def __init__(self, value_type: str) -> None:
        super().__init__()
        self._decode = decoder(value_type)

    def __missing__(self, raw: bytes | None) -> Any:
        value = self._decode(raw)
        if value is None:
            raise KeyError(raw)
        if len(self) < VALUES_KNOWN_MAX and len(raw or b"") <= VALUE_KNOWN_BYTES_MAX:
            self[raw] = value
        return value


def together(value_types: Sequence[str], start: int, known: MutableMapping[str, Known]) -> Together:
    """A function that decodes the values from `start` on of a Found, one of each type, several times as fast as one by
    one. It gives None where any is absent, NULL or unusual, for `decoder` to look at each. `known` is what the views of
    a function share."""
    places: dict[str, list[int]] = {}
    for place, kind in enumerate(value_types):
        places.setdefault(kind, []).append(place)
    parts = [(_pick([start + place for place in at]), _group(kind, len(at), known)) for kind, at in places.items()]
    laid = [place for at in places.values() for place in at]
    arrange = None if laid == sorted(laid) else itemgetter(*[laid.index(place) for place in range(len(laid))])

    if len(parts) == 1 and value_types[0] in ("DOUBLE", "FLOAT"):
        return _alone(*parts[0])

    def decode(found: Sequence[Any]) -> tuple[Any, ...] | None:
        values: list[Any] = []
        try:
            for pick, group in parts:
                values += group(pick(found))
        except (KeyError, TypeError):  # TypeError: an absent one among those that are measured
            return None
        return tuple(values) if arrange is None else arrange(values)

    return decode


def _alone(pick: Callable[[Sequence[Any]], Sequence[Any]], group: Callable[[Any], Any]) -> Together:
    """`together` where one group gives a tuple of all there is."""

    def decode(found: Sequence[Any]) -> tuple[Any, ...] | None:
        try:
            values: tuple[Any, ...] = group(pick(found))
        except (KeyError, TypeError):
            return None
        return values

    return decode


def _pick(places: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """Those of a Found; a slice where they stand side by side, as Feast's columns mostly do."""
    first, last = places[0], places[-1]
    return itemgetter(slice(first, last + 1)) if last - first == len(places) - 1 else itemgetter(*places)


def _group(
    kind: str, count: int, known: MutableMapping[str, Known]
) -> Callable[[Sequence[bytes | None]], Iterable[Any]]:
    """A function that decodes `count` values of one type, or raises KeyError or TypeError."""
    if kind in ("DOUBLE", "FLOAT"):
        return _reals(kind, count)
    if kind.endswith("_LIST"):
        return partial(_lists, decoder(kind))
    if kind not in known:
        known[kind] = Known(kind)
    return partial(map, known[kind].__getitem__)


def _reals(kind: str, count: int) -> Callable[[Sequence[bytes | None]], Iterable[Any]]:
    number = VALUE_TYPES[kind][0]
    size, code, wire = (9, "xd", FIXED64) if kind == "DOUBLE" else (5, "xf", FIXED32)
    unpack = struct.Struct("<" + code * count).unpack
    tags, sizes = bytes([number << 3 | wire]) * count, {size}

    def decode(raws: Sequence[bytes | None]) -> tuple[Any, ...]:
        if set(map(len, raws)) != sizes:  # type: ignore[arg-type]  # an absent one is a TypeError
            raise KeyError
        joined = b"".join(raws)  # type: ignore[arg-type]
        if joined[::size] != tags:
            raise KeyError
        return unpack(joined)

    return decode


def _lists(decode: Decoder, raws: Sequence[bytes | None]) -> list[Any]:
    """Lists are the caller's to change, so none is kept."""
    values = [decode(raw) for raw in raws]
    if None in values:
        raise KeyError
    return values
