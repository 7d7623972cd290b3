"""Spans of real calls through a real engine, as a collector receives them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engine_fixture import Answer, Engine, left, until

from sunup.bundle.manifest import Scale

if not os.environ.get("CI"):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra otel is not installed")

from tests.collector import Collector, Span, collecting

SERVER, INTERNAL = 2, 1  # opentelemetry.proto.trace.v1.Span.SpanKind
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SHORT = Scale(idle_s=0.5)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        yield collector


@pytest.fixture
def traced(collector: Collector, tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path / "p")
    assert collector.url
    engine.up()
    yield engine
    engine.down()
    assert left(engine) == []


def of(collector: Collector, trace: str) -> tuple[Span, dict[str, Span]]:
    """The SERVER span of a trace, once it came, and its children by name."""
    until(lambda: any(s.trace == trace and s.kind == SERVER for s in collector.spans), "the span to be sent")
    spans = [s for s in collector.spans if s.trace == trace]
    (server,) = [s for s in spans if s.kind == SERVER]
    children = {s.name: s for s in spans if s is not server}
    assert all(s.parent == server.id and s.kind == INTERNAL for s in children.values())
    assert all(server.start <= s.start <= s.end <= server.end for s in children.values())
    return server, children


def traceparent(trace: str = TRACE, flags: str = "01") -> dict[str, str]:
    return {"traceparent": f"00-{trace}-{PARENT}-{flags}", "tracestate": "vendor=value"}


def sampled(answer: Answer) -> bool:
    """What the answer's traceparent says: the last bit of its flags."""
    return bool(int(answer.headers["traceparent"][-2:], 16) & 1)


def test_a_call_continues_its_callers_trace(traced: Engine, collector: Collector) -> None:
    traced.serve("double", 2.0)
    headers = {**traceparent(), "x-request-id": "checkout-42"}
    answer = traced.ask("POST", "/functions/double?secret=1", b'{"x": 3}', headers=headers)
    assert answer.y == 6.0
    server, children = of(collector, TRACE)
    assert answer.headers["traceparent"] == f"00-{TRACE}-{server.id}-01"
    assert (server.name, server.parent, server.state) == ("POST /functions/double", PARENT, "vendor=value")
    assert server.attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "url.path": "/functions/double",
        "url.scheme": "http",
        "sunup.function": "double",
        "sunup.revision": 1,
        "sunup.cold": False,
        "sunup.records": 1,
        "sunup.request_id": "checkout-42",
    }
    assert server.resource["service.name"] == "sunup"
    assert set(children) == {"decode", "batch", "execute", "encode"}
    assert children["decode"].start == server.start
    assert children["encode"].end == server.end
    assert not server.failed


def test_a_cold_start_is_in_the_trace_of_the_call_that_waited(traced: Engine, collector: Collector) -> None:
    traced.serve("double", 2.0, scale=SHORT)
    until(lambda: traced.at_zero("double"), "the function to go to zero")
    assert sampled(traced.call("double", 1.0))  # in a trace of its own
    answer = traced.ask("POST", "/functions/double", b'{"x": 3}', headers=traceparent())
    assert answer.y == 6.0
    warm, children = of(collector, TRACE)
    assert not warm.attributes["sunup.cold"]
    assert "fork" not in children
    (cold,) = [s for s in collector.spans if s.attributes.get("sunup.cold")]
    cold, children = of(collector, cold.trace)
    assert set(children) >= {"hold", "fork", "load", "decode", "execute", "encode"}
    order = [children[name] for name in ("hold", "fork", "load", "decode", "execute", "encode")]
    assert [s.start for s in order] == sorted(s.start for s in order)
    assert order[0].start == cold.start


def test_refusals_and_failures_have_spans(traced: Engine, collector: Collector) -> None:
    traced.serve("double", 2.0)
    assert traced.ask("POST", "/functions/double", b'{"x": "3"}', headers=traceparent()).status == 400
    server, children = of(collector, TRACE)
    assert server.attributes["http.response.status_code"] == 400
    assert server.attributes["error.type"] == "wrong_type"
    assert not server.failed  # the caller's, as the conventions say
    assert children == {}


def test_what_the_caller_did_not_sample_is_not_sent(traced: Engine, collector: Collector) -> None:
    traced.serve("double", 2.0)
    answer = traced.ask("POST", "/functions/double", b'{"x": 3}', headers=traceparent(flags="00"))
    assert answer.headers["traceparent"].endswith("-00")
    assert answer.headers["traceparent"].startswith(f"00-{TRACE}-")
    other = TRACE[::-1]
    assert traced.ask("POST", "/functions/double", b'{"x": 3}', headers=traceparent(other)).status == 200
    of(collector, other)  # came after it, so the first one would be here
    assert not [s for s in collector.spans if s.trace == TRACE]


def test_a_worker_that_ends_sends_what_it_has(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    engine = Engine(tmp_path / "p")
    engine.up()
    engine.serve("double", 2.0)
    assert engine.ask("POST", "/functions/double", b'{"x": 3}', headers=traceparent()).status == 200
    assert not sampled(engine.call("double", 1.0))
    engine.down()
    assert {s.trace for s in collector.spans} == {TRACE}
    assert {s.resource["service.name"] for s in collector.spans} == {"shop"}


def test_a_collector_that_is_away_changes_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    engine = Engine(tmp_path / "p")
    engine.up()
    engine.serve("double", 2.0)
    assert [engine.call("double", x).y for x in (1.0, 2.0)] == [2.0, 4.0]
    engine.down()
    assert left(engine) == []


def test_without_the_package_a_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of another make stands before the real one, as if that were not there."""
    (tmp_path / "shadow" / "opentelemetry").mkdir(parents=True)
    (tmp_path / "shadow" / "opentelemetry" / "__init__.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'shadow'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    engine = Engine(tmp_path / "p")
    engine.up()
    engine.serve("double", 2.0)
    engine.serve("treble", 3.0)
    assert engine.call("double", 2.0).y == 4.0
    said = (engine.project.logs / "nursery.log").read_text()
    assert said.count("pip install 'sunup[otel]'") == 1
    engine.down()
