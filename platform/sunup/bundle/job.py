"""What the packager and its child say to each other: jobs, results, and the frames they travel in."""

import os
import select
import struct
import time
from typing import Final

import msgspec

from sunup.limits import PACKAGER_MESSAGE_BYTES_MAX
from sunup.types import Field, Tensor

MODEL: Final = "model.onnx"
WARMUP: Final = "warmup.npz"
TRAINING: Final = "training.json"

_LENGTH: Final = struct.Struct(">I")


class Job(msgspec.Struct, frozen=True, tag=True):
    """Convert and prove one model.

    `folder`: the local MLflow model (holds MLmodel). `columns`: its inputs in signature order. `requirements`: what it
    was logged with. `rows`: more real rows, a Parquet or .npz file of columns, or "". `out`: an empty folder that gets
    model.onnx, warmup.npz and parity.json. `accept`: a difference beyond the tolerance that is accepted, 0 for none.
    `trusted`: types a skops file may name beyond those known here. `training`: also write training.json, the profile of
    the rows the model was trained on (served/skew/profile.py); of images there is none.
    """

    folder: str
    flavor: str
    columns: tuple[Field, ...]
    requirements: tuple[str, ...]
    tolerance: float
    out: str
    rows: str = ""
    accept: float = 0.0
    trusted: tuple[str, ...] = ()
    training: bool = False


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The child has its libraries in memory. `seconds`: what that took."""

    seconds: float


class Stage(msgspec.Struct, frozen=True, tag=True):
    """A stage of a job is done: "convert" or "prove", and its seconds."""

    name: str
    seconds: float


class Result(msgspec.Struct, frozen=True, tag=True):
    """A job is done. `example`: one row of input columns that can be sent as it is. `accepted`: of the difference that
    might be accepted, what was needed: all or nothing."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    example: dict[str, str | bool | int | float]
    accepted: float = 0.0


class Refusal(msgspec.Struct, frozen=True, tag=True):
    """A job cannot be done. `code`: that of the CommandError to raise."""

    code: str
    message: str


class Keep(msgspec.Struct, frozen=True, tag=True):
    """Nothing to do now, but do not end for lack of it."""


Message = Job | Keep | Ready | Stage | Result | Refusal

_encode = msgspec.json.Encoder().encode
_decoder: Final = msgspec.json.Decoder(Message)


def frame(message: Message) -> bytes:
    """The bytes of a message: a length (32 bits, big-endian), then JSON."""
    data = _encode(message)
    return _LENGTH.pack(len(data)) + data


class Inbox:
    """Messages that arrive on a descriptor, which stays the caller's."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = bytearray()

    def receive(self, seconds: float, *, stop: int | None = None) -> Message | None:
        """The next message; None at the end of the stream, also in the middle of a message, or when the descriptor
        `stop` has something to read. Raises TimeoutError after `seconds`, ValueError for what is no message.
        """
        deadline = time.monotonic() + seconds
        while (size := self._size()) is None or len(self._buffer) < size:
            watched = [self._descriptor] if stop is None else [self._descriptor, stop]
            readable, _, _ = select.select(watched, [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                raise TimeoutError
            data = b"" if stop in readable else os.read(self._descriptor, 1 << 16)
            if not data:
                return None
            self._buffer += data
        data = bytes(self._buffer[_LENGTH.size : size])
        del self._buffer[:size]
        try:
            message: Message = _decoder.decode(data)
        except msgspec.MsgspecError as error:
            raise ValueError(f"not a message: {error}") from error
        return message

    def _size(self) -> int | None:
        if len(self._buffer) < _LENGTH.size:
            return None
        size = int(_LENGTH.unpack_from(self._buffer)[0])
        if size > PACKAGER_MESSAGE_BYTES_MAX:
            raise ValueError(f"a message of {size} bytes is over the limit")
        return size + _LENGTH.size
