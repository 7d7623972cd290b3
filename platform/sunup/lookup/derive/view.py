"""One on-demand feature view: its function, called with records and answering for each of them.

Functions are features.py of the bundle, the source Feast stores. They see what Feast would give them: Python values by
short and by full name, times as datetimes, None for what is missing, stale or NULL and has no declared default. What
they give is checked against the type Feast knows of it. One record's failure is that record's alone.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sunup.errors import BundleDamaged, CallError, FeaturesFailed, FeaturesMissing
from sunup.lookup.derive.made import giver, same, taker
from sunup.lookup.plan import Feature, OnDemand, ReadPlan
from sunup.types import Field, Row

_log = logging.getLogger("sunup.lookup")

NONE: Final[frozenset[str]] = frozenset()
Makers = Mapping[str, Any]


def load_makers(file: Path) -> Makers:
    """What features.py defines. Raises BundleDamaged when it cannot be run.

    Not imported: an import would leave compiled files, which are no part of the bundle.
    """
    names: dict[str, Any] = {"__name__": "features"}
    try:
        exec(compile(file.read_bytes(), str(file), "exec"), names)  # the bundle's own, of its digest
    except Exception as error:  # whatever its author's code raises
        raise BundleDamaged(f"{file} cannot be run: {type(error).__name__}: {error}") from error
    return names


class OnDemandView:
    """One on-demand view of a plan: its function, what that is given and what becomes of what it gives."""

    def __init__(self, view: OnDemand, plan: ReadPlan, request: Sequence[Field], makers: Makers) -> None:
        stored = [feature for each in plan.views for feature in each.features]
        places = {feature.column: at + len(request) for at, feature in enumerate(stored)}
        defaults = {feature.column: feature.default is not None for feature in stored}
        asked = {field.name: at for at, field in enumerate(request)}
        self.name = view.name
        self.columns = [feature.column for feature in view.features]
        self.uses = frozenset(each.column for each in view.inputs if not each.asked)
        self.defaulted = frozenset(column for column in self.uses if defaults[column])
        self._singleton = view.singleton
        self._rejects = plan.on_missing == "reject"
        self._function = makers[view.maker]()
        self._names = [(name, place) for place, each in enumerate(view.inputs) for name in each.names]
        self._inputs = [
            (
                asked[each.column] if each.asked else places[each.column],
                giver(each.value_type),
                "" if each.asked or defaults[each.column] else each.column,
            )
            for each in view.inputs
        ]
        self._outputs = [(f, f.name, f"{view.name}__{f.name}", taker(f.value_type)) for f in view.features]
        self._lists = frozenset(feature.name for feature in view.features if feature.dtype.endswith("[]"))

    def __repr__(self) -> str:
        return f"<OnDemandView {self.name}>"

    def answers(
        self, rows: Sequence[Row], absent: Sequence[tuple[Row, frozenset[str]]]
    ) -> Iterator[CallError | tuple[list[Any], tuple[str, ...]]]:
        """Per row its values and the columns that took a default, or its error. `absent`: the stored values of each
        row, and which of them are none."""
        whole = [row + values for row, (values, _) in zip(rows, absent, strict=True)]
        bare = [gone for _, gone in absent] if any(gone for _, gone in absent) else None
        try:
            columns = [_column(whole, bare, *each) for each in self._inputs]
        except (OverflowError, ValueError, OSError) as error:  # a time no datetime can hold
            if len(rows) == 1:
                yield _failed(self.name, error)
            else:
                for row, one in zip(rows, absent, strict=True):
                    yield from self.answers([row], [one])
            return
        for made in self._made(columns, len(rows)):
            yield self._answer(made)

    def _made(self, columns: Sequence[list[Any]], count: int) -> Iterator[dict[str, Any] | Exception]:
        """What the function gives of each row, by name, or what it raised."""
        if count > 1 and not self._singleton:
            try:
                together = self._batch(columns, count)
            except Exception as error:  # whatever its author's code raises; which row it was is found out below
                _log.debug("on-demand view %s failed for %d rows: %r", self.name, count, error)
            else:
                yield from together
                return
        for row in zip(*columns, strict=True) if columns else [()] * count:
            made: dict[str, Any] | Exception
            try:
                made = self._single(row) if self._singleton else self._batch([[value] for value in row], 1)[0]
            except Exception as error:  # the same; it is this row's answer
                made = error
            yield made

    def _single(self, row: Row) -> dict[str, Any]:
        made = _checked(self._function({name: row[place] for name, place in self._names}))
        if any(isinstance(value, list) for value in made.values()):
            return {name: self._one(name, value) for name, value in made.items()}
        return made

    def _one(self, name: str, value: Any) -> Any:
        """A list stands for the column of one record, as in Feast; a list feature may also be given as it is."""
        column = isinstance(value, list) and len(value) == 1 and (name not in self._lists or isinstance(value[0], list))
        return value[0] if column else value

    def _batch(self, columns: Sequence[list[Any]], count: int) -> list[dict[str, Any]]:
        made = _checked(
            self._function({name: list(columns[place]) for name, place in self._names})
        )  # it may change them
        wanted = {name: made[name] for _, *called, _ in self._outputs for name in called if name in made}
        for name, values in wanted.items():
            size = len(values) if hasattr(values, "__len__") and not isinstance(values, str | bytes) else -1
            if size != count:
                raise ValueError(f"it gave {name!r} as {type(values).__name__}, not as a list of {count}")
        return [{name: values[row] for name, values in wanted.items()} for row in range(count)]

    def _answer(self, made: dict[str, Any] | Exception) -> CallError | tuple[list[Any], tuple[str, ...]]:
        if isinstance(made, Exception):
            return _failed(self.name, made)
        values: list[Any] = []
        gone: list[str] = []
        for feature, short, full, take in self._outputs:
            name = full if full in made else short
            if name not in made:
                return _failed(self.name, LookupError(f"it gave no {short!r}"))
            try:
                value = take(made[name])
            except Exception as error:  # of a conversion of whatever it gave
                return _failed(self.name, _explained(feature, error))
            if value is None:
                gone.append(feature.column)
                value = feature.stand_in
                if value is None or self._rejects:
                    return FeaturesMissing(f"no usable value of {feature.column} for this record")
            values.append(value)
        return values, tuple(gone)


def _column(
    whole: Sequence[Row], bare: Sequence[frozenset[str]] | None, at: int, give: Callable[[Any], Any], column: str
) -> list[Any]:
    """One input of all rows. `bare`: per row the stored columns without a value; `column`: this, if it can be one."""
    if bare is None or not column:
        return [row[at] for row in whole] if give is same else [give(row[at]) for row in whole]
    return [None if column in gone else give(row[at]) for row, gone in zip(whole, bare, strict=True)]


def _failed(view: str, cause: Exception) -> FeaturesFailed:
    error = FeaturesFailed(
        f"the on-demand feature view {view} failed for this record; the reason is in the function's log under the "
        "call's id",
        view=view,
    )
    error.__cause__ = cause
    return error


def _explained(feature: Feature, error: Exception) -> Exception:
    return TypeError(f"{feature.name} is {feature.value_type}: {error}")


def _checked(made: Any) -> dict[str, Any]:
    if not isinstance(made, dict):
        raise TypeError(f"it returned {type(made).__name__}, not a dict of features")
    return made
