"""The handler of a worker: prediction calls straight to the pipeline, everything else of its function to the app.

The prediction routes are found by one dictionary lookup and answered without request or response objects of a
framework; a call that needs nothing waited for is answered within the read that brought it.
"""

import os
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from time import perf_counter
from typing import Final
from urllib.parse import quote

from starlette.types import ASGIApp

from sunup.access.guard import Guard
from sunup.clock import Clock, SystemClock
from sunup.errors import DeadlineExceeded, Overloaded
from sunup.function import Function
from sunup.limits import PASSED_BYTES_MAX
from sunup.link.route import Route
from sunup.pipeline import Pipeline
from sunup.serve.app import build, call_app
from sunup.serve.http.coding import compressed, expanded
from sunup.serve.http.message import JSON, Header, Request, Response, error_body, error_response, public
from sunup.serve.http.turns import Turns
from sunup.serve.pages.table import Entry
from sunup.serve.telemetry.meter import Meter
from sunup.types import Call, Reply, Timings
from sunup.wire.codec import Codec, Encoded

_NOTED: Final = frozenset(
    {
        b"content-type",
        b"x-request-id",
        b"traceparent",
        b"accept-encoding",
        b"content-encoding",
        b"inference-header-content-length",
    }
)
_COLON: Final = re.compile(b"%3a", re.IGNORECASE)  # as in link/route.py
_ID: Final = re.compile(rb"[!-~]{1,128}")  # visible ASCII: safe in a header, a log line and JSON
_TRACE: Final = re.compile(rb"00-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})")  # W3C Trace Context, version 00
_STAGES: Final = b"decode;dur=%.3f, lookup;dur=%.3f, batch;dur=%.3f, execute;dur=%.3f, encode;dur=%.3f"


class _Asked:
    """A prediction call on its way. `headers`: what the response says beside its body. Times in seconds."""

    __slots__ = ("accepts", "codec", "coding", "decoded", "framed", "headers", "id", "kind", "started")

    def __init__(self, codec: Codec, started: float) -> None:
        self.codec = codec
        self.started = started
        self.decoded = 0.0
        self.id = ""
        self.headers: list[Header] = [JSON]
        self.kind = b""  # the content type, unless it is plain JSON
        self.accepts = b""  # content codings the answer may have
        self.coding = b""  # the body's content coding
        self.framed: bytes | None = None  # bytes of JSON in the body, where tensors follow it


class FunctionHandler:
    """Serves one revision of one function. See http.message.Handler.

    `cold`: seconds of the stages "hold", "fork", "load" and "prove" if a call waited for this worker; the first
    prediction says so in Server-Timing.
    """

    def __init__(
        self, pipeline: Pipeline, function: Function, *, revision: int, meter: Meter, clock: Clock | None = None
    ) -> None:
        manifest = function.manifest
        self.body_bytes_max = manifest.limits.body_bytes
        self.room = memoryview(bytearray(PASSED_BYTES_MAX))
        self.guard: Guard | None = None
        self.cold: Mapping[str, float] | None = None
        self._pipeline = pipeline
        self._meter = meter
        self._clock = clock or SystemClock()
        self._entry = Entry(manifest, revision, "ready")
        self._timeout_s = manifest.limits.timeout_s
        self._queue_max = manifest.scale.queue_max
        self._run_s = function.cost.seconds if pipeline.inline else 0.0  # elsewhere the batcher knows what waits
        self._turns = Turns()
        native, oip = function.record_codec(revision), function.oip_codec()
        name, version = manifest.function, quote(manifest.model.version, safe="")
        self._hot: dict[bytes, Codec] = {
            f"/functions/{name}".encode(): native,
            f"/v2/models/{name}/infer".encode(): oip,
            f"/v2/models/{name}/versions/{version}/infer".encode(): oip,
        }
        # Moved to the hot ones when the first call comes: a cold start does not pay for protocols it may never speak.
        self._later_made: dict[bytes, Callable[[], Codec]] = {
            f"/v1/models/{name}:predict".encode(): function.kserve_codec,
            f"/functions/{name}/invocations".encode(): function.mlflow_codec,
        }
        self._ids = os.urandom(4).hex()
        self._calls = 0

    def __repr__(self) -> str:
        return f"FunctionHandler({self._entry.manifest.function}, revision={self._entry.revision}, {self._meter!r})"

    def handle(self, request: Request) -> Response | Awaitable[Response]:
        """Answer a call. Prediction calls never raise: every failure has its protocol's shape."""
        codec = None
        if request.method == b"POST":
            codec = self._hot.get(request.target) or self._find(request.target)
        return call_app(self._app, request) if codec is None else self._predict(request, codec)

    def owns(self, route: Route) -> bool:
        """What names this function."""
        return route.function == self._entry.manifest.function

    def refuse(self, error: Exception, target: bytes = b"") -> Response:
        """In the shape of the target's protocol."""
        known = public(error)
        self._meter.failed(known.status)
        return error_response(known, error_body(known, target))

    def connections(self, change: int) -> None:
        """Counted for the engine."""
        self._meter.connections(change)

    def _find(self, target: bytes) -> Codec | None:
        """The codec of a target with a query or an escaped colon, or whose codec was not needed before."""
        path = _COLON.sub(b":", target.partition(b"?")[0])
        if path in self._later_made:
            self._hot[path] = self._later_made.pop(path)()
        return self._hot.get(path)

    def _predict(self, request: Request, codec: Codec) -> Response | Awaitable[Response]:
        asked = self._read_head(request, codec)
        now = self._clock.now()
        deadline = self._turns.earliest(min(request.since, now)) + self._timeout_s
        self._meter.begin(now)
        try:
            self._admit(now, deadline)
            if asked.kind or asked.framed is not None:
                asked.codec = codec = codec.reading(asked.kind, asked.framed)
            body = expanded(request.body, asked.coding, self.body_bytes_max) if asked.coding else request.body
            call = codec.decode(body, id=asked.id, deadline=deadline)
            asked.decoded = perf_counter()
            if not self._pipeline.takes_now(call):
                return self._later(asked, call)
            return self._answer(asked, self._pipeline.answer_now(call))
        except Exception as error:  # every failure becomes an answer
            return self._fail(asked, error)
        finally:
            self._meter.end()
            self._turns.worked = self._clock.now()

    async def _later(self, asked: _Asked, call: Call) -> Response:
        now = self._clock.now()
        self._meter.begin(now)
        try:
            self._admit(now, call.deadline)  # again: others may have come before this task's first turn
            return self._answer(asked, await self._pipeline.answer(call))
        except Exception as error:  # as in _predict
            return self._fail(asked, error)
        finally:
            self._meter.end()
            self._turns.worked = self._clock.now()

    def _admit(self, now: float, deadline: float) -> None:
        if self._meter.inflight > self._queue_max:
            raise Overloaded(f"{self._queue_max} calls are in progress already. Try again shortly.")
        if now >= deadline:
            raise DeadlineExceeded("The call had waited for as long as it may before anybody could read it.")
        if now + self._run_s > deadline:
            raise Overloaded("The call waited too long unread to be answered in time. Try again shortly.")

    def _answer(self, asked: _Asked, reply: Reply) -> Response:
        encoding = perf_counter()
        body = asked.codec.encode(reply)
        if isinstance(body, Encoded):
            asked.headers[:1] = body.headers
            body = body.body
        if asked.accepts:
            body = compressed(body, asked.headers, asked.accepts)
        done = perf_counter()
        timings = reply.timings
        timings.decode += asked.decoded - asked.started  # beside what images took
        timings.encode = done - encoding
        self._meter.answered(timings, done - asked.started, len(reply.positions))
        asked.headers.append((b"server-timing", self._server_timing(timings)))
        return Response(200, asked.headers, body)

    def _fail(self, asked: _Asked, error: Exception) -> Response:
        known = public(error, asked.id)
        self._meter.failed(known.status)
        response = error_response(known, asked.codec.error(known))
        response.headers += asked.headers[1:]
        return response

    def _read_head(self, request: Request, codec: Codec) -> _Asked:
        """What the headers say: content type, request id (made if none is given), trace."""
        asked = _Asked(codec, perf_counter())
        self._calls += 1
        given = b""
        for name, value in request.headers:
            if name not in _NOTED:
                continue
            if name == b"x-request-id":
                given = value
            elif name == b"content-type":
                if value != b"application/json":
                    asked.kind = value or b" "  # an empty one is not none
            elif name == b"accept-encoding":
                asked.accepts = value
            elif name == b"content-encoding":
                asked.coding = value
            elif name == b"inference-header-content-length":
                asked.framed = value
            elif traced := _TRACE.fullmatch(value):
                trace, flags = traced.groups()
                asked.headers.append((b"traceparent", b"00-%b-%b-%b" % (trace, self._span(), flags)))
        if not _ID.fullmatch(given):
            given = f"{self._ids}-{self._calls:x}".encode()
        asked.id = given.decode()
        asked.headers.append((b"x-request-id", given))
        return asked

    def _span(self) -> bytes:
        """This call's own span id: 16 hexadecimal digits."""
        return f"{self._ids}{self._calls & 0xFFFFFFFF:08x}".encode()

    def _server_timing(self, timings: Timings) -> bytes:
        spent = (timings.decode, timings.lookup, timings.batch, timings.execute, timings.encode)
        said = _STAGES % tuple([1000 * seconds for seconds in spent])
        if self.cold is not None:
            said += b"".join(b", %b;dur=%.3f" % (stage.encode(), 1000 * s) for stage, s in self.cold.items())
            self.cold = None
        return said

    @cached_property
    def _app(self) -> ASGIApp:
        # Made for the first request that needs it: a cold start that only predicts does not pay for it.
        return build({self._entry.manifest.function: self._entry}, self._meter.folder)
