"""What a worker counts: series in its shared-memory segment, written while it answers, read by the engine and /metrics.

About 2.5 microseconds per answered call: one counter, a histogram per stage that took time, two gauges.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from sunup.link.counters import STAGE_BUCKETS, Segment, Series
from sunup.types import Features, Timings

STAGES: Final = ("decode", "lookup", "batch", "execute", "encode", "total")
CODES: Final = (200, 400, 401, 403, 404, 405, 408, 413, 415, 421, 431, 500, 501, 503)
AGE_BUCKETS: Final = (1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 6 * 3600.0, 86400.0, 7 * 86400.0, 30 * 86400.0)  # s
RESULTS: Final = ("scored", "dead", "ignored")
EVENTS: Final = ("aggregated", "late", "duplicate", "invalid")
FRESH_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0)  # s
UNANSWERED: Final = ("failed", "refused")
DROPPED: Final = "sunup_log_dropped_total"

_FRESH: Final = "sunup_stream_feature_freshness_seconds"
_STORE_FAILURES: Final = "sunup_store_failures_total"
_LABELS: Final = ("code", "stage", "feature", "view", "result", "cache")
_SUM: Final = len(STAGE_BUCKETS) + 1  # where a stage histogram keeps its sum
_AGE_SUM: Final = len(AGE_BUCKETS) + 1


def worker_series(
    function: str,
    revision: int,
    features: Sequence[str],
    views: Sequence[str],
    caches: Sequence[str] = (),
    *,
    logs: bool = False,
) -> list[Series]:
    """The series of a worker's segment. `features`: feature columns; `views`: the views they come from; `caches`: what
    it remembers; `logs`: what is served is kept.

    Gauges are of the process and start at zero with it; `sunup_last_activity` is monotonic seconds.
    """
    name = {"function": function}
    codes = [{**name, "revision": str(revision), "code": str(code)} for code in CODES]
    return [
        *(Series("sunup_requests_total", "counter", labels) for labels in codes),
        Series("sunup_records_total", "counter", name),
        *(Series("sunup_request_seconds", "histogram", {**name, "stage": s}, STAGE_BUCKETS) for s in STAGES),
        *_feature_series(name, features, views),
        *_cache_series(name, caches),
        *([Series(DROPPED, "counter", name)] if logs else []),
        *(Series(gauge, "gauge", name) for gauge in ("sunup_inflight", "sunup_connections", "sunup_last_activity")),
        Series("sunup_queue_depth", "gauge", name),
    ]


def stream_series(
    function: str,
    features: Sequence[str],
    views: Sequence[str],
    caches: Sequence[str] = (),
    *,
    logs: bool = False,
    aggregated: Sequence[str] = (),
) -> list[Series]:
    """The series of a stream worker's segment. Arguments as `worker_series`; `aggregated`: the views it aggregates."""
    name = {"function": function}
    events = [{**name, "view": view, "result": result} for view in aggregated for result in EVENTS]
    return [
        *(Series("sunup_stream_feature_events_total", "counter", labels) for labels in events),
        *(Series(_FRESH, "histogram", {**name, "view": view}, FRESH_BUCKETS) for view in aggregated),
        *(Series("sunup_stream_records_total", "counter", {**name, "result": result}) for result in RESULTS),
        *_feature_series(name, features, views),
        *_cache_series(name, caches),
        *([Series(DROPPED, "counter", name)] if logs else []),
        Series("sunup_queue_depth", "gauge", name),
    ]


def _feature_series(name: dict[str, str], features: Sequence[str], views: Sequence[str]) -> list[Series]:
    return [
        *(Series("sunup_features_defaulted_total", "counter", {**name, "feature": f}) for f in features),
        *(Series("sunup_feature_age_seconds", "histogram", {**name, "view": v}, AGE_BUCKETS) for v in views),
        *(Series(_STORE_FAILURES, "counter", {**name, "result": result}) for result in UNANSWERED if views),
    ]


def _cache_series(name: dict[str, str], caches: Sequence[str]) -> list[Series]:
    names = ("sunup_cache_lookups_total", "sunup_cache_hits_total")
    return [Series(series, "counter", {**name, "cache": cache}) for series in names for cache in caches]


class _FeatureMeter:
    """The pipeline's observer: counts defaulted features, the ages of the others, calls waiting for the model, and what
    was found in caches."""

    def __init__(self, segment: Segment) -> None:
        self._values = segment.values
        self._first: dict[tuple[str, str], int] = {}
        at = 0
        for series in segment.series:
            label = next((series.labels[k] for k in _LABELS if k in series.labels), "")
            self._first[series.name, label] = at
            if series.kind == "gauge":
                self._values[at] = 0.0  # a dead worker may have left its own
            at += series.slots
        first = self._first.items()
        self._defaulted = {label: at for (name, label), at in first if name == "sunup_features_defaulted_total"}
        self._ages = {label: at for (name, label), at in first if name == "sunup_feature_age_seconds"}
        self._queue = self._first["sunup_queue_depth", ""]

    def features(self, found: Features) -> None:
        """See observer.Observer: count values that took their default, and how old the others are."""
        values = self._values
        for rows in (found.defaulted, found.stale):
            for names in rows or ():
                for name in names:
                    values[self._defaulted[name]] += 1.0
        for view, age in found.ages.items():
            first = self._ages[view]
            values[first + bisect_left(AGE_BUCKETS, age)] += 1.0
            values[first + _AGE_SUM] += age

    def recalled(self, cache: str, looked: int, found: int) -> None:
        """See observer.Observer."""
        self._values[self._first["sunup_cache_lookups_total", cache]] += looked
        self._values[self._first["sunup_cache_hits_total", cache]] += found

    def queued(self, calls: int) -> None:
        """See observer.Observer."""
        self._values[self._queue] = calls

    def store_failed(self, refused: bool) -> None:
        """See Lookup.on_failure: count a lookup that went without its store."""
        self._values[self._first[_STORE_FAILURES, UNANSWERED[refused]]] += 1.0

    def dropped(self, rows: int) -> None:
        """So many rows did not get into the served-feature log."""
        self._values[self._first[DROPPED, ""]] += rows


class StreamMeter(_FeatureMeter):
    """Writes a stream worker's series."""

    def __init__(self, segment: Segment) -> None:
        super().__init__(segment)
        self._segment = segment
        self._name = {"function": segment.series[0].labels["function"]}

    def counted(self, scored: int, dead: int, ignored: int) -> None:
        """A batch is committed: so many records were scored, are dead letters, had no value."""
        for result, records in zip(RESULTS, (scored, dead, ignored), strict=True):
            self._values[self._first["sunup_stream_records_total", result]] += records

    def aggregated(self, view: str, **results: int) -> None:
        """So many events of a view that it aggregates came to what EVENTS names."""
        for result, events in results.items():
            slot = self._segment.slot("sunup_stream_feature_events_total", view=view, result=result, **self._name)
            self._values[slot] += events

    def fresh(self, view: str, seconds: float) -> None:
        """The oldest event of a batch was so old when the values that it changed were in the store."""
        self._segment.observe(self._segment.slot(_FRESH, view=view, **self._name), FRESH_BUCKETS, seconds)


class Meter(_FeatureMeter):
    """Writes a worker's series. Also the pipeline's observer. `inflight`: calls being answered now."""

    def __init__(self, segment: Segment) -> None:
        super().__init__(segment)
        self.folder = segment.path.parent  # where the other workers' segments are, too
        self.inflight = 0
        first = self._first
        self._codes = {code: first["sunup_requests_total", str(code)] for code in CODES}
        self._stages = [first["sunup_request_seconds", stage] for stage in STAGES]
        self._records = first["sunup_records_total", ""]
        self._inflight = first["sunup_inflight", ""]
        self._connections = first["sunup_connections", ""]
        self._activity = first["sunup_last_activity", ""]

    def __repr__(self) -> str:
        return f"Meter(inflight={self.inflight}, connections={int(self._values[self._connections])})"

    @property
    def last(self) -> float:
        """Monotonic seconds at which the last call began; 0.0: none has."""
        return float(self._values[self._activity])

    def begin(self, now: float) -> None:
        """A call is being answered from now on. `now`: monotonic seconds."""
        self.inflight += 1
        self._values[self._inflight] = self.inflight
        self._values[self._activity] = now

    def end(self) -> None:
        """It is answered, or given up."""
        self.inflight -= 1
        self._values[self._inflight] = self.inflight

    def answered(self, timings: Timings, total: float, records: int) -> None:
        """Count a call answered with 200. `total`: seconds from its last byte read to its answer made; `records`: how
        many of its records got a prediction."""
        values = self._values
        values[self._records] += records
        values[self._codes[200]] += 1.0
        spent = (timings.decode, timings.lookup, timings.batch, timings.execute, timings.encode, total)
        for first, seconds in zip(self._stages, spent, strict=True):
            if seconds:  # a stage that did not run is not one that took no time
                values[first + bisect_left(STAGE_BUCKETS, seconds)] += 1.0
                values[first + _SUM] += seconds

    def failed(self, code: int) -> None:
        """Count a call answered with an error status."""
        self._values[self._codes.get(code, self._codes[500])] += 1.0

    def connections(self, change: int) -> None:
        """A connection came (+1) or went (-1)."""
        self._values[self._connections] += change
