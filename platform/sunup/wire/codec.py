"""What every protocol's codec does, whatever its bytes look like."""

from typing import Final, NamedTuple, Protocol

from sunup.errors import CallError
from sunup.types import Call, Reply

ANY_IMAGE: Final = "image/*"  # a content type that does not say which


class Encoded(NamedTuple):
    """A body that is not plain JSON, with the headers that say what it is; content-type is the first of them."""

    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]


class Codec(Protocol):
    """Compiled once per worker from a function's fields; keeps no state between calls."""

    def reading(self, content_type: bytes, json_bytes: bytes | None) -> "Codec":
        """The codec of this protocol for a body that is not plain JSON, asked for only then. Raises CallError.

        `content_type` as sent, b"" if none was; `json_bytes`: the header Inference-Header-Content-Length, if any.
        """
        ...

    def decode(self, body: bytes, *, id: str, deadline: float) -> Call:
        """The call in `body`. `id` is the request's, `deadline` monotonic seconds. Raises CallError."""
        ...

    def encode(self, reply: Reply) -> bytes | Encoded:
        """The body of a 200. Raises CallError where the protocol cannot say that only some records failed."""
        ...

    def error(self, error: CallError) -> bytes | Encoded:
        """The body that goes with `error.status`."""
        ...


def image_type(content_type: bytes) -> str:
    """The content type of an image, lower case and without parameters; "" for what is none."""
    kind = content_type.partition(b";")[0].strip().lower()
    return kind.decode("latin-1") if kind.startswith(b"image/") else ""


def is_json(content_type: bytes) -> bool:
    """Whether a content type means JSON; none given does too. Parameters are let pass."""
    kind = content_type.partition(b";")[0].strip().lower()
    return (
        kind == b"application/json"
        or not content_type
        or (kind.startswith(b"application/") and kind.endswith(b"+json"))
    )
