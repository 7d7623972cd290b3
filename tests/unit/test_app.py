"""What is said about functions, by a worker of one and by the front of all; what the front owns and hears."""

import asyncio
import re
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.requests import Request as Asked
from tests.unit.working import RECORD, Worker, ask

from sunup import __version__
from sunup.link.route import Route, route
from sunup.serve.front import FrontHandler
from sunup.serve.http.message import Handler
from sunup.serve.pages.docs import Docs


@pytest.fixture
def front(bundle: Path, tmp_path: Path) -> FrontHandler:
    front = FrontHandler(bundle.parent, tmp_path)
    entry = {"function": "score", "revision": 7, "digest": bundle.name, "state": "cold"}
    front.update([entry, {**entry, "function": "broken", "state": "failed"}])
    return front


@pytest.fixture(params=["worker", "front"])
def either(request: pytest.FixtureRequest) -> Handler:
    if request.param == "worker":
        handler: Handler = request.getfixturevalue("worker").handler
        return handler
    return request.getfixturevalue("front")  # type: ignore[no-any-return]


def test_a_function_describes_itself(either: Handler) -> None:
    status, said, _ = ask(either, "GET", "/functions/score")
    assert (status, said["function"], said["revision"], said["model"]) == (200, "score", 7, "score/3")
    assert said["request"]["required"] == ["f0", "f1", "f2"]
    assert said["request"]["properties"]["f0"] == {"type": "number", "format": "double"}
    assert said["response"]["properties"]["decision"] == {"type": "string"}
    assert said["examples"] == [{"f0": 0.0, "f1": 0.0, "f2": 0.0}]


def test_readiness(either: Handler) -> None:
    status, said, _ = ask(either, "GET", "/functions/score/ready")
    assert (status, said["ready"]) == (200, True)
    assert said["state"] in ("ready", "cold")
    assert ask(either, "GET", "/v2/models/score/ready")[:2] == (200, {"name": "score", "ready": True})
    assert ask(either, "GET", "/v1/models/score")[:2] == (200, {"name": "score", "ready": True})


def test_metadata(either: Handler) -> None:
    for target in ("/v2/models/score", "/v2/models/score/versions/3"):
        status, said, _ = ask(either, "GET", target)
        assert (status, said["versions"], said["platform"]) == (200, ["3"], "onnx_onnxv1")
        assert said["inputs"][0] == {"name": "f0", "datatype": "FP64", "shape": [-1]}
        assert said["outputs"][1] == {"name": "decision", "datatype": "BYTES", "shape": [-1]}


def test_statistics_are_what_the_workers_counted(worker: Worker, front: FrontHandler) -> None:
    def stats(handler: Handler, target: str) -> Any:
        status, said, _ = ask(handler, "GET", target)
        assert status == 200
        return next(one for one in said["model_stats"] if one["inference_count"] or len(said["model_stats"]) == 1)

    before = stats(front, "/v2/models/score/stats")
    assert (before["inference_count"], before["last_inference"]) == (0, 0)
    since = time.time()
    for body in (RECORD, b"[" + RECORD + b", " + RECORD + b", 5]", b"{"):
        ask(worker.handler, "POST", "/functions/score", body)
    targets = ["/v2/models/score/stats", "/v2/models/score/versions/3/stats", "/v2/models/stats"]
    for handler, target in [(h, t) for h in (worker.handler, front) for t in targets]:
        said = stats(handler, target)
        assert (said["name"], said["version"], said["inference_count"], said["execution_count"]) == ("score", "3", 3, 2)
        assert abs(said["last_inference"] / 1000 - since) < 60
        spent = said["inference_stats"]
        assert (spent["success"]["count"], spent["fail"]["count"]) == (2, 1)
        parts = [spent[part]["ns"] for part in ("queue", "compute_input", "compute_infer", "compute_output")]
        assert 0 < sum(parts) <= spent["success"]["ns"]
    assert ask(front, "GET", "/v2/models/score/versions/4/stats")[0] == 404


def test_mlflows_scoring_server(either: Handler) -> None:
    for page in ("ping", "health"):
        assert ask(either, "GET", f"/functions/score/{page}")[:2] == (200, b"\n")
    status, text, headers = ask(either, "GET", "/functions/score/version")
    assert (status, text, headers[b"content-type"]) == (200, __version__.encode(), b"text/plain; charset=utf-8")
    assert ask(either, "GET", "/functions/scor/ping")[0] == 404


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/v2/models/score/versions/2", 404),
        ("GET", "/v2/models/score/versions/2/ready", 404),
        ("POST", "/v2/models/score/versions/2/infer", 404),
        ("GET", "/v2/models/score/infer", 405),
        ("GET", "/functions/score/nothing", 404),
        ("DELETE", "/functions/score", 405),
        ("PUT", "/functions/score", 405),
        ("POST", "/functions/score/ready", 405),
        ("GET", "/v1/models/score:predict", 405),
        ("POST", "/v1/models/score", 405),
        ("POST", "/v1/models/score:explain", 405),
    ],
)
def test_routes_that_are_not(either: Handler, method: str, target: str, status: int) -> None:
    found, said, headers = ask(either, method, target)
    assert found == status
    assert isinstance(said["error"], str if target.startswith("/v") else dict)
    if status == 405:
        assert headers[b"allow"]


# --- The front --------------------------------------------------------------------------------------------------------


def test_the_front_lists_what_there_is(front: FrontHandler) -> None:
    listed = ask(front, "GET", "/functions")[1]["functions"]
    assert [(one["name"], one["state"], one["model"]) for one in listed] == [
        ("broken", "failed", "score/3"),
        ("score", "cold", "score/3"),
    ]
    assert ask(front, "GET", "/v2/models")[1] == {"models": ["broken", "score"]}
    assert ask(front, "GET", "/v1/models")[1] == {"models": ["broken", "score"]}
    index = ask(front, "POST", "/v2/repository/index")[1]
    assert [(one["name"], one["version"], one["state"]) for one in index] == [
        ("broken", "3", "UNAVAILABLE"),
        ("score", "3", "READY"),
    ]


def test_the_front_is_a_server(front: FrontHandler) -> None:
    assert ask(front, "GET", "/v2/health/live")[:2] == (200, {"live": True})
    assert ask(front, "GET", "/v2/health/ready")[:2] == (200, {"ready": True})
    assert ask(front, "GET", "/v2")[1]["name"] == "sunup"
    status, text, headers = ask(front, "GET", "/")
    assert (status, headers[b"content-type"]) == (200, b"text/plain; charset=utf-8")
    assert b"/functions" in text


def test_a_failed_function_is_not_ready(front: FrontHandler) -> None:
    assert ask(front, "GET", "/functions/broken/ready")[0] == 503
    assert ask(front, "GET", "/v1/models/broken")[0] == 503
    assert ask(front, "GET", "/functions/broken/ping")[0] == 503


@pytest.mark.parametrize("target", ["/functions/scor", "/v2/models/scor/infer", "/v1/models/scor:predict"])
def test_an_unknown_name_is_404_with_the_names_there_are(front: FrontHandler, target: str) -> None:
    status, said, _ = ask(front, "POST", target, RECORD)
    assert status == 404
    assert "broken, score" in str(said["error"])


def test_openapi(front: FrontHandler) -> None:
    said = ask(front, "GET", "/openapi.json")[1]
    assert said["openapi"] == "3.1.0"
    named = set(re.findall(r"#/components/schemas/([\w.]+)", msgspec.json.encode(said).decode()))
    assert named <= set(said["components"]["schemas"])


def test_what_openapi_says_can_be_read_is_there(front: FrontHandler) -> None:
    for path, methods in ask(front, "GET", "/openapi.json")[1]["paths"].items():
        if "get" in methods and "broken" not in path:
            assert ask(front, "GET", path)[0] == 200, path


def test_every_example_of_openapi_can_be_sent_as_it_is(worker: Worker) -> None:
    sent = set()
    for path, methods in ask(worker.handler, "GET", "/openapi.json")[1]["paths"].items():
        for kind, media in methods.get("post", {}).get("requestBody", {}).get("content", {}).items():
            for name, example in media["examples"].items():
                value = example["value"]
                body = value.encode() if isinstance(value, str) else msgspec.json.encode(value)
                status, said, _ = ask(worker.handler, "POST", path, body, (b"content-type", kind.encode()))
                assert status == 200, (path, name, said)
                sent.add((path, kind, name))
    assert len({path for path, _, _ in sent}) == 5
    assert ("/functions/score/invocations", "text/csv", "one") in sent


def test_the_page_to_try_calls_runs_no_script_but_ours(front: FrontHandler) -> None:
    status, page, headers = ask(front, "GET", "/docs")
    assert (status, headers[b"content-type"]) == (200, b"text/html; charset=utf-8")
    policy = dict(rule.split(b" ", 1) for rule in headers[b"content-security-policy"].split(b"; "))
    assert (policy[b"default-src"], policy[b"script-src"], policy[b"connect-src"]) == (b"'none'", b"'self'", b"'self'")
    for path in re.findall(rb'(?:src|href)="([^"]+)"', page):
        status, _, headers = ask(front, "GET", path.decode())
        assert status == 200
        assert path == b"/openapi.json" or headers[b"content-security-policy"].startswith(b"default-src 'none'")
    for path in ("/docs/nothing", "/docs/..%2F__init__.py", "/docs/LICENSE"):
        assert ask(front, "GET", path)[0] == 404


def test_the_page_without_swagger_says_so() -> None:
    page = asyncio.run(Docs(None).page(Asked({"type": "http", "headers": []})))
    assert b"flask-swagger-ui" in page.body


def test_the_front_leaves_predictions_to_workers(front: FrontHandler) -> None:
    assert not front.owns(route(b"POST", b"/functions/score"))
    assert not front.owns(route(b"POST", b"/v2/models/score/infer"))
    assert front.owns(route(b"POST", b"/functions/unknown"))
    assert front.owns(route(b"GET", b"/functions/score"))
    assert front.owns(Route(None, False))


def test_the_front_hears_of_changes(front: FrontHandler, bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    entry = {"op": "function", "function": "broken", "revision": 8, "digest": bundle.name, "state": "ready"}
    front.heard(entry)
    assert ask(front, "GET", "/functions/broken")[1]["revision"] == 8
    front.heard({"op": "forget", "function": "broken"})
    assert ask(front, "GET", "/functions/broken")[0] == 404
    front.heard({**entry, "digest": "0" * 64})
    assert ask(front, "GET", "/functions/broken")[0] == 404
    assert "broken" in caplog.text


def test_the_front_reads_a_manifest_when_a_page_is_about_it(bundle: Path, tmp_path: Path) -> None:
    store = tmp_path / "bundles"
    shutil.copytree(bundle, store / bundle.name)
    front = FrontHandler(store, tmp_path)
    front.heard({"op": "function", "function": "score", "revision": 1, "digest": bundle.name, "state": "cold"})
    shutil.rmtree(store / bundle.name)
    front.heard({"op": "function", "function": "score", "revision": 1, "digest": bundle.name, "state": "ready"})
    listed = ask(front, "GET", "/functions")[1]["functions"]
    assert [(one["name"], one["model"], one["state"]) for one in listed] == [("score", "score/3", "ready")]
    assert ask(front, "GET", "/functions/score/ready")[0] == 200
    status, said, _ = ask(front, "GET", "/functions/score")
    assert (status, said["error"]["code"]) == (503, "unavailable")
