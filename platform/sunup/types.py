"""The vocabulary every package shares: fields, tensors, rows, calls and replies.

A *row* is a tuple of request values in the order of the function's request fields. Rows, not columns, are the common
form because a one-row call is the common case: building thirty one-element arrays costs more than running the model.
Messages are msgspec structs: making one costs a tenth of what a frozen dataclass costs, and every call makes three.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from sunup.errors import CallError
from sunup.limits import IMAGE_PIXELS_DEFAULT

Row: TypeAlias = tuple[Any, ...]
Column: TypeAlias = NDArray[Any] | list[Any]

SCALARS: Final[Mapping[str, str]] = {
    # dtype name in function.toml -> Open Inference Protocol datatype
    "bool": "BOOL",
    "int32": "INT32",
    "int64": "INT64",
    "float32": "FP32",
    "float64": "FP64",
    "string": "BYTES",
    "bytes": "BYTES",
}
PIXELS: Final = "uint8"  # the dtype of an image as a model takes it, [height, width, 3]; no dtype callers send


class Field(msgspec.Struct, frozen=True):
    """A named value of a request, a feature or a response. `dtype` is a key of SCALARS, or one with `[]` for a list.

    `shape` is the shape of one record's value: () for a scalar, (3,) for three probabilities, (-1,) for a list.
    `optional`: callers may leave it out or send null; the row then holds None (or NaN), which is no list.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    optional: bool = False

    @property
    def datatype(self) -> str:
        """The Open Inference Protocol name of the element type."""
        return SCALARS[self.dtype.removesuffix("[]")]


class Tensor(msgspec.Struct, frozen=True):
    """A model input or output as the executor sees it.

    `columns`: for an input, the request fields and features that fill it, in order (the second dimension);
    `shape` starts with -1, the batch dimension.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    columns: tuple[str, ...] = ()


class ImageSpec(msgspec.Struct, frozen=True):
    """[image] of function.toml: how the request field `field` becomes an image. `size`: height and width, in pixels;
    `resize`: see wire/image/pixels.py; `pixels_max`: of an image callers send."""

    field: str
    size: tuple[int, int]
    resize: Literal["cover", "contain", "stretch"] = "cover"
    pixels_max: int = IMAGE_PIXELS_DEFAULT


class CacheSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[cache] of function.toml: how many seconds the answer of a row may be given again to an identical one, and to
    one that is the same after `round`, column -> step (0: not at all)."""

    identical_s: float = 0.0
    similar_s: float = 0.0
    round: dict[str, float] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The caches there are, as metrics name them."""
        return tuple(name for name, ttl in (("identical", self.identical_s), ("similar", self.similar_s)) if ttl)


class Aggregation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One feature of a stream feature view: `function` of the event field `column` over the last `window_s` seconds.

    An event whose `column` is null or absent takes no part in it. Of a window without events count and sum are 0; min,
    max and mean are null.
    """

    feature: str
    function: Literal["sum", "count", "min", "max", "mean"]
    column: str
    window_s: int


class Aggregated(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a stream feature view is made of the events of `topic`.

    `timestamp`: the event field with its time (RFC 3339, or seconds since the epoch); `hop_s`: width of a tile, in
    seconds from the epoch on; a window is that of whole tiles up to and with the one that holds the moment it is asked
    for. `late_s`: how much older than the newest event of its partition an event may be. `event_id`: the event field
    by which a second copy is known, "" for none. `aggregations`: one per feature of the view, in no order.
    """

    topic: str
    timestamp: str
    hop_s: int
    late_s: float
    event_id: str
    aggregations: tuple[Aggregation, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The event fields that are aggregated, each once, in the order of `Event.values`."""
        return tuple(dict.fromkeys(each.column for each in self.aggregations))

    @property
    def window_s_max(self) -> int:
        """The longest window."""
        return max(each.window_s for each in self.aggregations)


class Decision(msgspec.Struct, frozen=True):
    """A response field computed from another one: `then` where `field` > `above`, else `otherwise`."""

    field: str
    above: float
    then: str
    otherwise: str


class ResponseField(msgspec.Struct, frozen=True):
    """How one response field is made: a model output (optionally one column of it), or a decision on another field."""

    name: str
    dtype: str
    output: str = ""
    column: int | None = None
    decision: Decision | None = None
    shape: tuple[int, ...] = ()

    @property
    def field(self) -> Field:
        return Field(self.name, self.dtype, self.shape)


class Call(msgspec.Struct, frozen=True):
    """One decoded prediction call.

    `rows` holds the records that could be decoded; `failed` maps the index (in the caller's order, out of `count`) of
    each record that could not be to its error. `deadline` is monotonic seconds. `single`: the caller sent one record
    outside a list. `wanted`: response fields asked for (empty: all). `origins`: the request id and the place of each
    row, where rows are of several requests (a batch of a topic) or several of one record (candidates); empty: `id`.
    """

    id: str
    rows: Sequence[Row]
    count: int
    deadline: float
    failed: Mapping[int, CallError] = msgspec.field(default_factory=dict)
    single: bool = False
    wanted: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = msgspec.field(default_factory=dict)
    origins: Sequence[tuple[str, int]] = ()


class GivenRows(list[Row]):
    """Rows of a call that bring values of aggregated feature views along: `given[i]` are those of row i, as
    lookup.kinds.given says. Only a stream worker that aggregates makes any."""

    __slots__ = ("given",)

    def __init__(self, rows: Iterable[Row], given: Sequence[Row]) -> None:
        super().__init__(rows)
        self.given = given


class Features(msgspec.Struct, frozen=True):
    """What the lookup found. `values[i]` follows the read plan's columns for row i of the call.

    `defaulted[i]` and `stale[i]` name the columns of row i that took their default because the value was missing, or
    present but older than its ttl or `max_age`. Both are None when no row has any (the common case costs nothing).
    `ages` maps a view to the largest age in seconds seen in this call.
    `failed` maps a row to the error it must answer (`on_missing = "reject"`). `row_ages[i]`: per view of the plan the
    age in seconds of what row i has of it, None: not stored; only where a log of them is kept.
    """

    values: Sequence[Row]
    defaulted: Sequence[tuple[str, ...]] | None = None
    stale: Sequence[tuple[str, ...]] | None = None
    ages: Mapping[str, float] = msgspec.field(default_factory=dict)
    failed: Mapping[int, CallError] = msgspec.field(default_factory=dict)
    row_ages: Sequence[tuple[float | None, ...]] | None = None


class Timings(msgspec.Struct):
    """Seconds spent per stage of one call, for Server-Timing and the stage histograms.

    `recalled`: how many of its rows a prediction cache answered, as "identical=3, similar=1"; None: none.
    """

    decode: float = 0.0
    lookup: float = 0.0
    batch: float = 0.0
    execute: float = 0.0
    encode: float = 0.0
    recalled: str | None = None


class Reply(msgspec.Struct, frozen=True):
    """The answer to a call: response columns by field name, aligned with `call.rows` less `features.failed`.

    `failed` maps every record that has no answer (index in the caller's order) to its error; `positions[i]` is the
    caller's index of answered row i.
    """

    call: Call
    columns: Mapping[str, Column]
    positions: Sequence[int]
    failed: Mapping[int, CallError]
    defaulted: Sequence[tuple[str, ...]] | None
    stale: Sequence[tuple[str, ...]] | None
    timings: Timings


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """The numpy dtype that holds one element of `dtype` ("string" and "bytes" are object)."""
    name = dtype.removesuffix("[]")
    if name not in SCALARS and name != PIXELS:
        raise ValueError(f"unknown dtype {dtype!r}; known: {', '.join(SCALARS)}")
    return np.dtype(object) if name in ("string", "bytes") else np.dtype(name)
