"""A pod answers as the local engine does: the same bundle, byte for byte, in every protocol and on every page."""

import gzip
import json
import struct
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.engine_fixture import Answer, Engine, until
from tests.pod_fixture import Pod, Start, line, pods
from tests.ports import free_port

from sunup.access import keys
from sunup.limits import POD_WOKEN_SECONDS

__all__ = ["pods"]

CALLS = {
    "native": ("POST", "/functions/double", b'{"x": 3.5}'),
    "native, many": ("POST", "/functions/double", b'[{"x": 1}, {"x": -2}]'),
    "native, one of them wrong": ("POST", "/functions/double", b'[{"x": 1}, {"x": "two"}]'),
    "native, wrong": ("POST", "/functions/double", b'{"x": "two"}'),
    "native, no JSON": ("POST", "/functions/double", b"{"),
    "oip": (
        "POST",
        "/v2/models/double/infer",
        b'{"inputs": [{"name": "x", "shape": [2, 1], "datatype": "FP64", "data": [1, 2]}]}',
    ),
    "oip, of a version": (
        "POST",
        "/v2/models/double/versions/1/infer",
        b'{"id": "7", "inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [4]}]}',
    ),
    "oip, wrong": ("POST", "/v2/models/double/infer", b'{"inputs": []}'),
    "kserve": ("POST", "/v1/models/double:predict", b'{"instances": [{"x": 1}, {"x": 2}]}'),
    "kserve, escaped": ("POST", "/v1/models/double%3Apredict", b'{"instances": [{"x": 1}]}'),
    "mlflow": ("POST", "/functions/double/invocations", b'{"dataframe_split": {"columns": ["x"], "data": [[5]]}}'),
    "mlflow, wrong": ("POST", "/functions/double/invocations", b'{"rows": []}'),
}
PAGES = [
    *(("GET", page) for page in ("/", "/functions", "/functions/double", "/functions/double/ready")),
    *(("GET", page) for page in ("/functions/double/ping", "/functions/double/version", "/openapi.json", "/docs")),
    *(("GET", page) for page in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models", "/v2/models/double")),
    *(("GET", page) for page in ("/v2/models/double/ready", "/v2/models/double/versions/1", "/v1/models/double")),
    *(("GET", page) for page in ("/v2/models/double/versions/2", "/v2/models/nothing", "/v1/models", "/nothing")),
    ("POST", "/v2/repository/index"),
    ("POST", "/functions/nothing"),
    ("POST", "/v2/models/nothing/infer"),
    ("POST", "/v1/models/nothing:predict"),
    ("DELETE", "/functions/double"),
    ("GET", "/functions/nothing"),
    ("HEAD", "/functions"),
    ("GET", "/docs/start.js"),
]
OF_ONE_CALL = {"server-timing"}
NAMED = {"x-request-id": "r1"}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = Engine(tmp_path_factory.mktemp("local") / "p")
    engine.up()
    engine.serve("double", 2.0)
    yield engine
    engine.down()


@pytest.fixture(scope="module")
def bundle(engine: Engine) -> Path:
    (digest,) = [path for path in engine.project.bundles.iterdir() if len(path.name) == 64]
    return digest


@pytest.fixture(scope="module")
def pod(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    pod = Pod(tmp_path_factory.mktemp("pod"), {"SUNUP_BUNDLE": str(bundle), "SUNUP_DIGEST": bundle.name})
    yield pod.wait_ready()
    assert pod.stop() == 0


def same(one: Answer, other: Answer) -> None:
    kept = [{name: value for name, value in each.headers.items() if name not in OF_ONE_CALL} for each in (one, other)]
    assert (one.status, kept[0], one.body) == (other.status, kept[1], other.body)


@pytest.mark.parametrize("case", CALLS)
def test_calls_are_answered_as_by_the_local_engine(engine: Engine, pod: Pod, case: str) -> None:
    method, target, body = CALLS[case]
    answer = pod.ask(method, target, body, NAMED)
    same(answer, engine.ask(method, target, body, headers=NAMED))
    assert answer.status == (400 if "wrong" in case.split(", ")[1:] or "no JSON" in case else 200)


def test_binary_tensors_and_gzip(engine: Engine, pod: Pod) -> None:
    head = {"inputs": [{"name": "x", "shape": [2, 1], "datatype": "FP64", "parameters": {"binary_data_size": 16}}]}
    said = json.dumps({**head, "parameters": {"binary_data_output": True}}).encode()
    body, sizes = said + struct.pack("<2d", 1.5, 2.5), {"inference-header-content-length": str(len(said))}
    kinds = {**NAMED, **sizes, "content-type": "application/octet-stream"}
    answer = pod.ask("POST", "/v2/models/double/infer", body, kinds)
    assert answer.body.endswith(struct.pack("<2d", 3.0, 5.0))
    same(answer, engine.ask("POST", "/v2/models/double/infer", body, headers=kinds))
    packed = gzip.compress(b'{"x": 3.5}')
    same(
        pod.ask("POST", "/functions/double", packed, {**NAMED, "content-encoding": "gzip"}),
        engine.ask("POST", "/functions/double", packed, headers={**NAMED, "content-encoding": "gzip"}),
    )


@pytest.mark.parametrize(("method", "target"), PAGES)
def test_pages_are_what_the_front_says(engine: Engine, pod: Pod, method: str, target: str) -> None:
    assert engine.call("double", 1.0).y == 2.0  # warm: the front says "ready", too
    until(lambda: engine.ask("GET", "/functions/double/ready").json["state"] == "ready", "the front to know it")
    same(pod.ask(method, target), engine.ask(method, target))


def test_the_whole_server_is_asked(pod: Pod) -> None:
    assert pod.ask("OPTIONS", "*").headers["allow"] == "GET, HEAD, OPTIONS, POST"


def test_statistics_are_those_of_this_pod(pod: Pod) -> None:
    before = pod.ask("GET", "/v2/models/double/stats").json["model_stats"][0]["inference_count"]
    pod.ask("POST", "/functions/double", b'[{"x": 1}, {"x": 2}]')
    after = pod.ask("GET", "/v2/models/stats").json["model_stats"][0]
    assert (after["inference_count"], after["version"]) == (before + 2, "1")


def test_one_connection_for_calls_and_pages(pod: Pod) -> None:
    with closing(pod.open()) as connection:
        for _ in range(3):
            for method, target, body, status in [
                ("POST", "/functions/double", b'{"x": 1}', 200),
                ("GET", "/v2/health/ready", b"", 200),
                ("POST", "/functions/nothing", b'{"x": 1}', 404),
                ("GET", "/functions", b"", 200),
            ]:
                connection.request(method, target, body or None, {"content-type": "application/json"})
                response = connection.getresponse()
                assert (response.status, response.getheader("connection")) == (status, None)
                response.read()


def test_any_name_is_its_host(pod: Pod) -> None:
    host = {"host": "fraud-00001-private.default"}
    assert pod.ask("POST", "/functions/double", b'{"x": 1}', host).status == 200
    assert pod.probe("/metrics").status == 200


def test_metrics_and_probes(pod: Pod) -> None:
    pod.ask("POST", "/functions/double", b'{"x": 1}')
    answer = pod.probe("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(answer.body.decode())}
    codes = {sample.labels["code"]: sample for sample in families["sunup_requests"].samples}
    assert codes["200"].value >= 1
    assert codes["200"].labels == {"function": "double", "revision": "1", "code": "200"}
    assert {"sunup_request_seconds", "sunup_records", "sunup_queue_depth"} <= set(families)
    assert (pod.probe("/ready").json, pod.probe("/live").json) == ({"ready": True}, {"live": True})
    assert pod.probe("/").status == 404


def test_the_ready_line_says_what_the_start_took(pod: Pod) -> None:
    ready = line(pod, "ready")
    assert (ready["function"], ready["revision"], ready["level"]) == ("double", 1, "info")
    stages = ready["ms"]
    assert list(stages) == ["process", "import", "load", "prove", "listen", "total"]
    assert all(took > 0 for took in stages.values())
    parts = sum(took for stage, took in stages.items() if stage != "total")
    assert parts <= stages["total"] + 10  # ms; the kernel counts starts in steps of 10


def test_the_first_call_after_a_start_says_what_it_waited_for(bundle: Path, pods: Start) -> None:
    for _ in range(5):  # on a busy machine the call may come too late to have waited
        pod = pods(bundle, K_REVISION="double-00012").wait_ready()
        first, second = (pod.ask("POST", "/functions/double", b'{"x": 1}') for _ in range(2))
        ready = datetime.fromisoformat(line(pod, "ready")["time"])
        if (datetime.now(UTC) - ready).total_seconds() < POD_WOKEN_SECONDS:
            break
    assert {"process", "import", "load", "prove"} <= {part.split(";")[0] for part in _timing(first)}
    assert "import" not in {part.split(";")[0] for part in _timing(second)}
    assert first.json["revision"] == 12


def _timing(answer: Answer) -> list[str]:
    return answer.headers["server-timing"].split(", ")


def test_keys_are_wanted_and_read_again(bundle: Path, pods: Start, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    (web, web_key), (other, other_key) = (keys.make(name="", functions=[name]) for name in ("double", "other"))
    keys.add(path, web_key)
    keys.add(path, other_key)
    pod = pods(bundle, SUNUP_API_KEYS=str(path)).wait_ready()
    call = ("POST", "/functions/double", b'{"x": 1}')
    assert pod.ask(*call).status == 401
    assert pod.ask(*call, {"x-api-key": other}).status == 403
    assert pod.ask(*call, {"x-api-key": web}).status == 200
    assert pod.ask("GET", "/v2/health/ready").status == 200
    assert pod.ask("GET", "/functions", headers={"x-api-key": other}).json == {"functions": []}
    assert len(pod.ask("GET", "/functions", headers={"x-api-key": web}).json["functions"]) == 1
    keys.revoke(path, web_key.id)
    until(lambda: pod.ask(*call, {"x-api-key": web}).status == 401, "the key to be forgotten")


def test_ports_are_given(bundle: Path, pods: Start) -> None:
    port = free_port()
    pod = pods(bundle, PORT=str(port)).wait_ready()
    pod.port = port
    assert pod.ask("POST", "/functions/double", b'{"x": 1}').y == 2.0
