"""[cache] of function.toml, and `cache` of [features]: for how long what is known may be given again."""

import json
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from sunup.bundle.declare.lines import Lines, closest
from sunup.bundle.declare.quantity import declared, format_seconds
from sunup.bundle.declare.spec import Spec
from sunup.errors import UsageError
from sunup.types import CacheSpec, Field

_NUMBERS: Final = ("int32", "int64", "float32", "float64")


class SimilarTable(msgspec.Struct, forbid_unknown_fields=True):
    """`similar` as it stands in the file: for how long, and the columns to be rounded, each to a multiple of a step."""

    ttl: str
    round: Annotated[dict[str, Annotated[float, msgspec.Meta(gt=0)]], msgspec.Meta(min_length=1)]


class CacheTable(msgspec.Struct):
    """The table as it stands in the file."""

    identical: str | None = None
    similar: SimilarTable | None = None


def cache_spec(table: CacheTable | None, where: Lines) -> CacheSpec | None:
    """The table resolved. Raises UsageError."""
    if table is None:
        return None
    if table.identical is None and table.similar is None:
        raise where.error("cache", "", '[cache] keeps nothing: write identical = "5s", or leave the table out')
    return CacheSpec(
        declared(where, "cache", "identical", table.identical) if table.identical is not None else 0.0,
        declared(where, "cache", "similar", table.similar.ttl) if table.similar is not None else 0.0,
        table.similar.round if table.similar is not None else {},
    )


def check_cache(spec: Spec, columns: Sequence[Field], features: Sequence[Field], hooks: Sequence[str]) -> None:
    """Does [cache] go with the rest? `columns`: the model's; `features`: the read plan's; `hooks`: of a handler.py.

    Raises UsageError, which names the columns that can be rounded.
    """
    cache = spec.cache
    if cache is None:
        return
    if spec.image is not None and spec.features is not None:
        raise UsageError(
            f"The function {spec.name} takes images and looks features up, and [cache] does not go with both: an image "
            "is found before it is decoded, features only afterwards. Leave [cache] out, or [features]."
        )
    taken = {column.name for column in columns}
    numbers = [
        field.name
        for field in (*spec.rows, *features)
        if field.dtype in _NUMBERS and not field.shape and (hooks or field.name in taken)
    ]
    for name in cache.round:
        if name not in numbers:
            raise UsageError(
                f"[cache] similar of {spec.name} rounds `{name}`, which is no single number that its model takes."
                f"{closest(name, numbers)} There are: {', '.join(numbers) or 'none'}."
            )


def table(cache: CacheSpec) -> list[str]:
    """The lines that read back as `cache`."""
    lines = ["[cache]"]
    if cache.identical_s:
        lines.append(f'identical = "{format_seconds(cache.identical_s)}"')
    if cache.similar_s:
        steps = ", ".join(f"{json.dumps(name)} = {step!r}" for name, step in cache.round.items())
        lines.append(f'similar = {{ ttl = "{format_seconds(cache.similar_s)}", round = {{ {steps} }} }}')
    return lines
