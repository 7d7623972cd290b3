"""Counters of several processes as Prometheus reads them, and logs as JSON lines."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sunup.errors import MethodNotAllowed, UnknownFunction
from sunup.link.counters import Segment, Series
from sunup.serve.http.message import Request
from sunup.serve.telemetry import log
from sunup.serve.telemetry.meter import Meter, worker_series
from sunup.serve.telemetry.metrics import MetricsHandler, text
from sunup.serve.telemetry.statistics import model_statistics
from sunup.types import Features, Timings


def meter(path: Path, revision: int = 1) -> Meter:
    return Meter(Segment.create(path, worker_series("fraud", revision, ("count", "mean"), ("card",))))


def samples(folder: Path) -> dict[tuple[str, str], float]:
    """(sample name, its last distinguishing label) -> value, of everything exposed."""
    found = {}
    for family in text_string_to_metric_families(text(folder).decode()):
        for sample in family.samples:
            labels = {**sample.labels}
            labels.pop("function", None)
            found[sample.name, ",".join(f"{k}={labels[k]}" for k in sorted(labels))] = sample.value
    return found


def test_workers_are_summed(tmp_path: Path) -> None:
    for name, calls in (("a", 2), ("b", 3)):
        one = meter(tmp_path / f"{name}.seg")
        for _ in range(calls):
            one.answered(Timings(decode=2e-5, execute=3e-4, encode=1e-5), 4e-4, 2)
        one.failed(503)
    found = samples(tmp_path)
    assert found["sunup_requests_total", "code=200,revision=1"] == 5
    assert found["sunup_requests_total", "code=503,revision=1"] == 2
    assert found["sunup_request_seconds_bucket", "le=2.5e-05,stage=decode"] == 5
    assert found["sunup_request_seconds_bucket", "le=0.00025,stage=execute"] == 0
    assert found["sunup_request_seconds_bucket", "le=0.0005,stage=execute"] == 5
    assert found["sunup_request_seconds_bucket", "le=+Inf,stage=total"] == 5
    assert found["sunup_request_seconds_count", "stage=total"] == 5
    assert found["sunup_request_seconds_sum", "stage=total"] == pytest.approx(2e-3)
    assert found["sunup_request_seconds_count", "stage=lookup"] == 0  # a stage that did not run


def test_revisions_stay_apart(tmp_path: Path) -> None:
    for revision in (1, 2):
        meter(tmp_path / f"{revision}.seg", revision).failed(400)
    found = samples(tmp_path)
    assert [found["sunup_requests_total", f"code=400,revision={r}"] for r in (1, 2)] == [1, 1]


def test_features_are_counted(tmp_path: Path) -> None:
    one = meter(tmp_path / "a.seg")
    one.features(Features([()], defaulted=[("count",), ("count", "mean")], stale=[(), ("mean",)], ages={"card": 42.0}))
    one.features(Features([()]))
    found = samples(tmp_path)
    assert found["sunup_features_defaulted_total", "feature=count"] == 2
    assert found["sunup_features_defaulted_total", "feature=mean"] == 2
    assert found["sunup_feature_age_seconds_bucket", "le=60.0,view=card"] == 1
    assert found["sunup_feature_age_seconds_sum", "view=card"] == 42


def test_caches_are_counted_by_name(tmp_path: Path) -> None:
    caches = ("features:card", "identical", "similar")
    for name in ("a", "b"):
        one = Meter(Segment.create(tmp_path / f"{name}.seg", worker_series("fraud", 1, (), (), caches)))
        one.recalled("identical", 5, 2)
        one.recalled("similar", 3, 1)
    one.recalled("features:card", 4, 4)
    found = samples(tmp_path)
    assert [found["sunup_cache_lookups_total", f"cache={cache}"] for cache in caches] == [4, 10, 6]
    assert [found["sunup_cache_hits_total", f"cache={cache}"] for cache in caches] == [4, 4, 2]


def test_triton_statistics_count_rows_by_whether_they_ran(tmp_path: Path) -> None:
    one = Meter(Segment.create(tmp_path / "fraud.0.seg", worker_series("fraud", 1, (), (), ("identical", "similar"))))
    one.recalled("identical", 5, 2)
    one.recalled("similar", 3, 1)
    counts = model_statistics(tmp_path, function="fraud", version="3", revision=1)["inference_stats"]
    assert (counts["cache_hit"]["count"], counts["cache_miss"]["count"]) == (3, 2)
    meter(tmp_path / "fraud.0.seg")
    counts = model_statistics(tmp_path, function="fraud", version="3", revision=1)["inference_stats"]
    assert (counts["cache_hit"]["count"], counts["cache_miss"]["count"]) == (0, 0)


def test_a_function_without_a_cache_has_no_series_of_one(tmp_path: Path) -> None:
    meter(tmp_path / "a.seg")
    assert "sunup_cache" not in text(tmp_path).decode()


def test_what_the_scaler_reads_is_not_exposed(tmp_path: Path) -> None:
    one = meter(tmp_path / "a.seg")
    one.begin(1.0)
    one.connections(1)
    one.queued(4)
    exposed = text(tmp_path).decode()
    for name in ("sunup_inflight", "sunup_connections", "sunup_last_activity"):
        assert name not in exposed
    assert samples(tmp_path)["sunup_queue_depth", ""] == 4


def test_a_worker_that_takes_over_a_slot_keeps_counters_and_resets_gauges(tmp_path: Path) -> None:
    dead = meter(tmp_path / "a.seg")
    dead.begin(1.0)
    dead.queued(4)
    dead.failed(500)
    meter(tmp_path / "a.seg")
    found = samples(tmp_path)
    assert found["sunup_requests_total", "code=500,revision=1"] == 1
    assert found["sunup_queue_depth", ""] == 0


def test_other_processes_series_are_exposed_too(tmp_path: Path) -> None:
    labels = {"function": "fraud", "state": "ready"}
    segment = Segment.create(tmp_path / "engine.seg", [Series("sunup_workers", "gauge", labels)])
    segment.values[0] = 3.0
    assert samples(tmp_path)["sunup_workers", "state=ready"] == 3


def test_an_empty_folder_is_no_metrics(tmp_path: Path) -> None:
    assert text(tmp_path) == b""


def test_the_handler_answers_metrics_only(tmp_path: Path) -> None:
    handler = MetricsHandler(tmp_path)
    meter(tmp_path / "a.seg").failed(400)
    response = handler.handle(Request(b"GET", b"/metrics?x=1", [], b""))
    assert (response.status, response.body) == (200, text(tmp_path))
    with pytest.raises(UnknownFunction):
        handler.handle(Request(b"GET", b"/", [], b""))
    with pytest.raises(MethodNotAllowed) as caught:
        handler.handle(Request(b"POST", b"/metrics", [], b""))
    assert handler.refuse(caught.value).status == 405


# --- Logs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("restored")
def test_logs_are_json_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(log.LEVEL, "warning")
    path = tmp_path / "fraud.log"
    log.configure(path, function="fraud", revision=7, worker=None)
    logger = logging.getLogger("sunup.test")
    logger.info("not shown")
    logger.warning("slow: %d ms\nnext", 20, extra={"id": "checkout-42", "path": Path("/x")})
    try:
        int("x")
    except ValueError:
        logger.exception("failed")
    first, second = map(json.loads, path.read_text().splitlines())
    assert first["message"] == "slow: 20 ms\nnext"
    assert (first["level"], first["logger"], first["id"], first["path"]) == (
        "warning",
        "sunup.test",
        "checkout-42",
        "/x",
    )
    assert (first["function"], first["revision"]) == ("fraud", 7)
    assert "worker" not in first
    assert first["time"].endswith("+00:00")
    assert "ValueError: invalid literal" in second["exception"]


@pytest.mark.usefixtures("restored")
def test_a_rotated_log_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "fraud.log"
    log.configure(path)
    logging.getLogger("sunup.test").warning("one")
    path.rename(tmp_path / "fraud.log.1")
    logging.getLogger("sunup.test").warning("two")
    assert json.loads(path.read_text())["message"] == "two"
