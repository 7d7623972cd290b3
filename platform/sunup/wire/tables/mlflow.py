"""MLflow's scoring server: what `mlflow models serve` takes at /invocations and answers (mlflow.pyfunc.scoring_server).

A JSON object with exactly one of `dataframe_split`, `dataframe_records`, `instances` and `inputs`, or text/csv with a
header line. As there, columns the model does not have are let pass, and so are `params`, which no function declares.
"""

import csv
from collections.abc import Sequence
from io import StringIO
from typing import Any, Final

import msgspec
from msgspec import Raw, ValidationError
from msgspec.json import Decoder

from sunup.errors import BadRequest, CallError, UnsupportedMedia, mlflow_code
from sunup.types import Call, Field, Reply, ResponseField, Row
from sunup.wire.codec import Encoded
from sunup.wire.refusal import MALFORMED, bound, malformed
from sunup.wire.tables.cells import texts
from sunup.wire.tables.columns import Columns
from sunup.wire.tables.predictions import Predictions

_TEXT: Final = ((b"content-type", b"text/plain; charset=utf-8"),)
_FORMATS: Final = ("dataframe_split", "dataframe_records", "instances", "inputs")
_SPLIT: Final = {"columns", "data", "index"}


class _Body(msgspec.Struct):
    dataframe_split: Raw = Raw()
    dataframe_records: Raw = Raw()
    instances: Raw = Raw()
    inputs: Raw = Raw()


class MlflowCodec:
    """The codec of one deployed function for JSON bodies; `reading` gives the one for CSV."""

    def __init__(self, *, request: Sequence[Field], response: Sequence[ResponseField]) -> None:
        self._columns = Columns(request, extra=True)
        self._predictions = Predictions(response)
        self._body = Decoder(_Body)
        self._any = Decoder()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._columns} -> {self._predictions})"

    def reading(self, content_type: bytes, json_bytes: bytes | None) -> "MlflowCodec":  # noqa: ARG002  # no tensors here
        """JSON or CSV, in UTF-8. Raises UnsupportedMedia for any other content, or another parameter than charset."""
        kind, *parameters = (part.strip() for part in content_type.decode("latin-1").split(";"))
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name != "charset":
                raise UnsupportedMedia(f"Unrecognized content type parameters: {name}.")
            if value.lower() != "utf-8":
                raise UnsupportedMedia("The scoring server only supports UTF-8")
        match kind.lower():
            case "application/json" | "":
                return self
            case "text/csv":
                return _CsvCodec(self)
        told = "application/json, text/csv"
        raise UnsupportedMedia(f"This predictor only supports the following content types: {told}. Got '{kind}'.")

    def decode(self, body: bytes, *, id: str, deadline: float) -> Call:
        """The records of the body. Raises BadRequest, TooLarge."""
        rows = self._rows(body)
        return Call(id=id, rows=rows, count=len(rows), deadline=deadline)

    def encode(self, reply: Reply) -> bytes:
        """`{"predictions": [...]}`. Raises the first failed record's error."""
        return self._predictions.encode(reply)

    def error(self, error: CallError) -> bytes | Encoded:
        """`{"error_code", "message"}`; of a 415, the message as text."""
        message = f"{error.message}; {error.hint}" if error.hint else error.message
        if error.status == UnsupportedMedia.status:
            return Encoded(message.encode(), _TEXT)
        code = "INVALID_PARAMETER_VALUE" if error.code == "missing_field" else mlflow_code(error.status)
        return msgspec.json.encode({"error_code": code, "message": message})

    def _rows(self, body: bytes) -> list[Row]:
        try:
            asked = self._body.decode(body)
            given = [(name, raw) for name in _FORMATS if (raw := getattr(asked, name))]
            if len(given) != 1:
                raise _not_one([name for name, _ in given])
            ((name, raw),) = given
            table = self._any.decode(raw)
        except ValidationError:
            raise _not_one([]) from None
        except MALFORMED as error:
            raise malformed(error) from None
        match name:
            case "dataframe_split":
                return self._split(table)
            case "dataframe_records":
                return self._columns.records(table)
            case "instances":
                return self._columns.instances(table, "instances")
        return self._columns.inputs(table)

    def _split(self, table: Any) -> list[Row]:
        """A data frame as pandas writes it with orient="split"; without `columns`, values in the order of fields."""
        if type(table) is not dict or "data" not in table or table.keys() - _SPLIT:
            raise BadRequest(
                'dataframe_split must be an object with "data", and "columns" and "index" where there are any'
            )
        names = table.get("columns")
        if names is not None and not _are_names(names):
            raise BadRequest('the "columns" of dataframe_split must be a list of different names')
        return self._columns.rows(table["data"], names)


class _CsvCodec(MlflowCodec):
    """The same function's codec for CSV bodies."""

    def __init__(self, codec: MlflowCodec) -> None:
        self._columns = codec._columns
        self._predictions = codec._predictions

    def _rows(self, body: bytes) -> list[Row]:
        try:
            lines = csv.reader(StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
            names, *rows = (row for row in lines if row)
        except UnicodeDecodeError:
            raise BadRequest("the body is not UTF-8") from None
        except csv.Error as wrong:
            raise BadRequest(f"the body is not valid CSV: {wrong}") from None
        except ValueError:
            raise BadRequest("the body is empty; send CSV with a header line") from None
        bound(len(rows))
        if not _are_names(names):
            raise BadRequest("the header line must have a different name for each column")
        for at, row in enumerate(rows):
            if len(row) != len(names):
                raise BadRequest(f"row {at} has {len(row)} values for {len(names)} columns")
        columns = zip(*rows, strict=True) if rows else [()] * len(names)
        return self._columns.named(dict(zip(names, columns, strict=True)), texts)


def _are_names(names: Any) -> bool:
    if type(names) is not list or not all(type(name) in (str, int) for name in names):
        return False
    return len(set(names)) == len(names)


def _not_one(found: Sequence[str]) -> BadRequest:
    received = f" Received {', '.join(found)}." if found else ""
    formats = ", ".join(_FORMATS)
    message = f"The input must be a JSON dictionary with exactly one of the input fields {formats}.{received}"
    return BadRequest(message, code="wrong_type")
