"""The Open Inference Protocol's binary tensor data: raw tensors behind the JSON of a request or a response.

After Triton's and KServe's "binary tensor data extension". The header Inference-Header-Content-Length says how many
bytes of the body are JSON; behind them are the tensors that have a parameter `binary_data_size`, in their order,
little-endian, row-major, without padding. BOOL is a byte, 0 or 1; an element of BYTES is a 4-byte unsigned length and
so many bytes. A length of zero: the whole body is one raw tensor (of BYTES: one element, without its length).
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sunup.errors import BadRequest
from sunup.types import Column
from sunup.wire.codec import Encoded
from sunup.wire.tensors import InputTensor, checked

_LENGTH: Final = struct.Struct("<I")
_DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "BOOL": np.dtype("u1"),  # so that a byte that is neither 0 nor 1 is seen
    **{
        f"{sign}INT{8 * size}": np.dtype(f"<{kind}{size}")
        for sign, kind in (("U", "u"), ("", "i"))
        for size in (1, 2, 4, 8)
    },
    **{f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
}
_OCTETS: Final = (b"content-type", b"application/octet-stream")


class Parts(NamedTuple):
    """A request's JSON, and what is behind it."""

    json: bytes
    raw: memoryview


class BinaryTensor(InputTensor):
    """An input whose values came as raw bytes."""

    raw: memoryview = memoryview(b"")

    def values(self) -> NDArray[Any]:
        """Flat, in the tensor's own dtype; of BYTES, an object array of bytes. Raises BadRequest."""
        count = checked(self)
        if self.datatype == "BYTES":
            return _elements(self, count)
        dtype = _DTYPES[self.datatype]
        if len(self.raw) != count * dtype.itemsize:
            raise _misfit(self, f"shape {self.shape} takes {count * dtype.itemsize} bytes, not {len(self.raw)}")
        array: NDArray[Any] = np.frombuffer(self.raw, dtype)
        if self.datatype == "BOOL":
            if array.size and array.max() > 1:
                raise _misfit(self, "a BOOL is a byte 0 or 1")
            return array.astype(np.bool_)
        return array


def cut(body: bytes, json_bytes: bytes) -> Parts:
    """The parts of a body whose first `json_bytes` (the header's text) are JSON. Raises BadRequest."""
    if not json_bytes.isdigit() or len(json_bytes) > 12 or int(json_bytes) > len(body):
        raise BadRequest("Inference-Header-Content-Length must be the number of bytes of JSON at the body's start")
    length = int(json_bytes)
    return Parts(body[:length], memoryview(body)[length:])


def attach(tensors: Sequence[InputTensor], raw: memoryview) -> list[InputTensor]:
    """The tensors with their part of `raw`, all of which must be used up. Raises BadRequest."""
    attached: list[InputTensor] = []
    at = 0
    for tensor in tensors:
        size = (tensor.parameters or {}).get("binary_data_size")
        if size is None:
            attached.append(tensor)
            continue
        if type(size) is not int or not 0 <= size <= len(raw) - at:
            raise _misfit(tensor, f"binary_data_size {size!r} does not fit the {len(raw) - at} bytes left of the body")
        if tensor.data:
            raise _misfit(tensor, "send data or binary_data_size, not both")
        attached.append(binary(tensor.name, tensor.shape, tensor.datatype, raw[at : at + size], tensor.parameters))
        at += size
    if at != len(raw):
        raise BadRequest(f"{len(raw) - at} bytes of the body belong to no input: their binary_data_size is missing")
    return attached


def binary(
    name: str, shape: list[int], datatype: str, raw: memoryview, parameters: dict[str, Any] | None = None
) -> BinaryTensor:
    """A tensor of raw bytes."""
    return BinaryTensor(name=name, shape=shape, datatype=datatype, parameters=parameters, raw=raw)


def whole(name: str, datatype: str, sizes: Sequence[int], raw: memoryview) -> BinaryTensor:
    """The tensor that is the whole body: its first dimension is as long as the bytes make it.

    `sizes`: its other dimensions, of which a -1 takes all of one record's values. Raises BadRequest.
    """
    if datatype == "BYTES":
        return binary(name, [1], datatype, memoryview(_LENGTH.pack(len(raw)) + bytes(raw)))
    width = _DTYPES[datatype].itemsize
    if -1 in sizes:
        return binary(name, [1, len(raw) // width], datatype, raw)
    for size in sizes:
        width *= size
    if width == 0 or len(raw) % width:
        raise BadRequest(f"the body has {len(raw)} bytes; a record of {name!r} ({datatype}) takes {width}", field=name)
    return binary(name, [len(raw) // width, *sizes], datatype, raw)


def encoded(column: Column, datatype: str) -> bytes:
    """An output's values as raw bytes."""
    if datatype == "BYTES":
        values = column.ravel().tolist() if isinstance(column, np.ndarray) else column
        elements = [value if isinstance(value, bytes) else str(value).encode() for value in values]
        return b"".join([_LENGTH.pack(len(element)) + element for element in elements])
    return np.ascontiguousarray(column, _DTYPES[datatype]).tobytes()


def framed(head: bytes, tensors: Sequence[bytes]) -> Encoded:
    """A reply of JSON with tensors behind it."""
    return Encoded(b"".join((head, *tensors)), (_OCTETS, (b"inference-header-content-length", b"%d" % len(head))))


def _elements(tensor: BinaryTensor, count: int) -> NDArray[Any]:
    raw, size = tensor.raw, len(tensor.raw)
    if 4 * count > size:  # before anything is made for them
        raise _misfit(tensor, f"{size} bytes cannot hold {count} elements")
    array = np.empty(count, object)
    at = 0
    for index in range(count):
        if at + 4 > size or (end := at + 4 + _LENGTH.unpack_from(raw, at)[0]) > size:
            raise _misfit(tensor, f"element {index} goes beyond binary_data_size")
        array[index] = bytes(raw[at + 4 : end])
        at = end
    if at != size:
        raise _misfit(tensor, f"{size - at} bytes are left behind its {count} elements")
    return array


def _misfit(tensor: InputTensor, why: str) -> BadRequest:
    return BadRequest(f"input {tensor.name!r}: {why}", field=tensor.name)
