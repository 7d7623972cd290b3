"""Whether calls are traced, and what a handler says of a traced one. The spans themselves are made in spans.py.

OpenTelemetry's own variables decide, as the environment of `platform up` has them. The SDK costs half a second and some
MB to import: the nursery does it once, before its forks, and where nobody asks for spans nobody pays.
"""

import logging
import os
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:  # numpy, which `platform up` does without
    from sunup.types import Timings

_LOG: Final = logging.getLogger(__name__)
_PROTOCOL: Final = "http/protobuf"  # what OTLP is spoken in here; also the specification's default


class CallSpan(Protocol):
    """One call. `trace`: its trace id, 32 hexadecimal digits; `header`: the traceparent that its answer carries."""

    trace: str
    header: bytes

    def end(self, status: int, *, seconds: float, timings: "Timings | None", records: int, error: str) -> None:
        """The call is over. `status`: as answered, 0 if nobody was there to answer; `seconds`: from its last byte read
        to its answer made; `timings`: None where it failed; `error`: its code, or ""."""
        ...


class Traces(Protocol):
    """Makes the spans of one worker."""

    def begin(self, headers: Mapping[bytes, bytes], *, target: bytes, id: str, cold: Mapping[str, float]) -> CallSpan:
        """A call begins. `headers`: traceparent and tracestate as far as it has them; `cold`: seconds per stage of the
        cold start it waited for, if it did."""
        ...

    def close(self) -> None:
        """Send what was not sent yet, within a bound."""
        ...


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's variables ask for spans.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip()
    if exporter:
        return exporter != "none"
    return any(environ.get(f"OTEL_EXPORTER_OTLP_{name}") for name in ("ENDPOINT", "TRACES_ENDPOINT"))


def trouble(environ: Mapping[str, str]) -> str:
    """Why spans that are wanted cannot be sent, and what to do; "" when they can."""
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if exporter != "otlp":
        return f"Calls are not traced: OTEL_TRACES_EXPORTER is {exporter}, and the only exporter here is otlp."
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in (None, "", _PROTOCOL):
        return f"Calls are not traced: spans are sent as {_PROTOCOL}, and OTEL_EXPORTER_OTLP_PROTOCOL is {protocol}."
    try:
        found = find_spec("opentelemetry.exporter.otlp.proto.http")
    except ModuleNotFoundError:
        found = None
    return "" if found else "Calls are not traced: OpenTelemetry is not installed. Do: pip install 'sunup[otel]'"


@cache  # once per nursery: its children inherit the answer, and the line in its log is said once
def prepared() -> Callable[..., Traces] | None:
    """What makes a worker's Traces (function, revision), imported; None where spans are not wanted or not possible."""
    if not wanted(os.environ):
        return None
    if said := trouble(os.environ):
        _LOG.error(said)
        return None
    from sunup.serve.telemetry import spans  # the SDK: 0.5 s that others are spared

    return partial(spans.Spans, spans.Sending())
