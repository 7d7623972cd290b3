"""A table of records in any of the shapes it is sent in: by record, by row, by column. All of them become rows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sunup.errors import BadRequest
from sunup.types import Field, Row
from sunup.wire.fields import closest
from sunup.wire.refusal import bound
from sunup.wire.tables.cells import cells

Read = Callable[[Sequence[Any], Field], list[Any]]


class Columns:
    """The request fields of one function, read from tables. Every method raises BadRequest, or TooLarge for more than
    RECORDS_MAX records; `extra`: columns the function does not have are let pass instead.
    """

    def __init__(self, request: Sequence[Field], *, extra: bool) -> None:
        self._fields = {field.name: field for field in request}
        self._needed = [field.name for field in request if not field.optional]
        self._extra = extra

    def __repr__(self) -> str:
        return f"Columns({', '.join(self._fields)})"

    def instances(self, values: Any, what: str) -> list[Row]:
        """A list of records (objects), of rows (values in the order of the fields) or, of a function with one field,
        of its values. `what`: the name of the list in the request."""
        if type(values) is not list:
            raise BadRequest(f'"{what}" must be a list', code="wrong_type")
        if values and type(values[0]) is dict and not (len(self._fields) == 1 and list(values[0]) == ["b64"]):
            return self.records(values)
        if len(self._fields) > 1:
            return self.rows(values, tuple(self._fields))
        ((name, field),) = self._fields.items()
        if not field.dtype.endswith("[]"):
            values = [value[0] if type(value) is list and len(value) == 1 else value for value in values]
        return self.named({name: values})

    def inputs(self, values: Any) -> list[Row]:
        """The same, or an object of columns: a list of values per field; one value per field is one record."""
        if type(values) is not dict:
            return self.instances(values, "inputs")
        if any(type(value) is not list for value in values.values()):
            values = {name: [value] for name, value in values.items()}
        return self.named(values)

    def records(self, records: Any) -> list[Row]:
        """A list of objects, each with the function's fields as members."""
        if type(records) is not list or not all(type(record) is dict for record in records):
            raise BadRequest("records must be a list of objects", code="wrong_type")
        bound(len(records))
        for at, record in enumerate(records):
            if not self._extra and len(record) > len(self._fields):
                self._refuse_unknown(record)
            if missing := next((name for name in self._needed if name not in record), None):
                if not self._extra:
                    self._refuse_unknown(record)
                raise self._missing(missing, f" in record {at}")
        return self.named({name: [record.get(name) for record in records] for name in self._fields})

    def rows(self, rows: Any, names: Sequence[str] | None) -> list[Row]:
        """A list of lists; `names` says which field each place holds (None: the function's own order)."""
        names = tuple(self._fields) if names is None else names
        if type(rows) is not list or not all(type(row) is list for row in rows):
            raise BadRequest("rows must be a list of lists of values", code="wrong_type")
        bound(len(rows))
        for at, row in enumerate(rows):
            if len(row) != len(names):
                message = f"row {at} has {len(row)} values for {len(names)} columns: {', '.join(map(str, names[:12]))}"
                raise BadRequest(message, code="wrong_type")
        columns = zip(*rows, strict=True) if rows else [()] * len(names)
        return self.named(dict(zip(names, columns, strict=True)))

    def named(self, columns: Mapping[Any, Sequence[Any]], read: Read = cells) -> list[Row]:
        """Columns by name, all of one length. `read` makes a field's values of a column's."""
        if not self._extra:
            self._refuse_unknown(columns)
        for name in self._needed:
            if name not in columns:
                raise self._missing(name, "")
        given = [name for name in self._fields if name in columns]
        sizes = {len(columns[name]) for name in given}
        if len(sizes) > 1:
            told = ", ".join(f"{name} {len(columns[name])}" for name in given)
            raise BadRequest(f"columns differ in length: {told}", code="wrong_type")
        bound(max(sizes, default=0))
        absent = [None] * max(sizes, default=0)
        made = (read(columns[name], field) if name in columns else absent for name, field in self._fields.items())
        return list(zip(*made, strict=True))

    def _refuse_unknown(self, names: Mapping[Any, Any]) -> None:
        for name in names:
            if name not in self._fields:
                hint = closest(str(name), self._fields) or f"the fields are {', '.join([*self._fields][:12])}"
                message = f"the function has no field {name!r}"
                raise BadRequest(message, code="unknown_field", field=str(name), hint=hint)

    def _missing(self, name: str, where: str) -> BadRequest:
        hint = f"send {name} as {self._fields[name].dtype}"
        return BadRequest(f"field {name!r} is missing{where}", code="missing_field", field=name, hint=hint)
