"""Spans of prediction calls by the OpenTelemetry SDK, sent as OTLP over HTTP by a thread of the worker.

One SERVER span per call (https://opentelemetry.io/docs/specs/semconv/http/http-spans), continued from the caller's
traceparent, with a child for every stage that took time. The stages were measured anyway, so their spans are made when
the call is over: they lie end to end from its beginning, but for `encode`, which ends with it; what lies between is
waiting that belongs to no stage. A call that woke its worker begins when the door got it: hold, fork, load and prove
come before decode; the first of a pod begins when that was started. Sampling, limits, queue sizes and the collector are
what OpenTelemetry's variables say.
"""

import os
import time
from collections.abc import Mapping
from threading import Thread
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from sunup import __version__
from sunup.limits import SPANS_FLUSH_SECONDS_MAX
from sunup.types import Timings

_STAGES: Final = ("decode", "lookup", "batch", "execute")
_COLD: Final = ("hold", "fork", "process", "import", "load", "prove", "listen")


class Sending:
    """What the workers of a nursery have in common, made before the forks: no thread, no connection."""

    def __init__(self) -> None:
        named = "OTEL_SERVICE_NAME" in os.environ or SERVICE_NAME in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        resource = Resource.create({} if named else {SERVICE_NAME: "sunup"})
        self.exporter = OTLPSpanExporter()
        self.provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self.tracer = self.provider.get_tracer("sunup", __version__)
        self.tracer.start_span("rehearsal", kind=SpanKind.SERVER).end()  # goes nowhere yet


class Spans:
    """Makes and sends the spans of one worker. See traces.Traces. Made after the fork: it has a thread."""

    def __init__(self, sending: Sending, *, function: str, revision: int) -> None:
        self._provider = sending.provider
        self._provider.add_span_processor(BatchSpanProcessor(sending.exporter))
        self._tracer = sending.tracer
        self._context = TraceContextTextMapPropagator()
        self._always: dict[str, str | int] = {
            "http.request.method": "POST",
            "url.scheme": "http",
            "sunup.function": function,
            "sunup.revision": revision,
        }
        self._woken: Mapping[str, float] | None = None

    def __repr__(self) -> str:
        return f"Spans({self._always['sunup.function']}, {self._provider.sampler.get_description()})"

    def begin(self, headers: Mapping[bytes, bytes], *, target: bytes, id: str, cold: Mapping[str, float]) -> "CallSpan":
        """See traces.Traces. A cold start is told in the span of one call, the first that comes with it."""
        now = time.time_ns()
        if cold is self._woken:
            cold = {}
        elif cold:
            self._woken = cold
        context = None
        if headers:
            given = {name.decode(): value.decode("latin-1") for name, value in headers.items()}
            context = self._context.extract(given, Context())
        path = target.partition(b"?")[0].decode("latin-1")
        start = now - int(1e9 * sum(cold.values())) if cold else now
        span = self._tracer.start_span(
            f"POST {path}", context, kind=SpanKind.SERVER, attributes=self._always, start_time=start
        )
        if span.is_recording():  # most calls are not sampled, and pay for none of this
            span.set_attributes({"url.path": path, "sunup.cold": bool(cold), "sunup.request_id": id})
        return CallSpan(self._tracer, span, now, cold)

    def close(self) -> None:
        """Send what was not sent yet; a collector that does not take it in SPANS_FLUSH_SECONDS_MAX does not get it."""
        # A thread, because the SDK waits for an export under way as long as that takes; it dies with the process.
        flush = Thread(target=self._provider.shutdown, daemon=True)
        flush.start()
        flush.join(SPANS_FLUSH_SECONDS_MAX)


class CallSpan:
    """One call. See traces.CallSpan. `begun`: nanoseconds since the epoch."""

    __slots__ = ("_begun", "_cold", "_span", "_tracer", "header", "trace")

    def __init__(self, tracer: trace.Tracer, span: trace.Span, begun: int, cold: Mapping[str, float]) -> None:
        context = span.get_span_context()
        self._tracer = tracer
        self._span = span
        self._begun = begun
        self._cold = cold
        self.trace = f"{context.trace_id:032x}"
        self.header = f"00-{self.trace}-{context.span_id:016x}-{context.trace_flags:02x}".encode()

    def end(self, status: int, *, seconds: float, timings: Timings | None, records: int, error: str) -> None:
        """See traces.CallSpan."""
        span = self._span
        if not span.is_recording():
            return
        end = self._begun + int(1e9 * seconds)
        if status:
            span.set_attribute("http.response.status_code", status)
        if error:
            span.set_attribute("error.type", error)
        if status >= 500 or not status:
            span.set_status(trace.StatusCode.ERROR)
        if self._cold:
            self._stages(self._begun - int(1e9 * sum(self._cold.values())), self._cold, _COLD)
        if timings is not None:
            span.set_attribute("sunup.records", records)
            self._stages(self._begun, {name: getattr(timings, name) for name in _STAGES}, _STAGES)
            self._stages(end - int(1e9 * timings.encode), {"encode": timings.encode}, ("encode",))
        span.end(end)

    def _stages(self, start: int, seconds: Mapping[str, float], names: tuple[str, ...]) -> None:
        """A child for every stage that took time, end to end from `start`."""
        parent = trace.set_span_in_context(self._span)
        for name in names:
            if took := int(1e9 * seconds.get(name, 0.0)):
                self._tracer.start_span(name, parent, start_time=start).end(start + took)
                start += took
