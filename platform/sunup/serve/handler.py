"""The handler of a worker: prediction calls straight to the pipeline, everything else of its function to the app.

The prediction routes are found by one dictionary lookup and answered without request or response objects of a
framework; a call that needs nothing waited for is answered within the read that brought it.
"""

import os
import re
from asyncio import CancelledError
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
from sunup.limits import PASSED_BYTES_MAX, UNFINISHED_BYTES_MAX
from sunup.link.route import Route
from sunup.pipeline import Pipeline
from sunup.serve.app import build, call_app
from sunup.serve.asked import Asked, Soon, stages
from sunup.serve.http.coding import compressed, expanded
from sunup.serve.http.message import Pending, Request, Response, Unfinished, error_body, error_response, public
from sunup.serve.http.turns import Turns
from sunup.serve.pages.table import Entry
from sunup.serve.telemetry.access import AccessLog
from sunup.serve.telemetry.meter import Meter
from sunup.serve.telemetry.traces import Traces
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
_CONTEXT: Final = frozenset({b"traceparent", b"tracestate"})
_ID: Final = re.compile(rb"[!-~]{1,128}")  # visible ASCII: safe in a header, a log line and JSON
_TRACE: Final = re.compile(rb"00-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})")  # W3C Trace Context, version 00
_GONE: Final = 499  # as nginx says it: the caller left before there was an answer


class FunctionHandler:
    """Serves one revision of one function. See http.message.Handler.

    `cold`: seconds of the stages "hold", "fork", "load" and "prove" if a call waited for this worker; the first
    prediction says so in Server-Timing. `access` and `traces`: None where nobody asked for them.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        function: Function,
        *,
        revision: int,
        meter: Meter,
        clock: Clock | None = None,
        access: AccessLog | None = None,
        traces: Traces | None = None,
    ) -> None:
        manifest = function.manifest
        self.body_bytes_max = manifest.limits.body_bytes
        self.room = memoryview(bytearray(PASSED_BYTES_MAX))
        self.unfinished = Unfinished(max(UNFINISHED_BYTES_MAX, 2 * self.body_bytes_max))
        self.guard: Guard | None = None
        self.cold: Mapping[str, float] | None = None
        self.access = access
        self._traces = traces
        self._pipeline = pipeline
        self._meter = meter
        self._clock = clock or SystemClock()
        model = f"{manifest.model.name}/{manifest.model.version}"
        self._entry = Entry(manifest.function, model, revision, "ready", "", lambda _: manifest)
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
        if self.access is not None and self.access.due(known.status):
            self.access.note(known.status, target, seconds=0.0, error=known.code)
        return error_response(known, error_body(known, target))

    def close(self) -> None:
        """Write and send what was not yet, within bounds. The last that is asked of it."""
        if self.access is not None:
            self.access.flush()
        for one in (self._pipeline.log, self._traces):
            if one is not None:
                one.close()

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
            if self._pipeline.takes_now(call):
                return self._answer(asked, self._pipeline.answer_now(call))
            if self._pipeline.takes_soon(call):
                return self._begin(asked, call)
            return self._later(asked, call)
        except Exception as error:  # every failure becomes an answer
            return self._fail(asked, error)
        finally:
            self._meter.end()
            self._turns.worked = self._clock.now()

    def _begin(self, asked: Asked, call: Call) -> Pending:
        soon = Soon(asked, self._replied, self._left)
        soon.begun = self._pipeline.begin(call, soon.replied)
        self._meter.begin(self._clock.now())
        return soon

    def _left(self, asked: Asked) -> None:
        self._meter.end()
        self._tell_failed(asked, _GONE, "")

    def _replied(self, asked: Asked, reply: Reply | Exception) -> Response:
        try:
            return self._fail(asked, reply) if isinstance(reply, Exception) else self._answer(asked, reply)
        except Exception as error:  # as in _predict
            return self._fail(asked, error)
        finally:
            self._meter.end()
            self._turns.worked = self._clock.now()

    async def _later(self, asked: Asked, call: Call) -> Response:
        now = self._clock.now()
        self._meter.begin(now)
        try:
            self._admit(now, call.deadline)  # again: others may have come before this task's first turn
            return self._answer(asked, await self._pipeline.answer(call))
        except Exception as error:  # as in _predict
            return self._fail(asked, error)
        except CancelledError:
            self._tell_failed(asked, _GONE, "")
            raise
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

    def _answer(self, asked: Asked, reply: Reply) -> Response:
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
        if self.access is not None and self.access.due(200):
            self._note(asked, 200, done - asked.started, timings, bytes_out=len(body), records=len(reply.positions))
        if asked.span is not None:
            asked.span.end(200, seconds=done - asked.started, timings=timings, records=len(reply.positions), error="")
        if timings.recalled is not None:
            asked.headers.append((b"x-sunup-cache", timings.recalled.encode()))
        asked.headers.append((b"server-timing", stages(timings) if self.cold is None else self._cold(timings)))
        return Response(200, asked.headers, body)

    def _fail(self, asked: Asked, error: Exception) -> Response:
        known = public(error, asked.id)
        self._meter.failed(known.status)
        response = error_response(known, asked.codec.error(known))
        response.headers += asked.headers[1:]
        self._tell_failed(asked, known.status, known.code, bytes_out=len(response.body))
        return response

    def _tell_failed(self, asked: Asked, status: int, error: str, *, bytes_out: int = 0) -> None:
        seconds = perf_counter() - asked.started
        if self.access is not None and self.access.due(status):
            self._note(asked, status, seconds, None, error=error, bytes_out=bytes_out)
        if asked.span is not None:
            status = 0 if status == _GONE else status
            asked.span.end(status, seconds=seconds, timings=None, records=0, error=error or "cancelled")

    def _note(self, asked: Asked, status: int, seconds: float, timings: Timings | None, **more: str | int) -> None:
        """A line of the access log."""
        assert self.access is not None
        more |= {"id": asked.id, "bytes_in": asked.bytes, "trace": asked.trace.decode()}
        self.access.note(status, asked.target, seconds=seconds, timings=timings, cold=self.cold, **more)

    def _read_head(self, request: Request, codec: Codec) -> Asked:
        """What the headers say: content type, request id (made if none is given), trace."""
        asked = Asked(codec, perf_counter(), request)
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
                asked.trace, flags = traced.groups()
                if self._traces is None:
                    asked.headers.append((b"traceparent", b"00-%b-%b-%b" % (asked.trace, self._span_id(), flags)))
        if not _ID.fullmatch(given):
            given = f"{self._ids}-{self._calls:x}".encode()
        asked.id = given.decode()
        asked.headers.append((b"x-request-id", given))
        if self._traces is not None:
            context = {name: value for name, value in request.headers if name in _CONTEXT}
            span = self._traces.begin(context, target=request.target, id=asked.id, cold=self.cold or {})
            asked.span, asked.trace = span, span.trace.encode()
            asked.headers.append((b"traceparent", span.header))
        return asked

    def _span_id(self) -> bytes:
        """This call's own span id: 16 hexadecimal digits."""
        return f"{self._ids}{self._calls & 0xFFFFFFFF:08x}".encode()

    def _cold(self, timings: Timings) -> bytes:
        """The same of the first call, with what it waited for."""
        cold, self.cold = self.cold or {}, None
        return stages(timings) + b"".join(b", %b;dur=%.3f" % (stage.encode(), 1000 * s) for stage, s in cold.items())

    @cached_property
    def _app(self) -> ASGIApp:
        # Made for the first request that needs it: a cold start that only predicts does not pay for it.
        return build({self._entry.manifest.function: self._entry}, self._meter.folder)
