"""The counters of every process as Prometheus text: read when asked for, summed over processes, never scraped inside.

A Handler, so that it is served by the same connection code as everything else, on a port of its own.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from sunup.access.guard import Guard
from sunup.errors import MethodNotAllowed, UnknownFunction
from sunup.limits import PASSED_BYTES_MAX, UNFINISHED_BYTES_MAX
from sunup.link.counters import Segment, Series, key
from sunup.link.route import Route
from sunup.serve.http.message import Request, Response, Unfinished, error_body, error_response, public

TYPE: Final = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")

HELP: Final = {
    "sunup_requests_total": "Prediction calls by HTTP status.",
    "sunup_records_total": "Records answered with a prediction.",
    "sunup_request_seconds": "Seconds per stage of a prediction call; total is from last byte read to answer made.",
    "sunup_queue_depth": "Calls waiting: at the door for a worker, in a worker for the model.",
    "sunup_workers": "Worker processes by state.",
    "sunup_cold_starts_total": "Workers started because a call came.",
    "sunup_cold_start_seconds": "Seconds per stage of a cold start.",
    "sunup_features_defaulted_total": "Feature values that were missing or stale and took their default.",
    "sunup_store_failures_total": "Lookups that went without their feature store: failed, or refused without asking.",
    "sunup_feature_age_seconds": "Age of the oldest value of a view in a call.",
    "sunup_cache_lookups_total": "Rows or entity keys looked for in a cache.",
    "sunup_cache_hits_total": "Rows or entity keys a cache had.",
    "sunup_stream_lag": "Records of the input topic the function has not read, by partition.",
    "sunup_stream_records_total": "Records of the input topic by result: scored, dead (letters), ignored (no value).",
    "sunup_stream_feature_events_total": "Events of a stream feature view: aggregated, late, duplicate, invalid.",
    "sunup_stream_feature_freshness_seconds": "Age of a batch's oldest event when what it changed was written.",
    "sunup_log_dropped_total": "Rows that did not get into the served-feature log: the spool had no room.",
    "sunup_worker_memory_bytes": "Proportional set size of a function's workers.",
}
"""What is exposed. Series of other names (what the scaler reads) stay between our own processes."""


class Counters(Collector):
    """Every segment in a folder, summed series by series."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for series, values in sorted(self._sums().values(), key=lambda pair: pair[0].name):
            family = families.setdefault(series.name, _family(series))
            _add(family, series, values)
        yield from families.values()

    def _sums(self) -> dict[str, tuple[Series, list[float]]]:
        sums: dict[str, tuple[Series, list[float]]] = {}
        for path in sorted(self._folder.glob("*.seg")):
            try:
                segment = Segment.open(path)
            except FileNotFoundError:
                continue  # its owner is just writing it anew
            for index, series in enumerate(segment.series):
                if series.name in HELP:
                    values = segment.read(index)
                    name = key(series.name, series.labels)
                    known = sums.get(name)
                    sums[name] = (series, [a + b for a, b in zip(known[1], values, strict=True)] if known else values)
            segment.close()
        return sums


def text(folder: Path) -> bytes:
    """The exposition of all segments in `folder`."""
    registry = CollectorRegistry()
    registry.register(Counters(folder))
    return generate_latest(registry)


class MetricsHandler:
    """Answers GET /metrics. See http.message.Handler. `guard` checks hosts only: metrics have no keys."""

    def __init__(self, folder: Path, guard: Guard | None = None) -> None:
        self.body_bytes_max = 0
        self.guard = guard
        self.room = memoryview(bytearray(PASSED_BYTES_MAX))
        self.unfinished = Unfinished(UNFINISHED_BYTES_MAX)
        self._folder = folder

    def handle(self, request: Request) -> Response:
        """The counters of all processes."""
        if request.target.partition(b"?")[0] != b"/metrics":
            raise UnknownFunction("Metrics are at /metrics.")
        if request.method not in (b"GET", b"HEAD"):
            raise MethodNotAllowed("Metrics are read with GET.")
        return Response(200, [TYPE], text(self._folder))

    def owns(self, route: Route) -> bool:  # noqa: ARG002  # nobody else is behind this port
        """Everything."""
        return True

    def refuse(self, error: Exception, target: bytes = b"") -> Response:  # noqa: ARG002  # one protocol here
        """The error as JSON."""
        known = public(error)
        return error_response(known, error_body(known))

    def connections(self, change: int) -> None:
        """Nobody counts them."""


def _family(series: Series) -> Metric:
    labels = sorted(series.labels)
    match series.kind:
        case "counter":
            return CounterMetricFamily(series.name, HELP[series.name], labels=labels)
        case "gauge":
            return GaugeMetricFamily(series.name, HELP[series.name], labels=labels)
        case _:
            return HistogramMetricFamily(series.name, HELP[series.name], labels=labels)


def _add(family: Metric, series: Series, values: list[float]) -> None:
    labels = [series.labels[name] for name in sorted(series.labels)]
    if not isinstance(family, HistogramMetricFamily):
        assert isinstance(family, CounterMetricFamily | GaugeMetricFamily)
        family.add_metric(labels, values[0])
        return
    buckets = []
    seen = 0.0
    for bound, count in zip((*map(repr, series.buckets), "+Inf"), values[:-1], strict=True):
        seen += count
        buckets.append((bound, seen))
    family.add_metric(labels, buckets, sum_value=values[-1])
