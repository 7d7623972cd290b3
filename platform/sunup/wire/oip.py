"""Open Inference Protocol v2 (KServe, Triton, MLServer): tensors in, tensors out, in JSON or behind it (binary.py).

Inputs are the function's request fields by name, each a tensor [n] or [n, 1] (a list field: [n, k]). A function without
features whose model takes one matrix also takes that matrix, [n, F], under the model's own input name. The protocol has
no errors per record, so one failed record fails the call.
"""

from collections.abc import Container, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType, ValidationError
from msgspec.json import Decoder

from sunup.errors import BadRequest, CallError, UnsupportedMedia
from sunup.types import Call, Field, Reply, Row, Tensor
from sunup.wire.binary import attach, cut, encoded, framed, whole
from sunup.wire.codec import Encoded, is_json
from sunup.wire.fields import closest
from sunup.wire.refusal import MALFORMED, bound, malformed
from sunup.wire.tensors import InputTensor, as_column, rectangular

PLATFORM: Final = "onnx_onnxv1"


class WantedOutput(msgspec.Struct):
    """An entry of a call's `outputs`."""

    name: str
    parameters: dict[str, Any] | None = None


class InferCall(msgspec.Struct):
    """The body of an infer request. Members we do not know are let pass, as the protocol's extensions expect."""

    inputs: list[InputTensor]
    id: str = ""
    parameters: dict[str, Any] | None = None
    outputs: list[WantedOutput] | None = None


class OutputTensor(msgspec.Struct):
    """One output of a reply; `data` is flat and row-major, and absent where `parameters` say that it is binary."""

    name: str
    shape: Sequence[int]
    datatype: str
    data: list[Any] | UnsetType = UNSET
    parameters: dict[str, int] | UnsetType = UNSET


class InferReply(msgspec.Struct, omit_defaults=True):
    """The body of an infer response."""

    model_name: str
    model_version: str
    id: str
    outputs: list[OutputTensor]
    parameters: dict[str, str] = {}


class OipCodec:
    """The Open Inference Protocol codec of one deployed function.

    `version` is the registry version. `matrix`: the model's one matrix input if callers may send it whole, else None;
    its columns must then be the request fields, in any order.
    """

    def __init__(
        self,
        *,
        request: Sequence[Field],
        response: Sequence[Field],
        function: str,
        version: str,
        matrix: Tensor | None = None,
    ) -> None:
        self._request = {field.name: field for field in request}
        self._response = {field.name: field for field in response}
        self._function = function
        self._version = version
        self._lists = any(field.dtype.endswith("[]") for field in response)
        takes_matrix = matrix is not None and sorted(matrix.columns) == sorted(self._request)
        self._matrix = matrix if takes_matrix else None
        self._decoder = Decoder(InferCall)
        self._to_json = msgspec.json.Encoder().encode

    def __repr__(self) -> str:
        return f"OipCodec({', '.join(self._request)} -> {', '.join(self._response)})"

    def reading(self, content_type: bytes, json_bytes: bytes | None) -> "OipCodec":
        """See Codec: JSON by any of its names, or JSON with tensors behind it."""
        if not is_json(content_type) and content_type.lower() != b"application/octet-stream":
            raise UnsupportedMedia("Send application/json, or application/octet-stream for binary tensors.")
        return self if json_bytes is None else _Framed(self, json_bytes)

    def decode(self, body: bytes, *, id: str, deadline: float) -> Call:
        """An infer request. The caller's own id, if any, is kept to be echoed. Raises BadRequest, TooLarge."""
        asked = self._asked(body)
        wanted = dict.fromkeys(output.name for output in asked.outputs or ())
        for name in wanted:
            if name not in self._response:
                raise _unknown("output", name, self._response)
        tensors = {tensor.name: tensor for tensor in asked.inputs}
        if len(tensors) != len(asked.inputs):
            raise BadRequest("an input is given twice")
        rows = self._rows(tensors)
        noted: dict[str, Any] = {"id": asked.id}
        if (asked.parameters or asked.outputs) and (names := self._binary(asked)):
            noted["binary"] = names
        return Call(id=id, rows=rows, count=len(rows), deadline=deadline, wanted=tuple(wanted), parameters=noted)

    def encode(self, reply: Reply) -> bytes | Encoded:
        """An infer response, with the outputs behind it that were asked for so.

        Raises the first failed record's error, if any failed.
        """
        if reply.failed:
            raise reply.failed[min(reply.failed)]
        if self._lists:
            reply = rectangular(reply, self._response)
        call = reply.call
        outputs = [self._output(name, reply) for name in call.wanted or self._response]
        binary = call.parameters.get("binary")
        raw = _moved_behind(outputs, binary, reply) if binary else None
        notes = {"defaulted": reply.defaulted, "stale": reply.stale}
        said = {note: _distinct(names) for note, names in notes.items() if names and any(names)}
        id = call.parameters.get("id") or call.id
        head = self._to_json(InferReply(self._function, self._version, id, outputs, said))
        return head if raw is None else framed(head, raw)

    def error(self, error: CallError) -> bytes:
        """`{"error": message}`: all the protocol says."""
        return self._to_json({"error": f"{error.message}; {error.hint}" if error.hint else error.message})

    def metadata(self) -> bytes:
        """The body of GET /v2/models/{name}: inputs are the request fields, outputs the response fields."""
        return self._to_json(
            {
                "name": self._function,
                "versions": [self._version],
                "platform": PLATFORM,
                "inputs": [_described(field) for field in self._request.values()],
                "outputs": [_described(field) for field in self._response.values()],
            }
        )

    def _asked(self, body: bytes) -> InferCall:
        """The request, with every input's values at hand."""
        try:
            return self._decoder.decode(body)
        except ValidationError as wrong:
            raise BadRequest(f"not an infer request: {wrong}", code="wrong_type") from None
        except MALFORMED as error:
            raise malformed(error) from None

    def _binary(self, asked: InferCall) -> frozenset[str]:
        """The outputs to be sent as raw bytes."""
        default = _flag(asked.parameters, "binary_data_output", default=False)
        wanted = asked.outputs or [WantedOutput(name) for name in self._response]
        return frozenset(out.name for out in wanted if _flag(out.parameters, "binary_data", default=default))

    def _rows(self, tensors: Mapping[str, InputTensor]) -> list[Row]:
        if self._matrix is not None and list(tensors) == [self._matrix.name] and self._matrix.name not in self._request:
            return self._matrix_rows(tensors[self._matrix.name], self._matrix.columns)
        for name in tensors:
            if name not in self._request:
                raise _unknown("input", name, self._request)
        for name, field in self._request.items():
            if name not in tensors and not field.optional:
                message = f"input {name!r} is missing"
                raise BadRequest(message, code="missing_field", field=name, hint=f"send {name} as {field.datatype}")
        given = {name: _column(tensors[name], field) for name, field in self._request.items() if name in tensors}
        if len({len(column) for column in given.values()}) > 1:
            sizes = ", ".join(f"{name} {len(column)}" for name, column in given.items())
            raise BadRequest(f"inputs differ in their first dimension: {sizes}")
        if len(given) == len(self._request):
            return list(zip(*given.values(), strict=True))
        absent = [None] * max(map(len, given.values()), default=0)
        return list(zip(*(given.get(name, absent) for name in self._request), strict=True))

    def _matrix_rows(self, tensor: InputTensor, columns: Sequence[str]) -> list[Row]:
        width = len(columns)
        if len(tensor.shape) != 2 or tensor.shape[1] != width:
            raise BadRequest(f"input {tensor.name!r} has shape {tensor.shape}; send [n, {width}]", field=tensor.name)
        bound(tensor.shape[0])
        values = tensor.values()
        by_name = {
            name: as_column(values[at::width], tensor.datatype, self._request[name]) for at, name in enumerate(columns)
        }
        return list(zip(*(by_name[name] for name in self._request), strict=True))

    def _output(self, name: str, reply: Reply) -> OutputTensor:
        field, column = self._response[name], reply.columns[name]
        if isinstance(column, np.ndarray):
            return OutputTensor(name, column.shape, field.datatype, column.ravel().tolist())
        return OutputTensor(name, (len(column),), field.datatype, column)


def _moved_behind(outputs: Sequence[OutputTensor], binary: Container[str], reply: Reply) -> list[bytes]:
    """The raw values of the outputs named in `binary`, which from now on are not in their JSON."""
    moved = []
    for output in outputs:
        if output.name in binary:
            raw = encoded(reply.columns[output.name], output.datatype)
            output.data, output.parameters = UNSET, {"binary_data_size": len(raw)}
            moved.append(raw)
    return moved


class _Framed(OipCodec):
    """The same codec for one body that has tensors behind its JSON."""

    def __init__(self, codec: OipCodec, json_bytes: bytes) -> None:
        vars(self).update(vars(codec))
        self._json_bytes = json_bytes

    def _asked(self, body: bytes) -> InferCall:
        json, raw = cut(body, self._json_bytes)
        if not json:
            return InferCall([self._whole(raw)], parameters={"binary_data_output": True})
        asked = super()._asked(json)
        asked.inputs = attach(asked.inputs, raw)
        return asked

    def _whole(self, raw: memoryview) -> InputTensor:
        """The body of a request without JSON, for the one input that there can be."""
        if len(self._request) == 1:
            (field,) = self._request.values()
            sizes = (field.shape or (-1,)) if field.dtype.endswith("[]") else ()
            return whole(field.name, field.datatype, sizes, raw)
        if self._matrix is not None:
            matrix = Field("", self._matrix.dtype)
            return whole(self._matrix.name, matrix.datatype, [len(self._matrix.columns)], raw)
        names = ", ".join(self._request)
        raise BadRequest(f"the function takes {len(self._request)} inputs ({names}); say in JSON which tensor is which")


def _flag(parameters: Mapping[str, Any] | None, name: str, *, default: bool) -> bool:
    value = (parameters or {}).get(name, default)
    if type(value) is not bool:
        raise BadRequest(f"the parameter {name} must be true or false", code="wrong_type")
    return value


def _column(tensor: InputTensor, field: Field) -> list[Any]:
    """One value of `field` per record."""
    shape = tensor.shape
    is_list = field.dtype.endswith("[]")
    fits = len(shape) == 2 and field.shape in ((), (-1,), (shape[1],)) if is_list else shape[1:] in ([], [1]) and shape
    if not fits:
        expected = "[n, k]" if is_list else "[n] or [n, 1]"
        raise BadRequest(f"input {tensor.name!r} has shape {shape}; send {expected}", field=tensor.name)
    bound(shape[0])
    content_type = str((tensor.parameters or {}).get("content_type", ""))
    values = as_column(tensor.values(), tensor.datatype, field, content_type)
    if not is_list:
        return values
    return [values[at * shape[1] : (at + 1) * shape[1]] for at in range(shape[0])]


def _distinct(names: Sequence[tuple[str, ...]]) -> str:
    """Every name once, over all records: parameters of a response are plain strings."""
    return ",".join(dict.fromkeys(chain.from_iterable(names)))


def _described(field: Field) -> dict[str, Any]:
    shape = field.shape or ((-1,) if field.dtype.endswith("[]") else ())
    return {"name": field.name, "datatype": field.datatype, "shape": [-1, *shape]}


def _unknown(what: str, name: str, known: Mapping[str, Field]) -> BadRequest:
    hint = closest(name, known) or f"known: {', '.join(known)}"
    return BadRequest(f"the function has no {what} {name!r}", code="unknown_field", field=name, hint=hint)
