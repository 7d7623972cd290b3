"""KServe's protocol v1, which is TensorFlow Serving's REST API: `{"instances": [...]}` -> `{"predictions": [...]}`.

Instances are records (objects) or rows (lists, in the order of the request fields); `inputs` takes the same, or an
object of columns. Members of the body that are not known (`signature_name`, `parameters`) are let pass.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Raw, ValidationError
from msgspec.json import Decoder

from sunup.errors import BadRequest, CallError, UnsupportedMedia
from sunup.types import Call, Field, Reply, ResponseField
from sunup.wire.codec import is_json
from sunup.wire.refusal import MALFORMED, malformed
from sunup.wire.tables.columns import Columns
from sunup.wire.tables.predictions import Predictions


class _Body(msgspec.Struct):
    instances: Raw = Raw()
    inputs: Raw = Raw()


class KServeCodec:
    """The KServe v1 codec of one deployed function."""

    def __init__(self, *, request: Sequence[Field], response: Sequence[ResponseField]) -> None:
        self._columns = Columns(request, extra=False)
        self._predictions = Predictions(response)
        self._body = Decoder(_Body)
        self._any = Decoder()

    def __repr__(self) -> str:
        return f"KServeCodec({self._columns} -> {self._predictions})"

    def reading(self, content_type: bytes, json_bytes: bytes | None) -> "KServeCodec":  # noqa: ARG002  # JSON only
        """See Codec: JSON by any of its names."""
        if not is_json(content_type):
            raise UnsupportedMedia("Send JSON, with content-type: application/json.")
        return self

    def decode(self, body: bytes, *, id: str, deadline: float) -> Call:
        """A predict request. Raises BadRequest, TooLarge."""
        try:
            asked = self._body.decode(body)
            given = self._any.decode(asked.instances or asked.inputs or b"null")
        except ValidationError:
            raise BadRequest("send a JSON object with instances or inputs", code="wrong_type") from None
        except MALFORMED as error:
            raise malformed(error) from None
        if bool(asked.instances) == bool(asked.inputs):
            raise BadRequest('send one of "instances" and "inputs"', code="wrong_type")
        rows = self._columns.instances(given, "instances") if asked.instances else self._columns.inputs(given)
        return Call(id=id, rows=rows, count=len(rows), deadline=deadline)

    def encode(self, reply: Reply) -> bytes:
        """`{"predictions": [...]}`. Raises the first failed record's error."""
        return self._predictions.encode(reply)

    def error(self, error: CallError) -> bytes:
        """`{"error": message}`."""
        return msgspec.json.encode({"error": f"{error.message}; {error.hint}" if error.hint else error.message})
