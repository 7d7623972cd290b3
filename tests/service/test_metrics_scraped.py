"""What a scrape of a real engine holds: every metric of HTTP calls by its name and labels, with the right counts.

Those of features and of streams are held to in tests/unit/test_metrics.py and tests/service/test_stream.py.
"""

import urllib.request
from collections import defaultdict
from contextlib import closing

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from tests.engine_fixture import Engine, until

from sunup.bundle.manifest import Scale

LABELS = {  # beside "function", which each has
    "sunup_requests_total": {"revision", "code"},
    "sunup_records_total": set(),
    "sunup_request_seconds": {"stage"},
    "sunup_queue_depth": set(),
    "sunup_workers": {"state"},
    "sunup_cold_starts_total": set(),
    "sunup_cold_start_seconds": {"stage"},
    "sunup_worker_memory_bytes": set(),
}


def scrape(engine: Engine) -> dict[str, list[Sample]]:
    """Samples by name; a histogram's by the name of the histogram, buckets left out."""
    with urllib.request.urlopen(f"http://127.0.0.1:{engine.metrics_port}/metrics") as response:
        text = response.read().decode()
    found: dict[str, list[Sample]] = defaultdict(list)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if not sample.name.endswith(("_bucket", "_sum", "_created")):
                found[sample.name.removesuffix("_count")].append(sample)
    return found


def test_every_metric_of_calls_is_there(engine: Engine) -> None:
    engine.serve("double", 2.0, scale=Scale(idle_s=4.0))  # memory is weighed every 2 s
    until(lambda: engine.at_zero("double"), "the function to go to zero")
    with closing(engine.open()) as connection:  # kept, so that one worker answers all
        assert [engine.call("double", x, connection).y for x in (1.0, 2.0)] == [2.0, 4.0]
        assert engine.ask("POST", "/functions/double", b"{", connection).status == 400
    until(lambda: set(LABELS) <= set(scrape(engine)), "every metric to have been written", 30.0)
    found = scrape(engine)
    for name, labels in LABELS.items():
        assert {frozenset(sample.labels) for sample in found[name]} == {frozenset({"function", *labels})}, name
    calls = {s.labels["code"]: s.value for s in found["sunup_requests_total"] if s.labels["revision"] == "1"}
    assert (calls["200"], calls["400"], calls["503"]) == (2, 1, 0)
    stages = {s.labels["stage"]: s.value for s in found["sunup_request_seconds"]}
    assert stages == {"decode": 2, "lookup": 0, "batch": 2, "execute": 2, "encode": 2, "total": 2}
    cold = {s.labels["stage"]: s.value for s in found["sunup_cold_start_seconds"]}
    assert cold == {"hold": 1, "fork": 1, "load": 1, "prove": 1}
    assert found["sunup_cold_starts_total"][0].value == 1
    assert {s.labels["state"] for s in found["sunup_workers"]} == {"starting", "ready", "draining"}
    assert found["sunup_queue_depth"][0].value == 0
