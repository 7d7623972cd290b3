"""Random values of every type a feature can have, from a seed, with the edges that break encoders."""

import random
from typing import Any

from feast.protos.feast.types.Value_pb2 import Value

from sunup.lookup.plan import VALUE_TYPES

MEMBER = {kind: f"{kind.lower()}_val" for kind in VALUE_TYPES}

_TEXT = ["", "a", "käse", "日本語", "😀" * 50, "x" * 200, "\x00", "it's", '"']
_EDGES: dict[str, list[int | float]] = {
    "INT32": [0, 1, 127, 128, 16383, 16384, -1, 2**31 - 1, -(2**31)],
    "INT64": [0, 1, 127, 128, 16383, 16384, 2**35, -1, 2**63 - 1, -(2**63)],
    "UNIX_TIMESTAMP": [0, 1, -1, 1_700_000_000, 253_402_300_799, -62_135_596_800],
    "DOUBLE": [0.0, -0.0, 1.5, float("inf"), float("-inf"), 5e-324, 1.7976931348623157e308],
    "FLOAT": [0.0, 1.5, -2.25, float("inf")],
}
_BITS = {"INT32": 31, "INT64": 63, "UNIX_TIMESTAMP": 31}


def random_scalar(rng: random.Random, kind: str) -> Any:
    """One Python value of scalar value type `kind`; a third of the time one of its edges."""
    if kind in _EDGES and rng.random() < 0.34:
        return rng.choice(_EDGES[kind])
    if kind in _BITS:
        return rng.randrange(-(1 << _BITS[kind]), 1 << _BITS[kind]) >> rng.randrange(_BITS[kind])
    if kind == "DOUBLE":
        return rng.gauss(0, 1000)
    if kind == "FLOAT":
        return rng.randrange(-1000, 1000) / 8
    if kind == "BOOL":
        return rng.random() < 0.5
    text = rng.choice(_TEXT)
    return text if kind == "STRING" else text.encode() + rng.randbytes(rng.randrange(3))


def value_of(kind: str, plain: Any) -> Value:
    """A Value of scalar value type `kind`."""
    value = Value()
    setattr(value, MEMBER[kind], plain)
    return value


def random_value(rng: random.Random, kind: str) -> Value:
    """A Value of `kind`; sometimes NULL."""
    value = Value()
    if rng.random() < 0.15:
        return value
    if not kind.endswith("_LIST"):
        return value_of(kind, random_scalar(rng, kind))
    member = getattr(value, MEMBER[kind])
    member.SetInParent()
    member.val.extend(random_scalar(rng, kind.removesuffix("_LIST")) for _ in range(rng.choice([0, 1, 3, 20])))
    return value
