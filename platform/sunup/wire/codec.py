"""What every protocol's codec does, whatever its bytes look like."""

from typing import Protocol

from sunup.errors import CallError
from sunup.types import Call, Reply


class Codec(Protocol):
    """Compiled once per worker from a function's fields; keeps no state between calls."""

    def decode(self, body: bytes, *, id: str, deadline: float) -> Call:
        """The call in `body`. `id` is the request's, `deadline` monotonic seconds. Raises CallError."""
        ...

    def encode(self, reply: Reply) -> bytes:
        """The body of a 200. Raises CallError where the protocol cannot say that only some records failed."""
        ...

    def error(self, error: CallError) -> bytes:
        """The body that goes with `error.status`."""
        ...
