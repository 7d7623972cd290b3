"""What a worker keeps of a prediction call between its head and its answer."""

from sunup.serve.http.message import JSON, Header, Request
from sunup.serve.telemetry.traces import CallSpan
from sunup.wire.codec import Codec


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
