"""The columns of the served-feature log: one row per answered record, exactly what the model saw and what it said.

request_id, record, event_timestamp, model_version, revision      whose answer, when, by what
request fields, then feature columns, under their own names       after defaults; of a ranking function each item
<view>__age_s                                                     how old a view's values were; NULL: not stored
defaulted, stale                                                  which columns took their default
response fields, under their own names
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from sunup.errors import UsageError
from sunup.types import Field

TIMESTAMP: Final = "timestamp"  # microseconds since the epoch, UTC; the one dtype here that no request has
LEADING: Final = (
    Field("request_id", "string"),
    Field("record", "int32"),
    Field("event_timestamp", TIMESTAMP),
    Field("model_version", "string"),
    Field("revision", "int32"),
)
NOTES: Final = (Field("defaulted", "string[]", (-1,)), Field("stale", "string[]", (-1,)))


class Heading(msgspec.Struct, frozen=True):
    """What the rows of one revision have in common. `inputs`: request fields and features, in the order of a row;
    `views`: of which there are ages; `outputs`: response fields."""

    function: str
    revision: int
    model_version: str
    inputs: tuple[Field, ...]
    views: tuple[str, ...]
    outputs: tuple[Field, ...]

    @property
    def columns(self) -> tuple[Field, ...]:
        """Every column of the log, in order."""
        ages = tuple(Field(age_column(view), "float64") for view in self.views)
        return (*LEADING, *self.inputs, *ages, *NOTES, *self.outputs)


class Noted(msgspec.Struct, array_like=True):
    """One call as it is spooled: what the pipeline had in hand, nothing copied together. `at`: microseconds since the
    epoch. `rows`: per answered record (or candidate) what the model saw; `outputs`: per response field its values.

    `places`: the records' places in the call, None: 0, 1, ... `origins`: request id and place of each row, where rows
    of several requests ran together or several rows are of one record. `ages`, `defaulted`, `stale`: per row, or None.
    """

    id: str
    at: int
    rows: list[tuple[Any, ...]]
    outputs: list[list[Any]]
    places: list[int] | None
    origins: list[tuple[str, int]] | None
    ages: list[tuple[float | None, ...]] | None
    defaulted: list[tuple[str, ...]] | None
    stale: list[tuple[str, ...]] | None


def age_column(view: str) -> str:
    """The column that says how old the values of a view were, in seconds."""
    return f"{view}__age_s"


def check(heading: Heading) -> None:
    """Raises UsageError for a name that two columns would have."""
    twice = [name for name, count in Counter(field.name for field in heading.columns).items() if count > 1]
    if not twice:
        return
    fixed = {field.name for field in (*LEADING, *NOTES)}
    kind = "which the log has for itself" if twice[0] in fixed else "by which it has another column already"
    raise UsageError(
        f"The served-feature log of {heading.function} cannot have a column {twice[0]!r}, {kind}. Rename that request "
        "field, feature or response field, or leave out [features] log."
    )


def table(heading: Heading, calls: Sequence[Noted]) -> list[list[Any]]:
    """The columns of these calls, each a list of one value per row."""
    start: list[tuple[Any, ...]] = []
    rows: list[Sequence[Any]] = []
    ages: list[Sequence[float | None]] = []
    notes: list[tuple[Sequence[str], Sequence[str]]] = []
    outputs: list[tuple[Any, ...]] = []
    unknown: Sequence[float | None] = (None,) * len(heading.views)
    for call in calls:
        count = len(call.rows)
        whose = call.origins or zip([call.id] * count, call.places or range(count), strict=True)
        start += [(*one, call.at, heading.model_version, heading.revision) for one in whose]
        rows += call.rows
        ages += call.ages or [unknown] * count
        nothing: list[Sequence[str]] = [()] * count
        notes += zip(call.defaulted or nothing, call.stale or nothing, strict=True)
        outputs += zip(*call.outputs, strict=True)
    parts = zip(start, rows, ages, notes, outputs, strict=True)
    return [list(column) for column in zip(*[(*a, *b, *c, *d, *e) for a, b, c, d, e in parts], strict=True)]
