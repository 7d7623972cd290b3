"""What a worker keeps of a prediction call between its head and its answer."""

from collections.abc import Callable
from typing import Final

from sunup.batch.turn import Begun
from sunup.serve.http.message import JSON, Header, Pending, Request, Response
from sunup.serve.telemetry.traces import CallSpan
from sunup.types import Reply, Timings
from sunup.wire.codec import Codec

_STAGES: Final = b"decode;dur=%.3f, lookup;dur=%.3f, batch;dur=%.3f, execute;dur=%.3f, encode;dur=%.3f"


def stages(timings: Timings) -> bytes:
    """What a Server-Timing header says of them: milliseconds."""
    spent = (timings.decode, timings.lookup, timings.batch, timings.execute, timings.encode)
    return _STAGES % tuple([1000 * seconds for seconds in spent])


class Asked:
    """A prediction call on its way. `headers`: what the response says beside its body. Times in seconds.

    The request itself is not kept: its body may be large, and is done with when it is decoded."""

    __slots__ = (
        "accepts", "bytes", "codec", "coding", "decoded", "framed", "headers", "id", "kind", "span", "started",
        "target", "trace",
    )  # fmt: skip

    def __init__(self, codec: Codec, started: float, request: Request) -> None:
        self.target = request.target
        self.bytes = len(request.body)
        self.trace = b""  # the trace id, 32 hexadecimal digits
        self.span: CallSpan | None = None
        self.codec = codec
        self.started = started
        self.decoded = 0.0
        self.id = ""
        self.headers: list[Header] = [JSON]
        self.kind = b""  # the content type, unless it is plain JSON
        self.accepts = b""  # content codings the answer may have
        self.coding = b""  # the body's content coding
        self.framed: bytes | None = None  # bytes of JSON in the body, where tensors follow it


class Soon(Pending):
    """The answer to a call that was begun. `respond` makes the response; `left` hears that nobody waits for it."""

    __slots__ = ("_asked", "_left", "_respond", "begun")

    begun: Begun

    def __init__(
        self, asked: Asked, respond: Callable[[Asked, Reply | Exception], Response], left: Callable[[Asked], None]
    ) -> None:
        super().__init__()
        self._asked = asked
        self._respond = respond
        self._left = left

    def replied(self, reply: Reply | Exception) -> None:
        """The reply, or what the call failed with."""
        response = self._respond(self._asked, reply)
        if self.told is not None:
            self.told(response)

    def cancel(self) -> None:
        self.begun.cancel()
        self._left(self._asked)
