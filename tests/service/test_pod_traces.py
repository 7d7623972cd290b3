"""Spans of calls to a pod, as a collector receives them."""

import os
from pathlib import Path

import pytest
from tests.engine_fixture import Engine
from tests.pod_fixture import Start, pods

if not os.environ.get("CI"):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra otel is not installed")

from tests.collector import collecting
from tests.service.test_traces import TRACE, of, traceparent

__all__ = ["pods"]


def test_what_was_not_sent_is_sent_when_a_pod_ends(tmp_path: Path, pods: Start) -> None:
    engine = Engine(tmp_path / "p")
    with collecting() as collector:
        more = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "60000"}
        pod = pods(engine.project.bundles / engine.bundle("double", 2.0), **more).wait_ready()
        answer = pod.ask("POST", "/functions/double", b'{"x": 3}', traceparent())
        assert answer.y == 6.0
        assert collector.spans == []
        assert pod.stop() == 0
        server, children = of(collector, TRACE)
        assert answer.headers["traceparent"] == f"00-{TRACE}-{server.id}-01"
        assert {"decode", "execute", "encode"} <= set(children)
        if "import" in children:  # on a busy machine the call may come too late to have waited
            assert {"process", "load", "prove"} <= set(children), "it began with the start of the pod"
            assert children["import"].end <= children["load"].start <= children["decode"].start
