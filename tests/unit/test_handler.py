# Longer than 300 lines because each protocol has its cases beside those of all.
"""A worker's handler over a real bundle: predictions, headers, refusals, what is counted."""

import asyncio
import gzip
import inspect
import re
import tracemalloc
from pathlib import Path

import msgspec
import pytest
from tests.small_bundle import logistic, make_bundle
from tests.unit.working import JSON_TYPE, RECORD, ROWS, SCORE, Worker, ask, finish

from sunup.bundle.manifest import Limits, Scale
from sunup.errors import BodyTimeout
from sunup.limits import GZIP_REPLY_BYTES_MIN
from sunup.link.route import route
from sunup.serve.http.message import Request, Response


def test_one_record(worker: Worker) -> None:
    status, said, headers = ask(worker.handler, "POST", "/functions/score", RECORD, JSON_TYPE)
    assert status == 200
    assert (said["function"], said["revision"], said["model"]) == ("score", 7, "score/3")
    assert said["predictions"] == [{"score": pytest.approx(SCORE), "decision": "block"}]
    assert said["id"] == headers[b"x-request-id"].decode()
    assert worker.counted(200) == 1


def test_an_inline_call_is_answered_at_once(worker: Worker) -> None:
    request = Request(b"POST", b"/functions/score?x=1", [], RECORD)
    assert isinstance(worker.handler.handle(request), Response)


def test_several_records_of_which_one_is_bad(worker: Worker) -> None:
    body = b"[" + RECORD + b', {"f0": "x", "f1": 0, "f2": 0}, {"f0": 0, "f1": 0, "f2": 0}]'
    status, said, _ = ask(worker.handler, "POST", "/functions/score", body)
    assert status == 200
    assert [p.get("score") for p in said["predictions"]] == [pytest.approx(SCORE), None, pytest.approx(0.5)]
    assert said["predictions"][1]["error"]["field"] == "f0"


def test_a_dear_model_is_answered_later_and_alike(bundle: Path, tmp_path: Path) -> None:
    async def both() -> list[Response]:
        worker = Worker(bundle, tmp_path, run_seconds=1.0)
        requests = [Request(b"POST", b"/functions/score", [], RECORD) for _ in range(2)]
        later = [worker.handler.handle(request) for request in requests]
        assert not any(isinstance(one, Response) for one in later)
        return list(await asyncio.gather(*later))  # type: ignore[arg-type]

    for response in asyncio.run(both()):
        assert response.status == 200
        assert msgspec.json.decode(response.body)["predictions"][0]["decision"] == "block"


def test_open_inference_protocol(worker: Worker) -> None:
    inputs = [{"name": f"f{i}", "shape": [2], "datatype": "FP64", "data": [i + 1, 0]} for i in range(3)]
    body = msgspec.json.encode({"id": "mine", "inputs": inputs})
    for target in ("/v2/models/score/infer", "/v2/models/score/versions/3/infer"):
        status, said, _ = ask(worker.handler, "POST", target, body, JSON_TYPE)
        assert (status, said["model_name"], said["model_version"], said["id"]) == (200, "score", "3", "mine")
        assert said["outputs"][0]["data"] == [pytest.approx(SCORE), pytest.approx(0.5)]
    status, said, _ = ask(worker.handler, "POST", "/v2/models/score/infer", b"{}")
    assert status == 400
    assert isinstance(said["error"], str)


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        (b"{", "invalid_json", None),
        (b'{"f0": 1, "f1": 2, "ff": 3}', "unknown_field", "ff"),
        (b'{"f0": 1, "f1": 2}', "missing_field", "f2"),
        (b'{"f0": 1, "f1": 2, "f2": "3"}', "wrong_type", "f2"),
    ],
)
def test_a_bad_body_is_400_and_says_why(worker: Worker, body: bytes, code: str, field: str | None) -> None:
    status, said, headers = ask(worker.handler, "POST", "/functions/score", body)
    assert (status, said["error"]["code"], said["error"].get("field")) == (400, code, field)
    assert headers[b"x-request-id"]
    assert worker.counted(400) == 1


@pytest.mark.parametrize("kind", [b"application/json; charset=utf-8", b"Application/JSON", b"application/x.y+json"])
def test_json_by_other_names(worker: Worker, kind: bytes) -> None:
    assert ask(worker.handler, "POST", "/functions/score", RECORD, (b"content-type", kind))[0] == 200


@pytest.mark.parametrize("kind", [b"application/x-www-form-urlencoded", b"text/plain", b"", b"image/jpeg"])
def test_other_content_is_415(worker: Worker, kind: bytes) -> None:
    status, said, _ = ask(worker.handler, "POST", "/functions/score", RECORD, (b"content-type", kind))
    assert (status, said["error"]["code"]) == (415, "unsupported_media_type")


def test_request_ids_are_honoured_when_they_are_safe(worker: Worker) -> None:
    given = b"checkout-42"
    _, said, headers = ask(worker.handler, "POST", "/functions/score", RECORD, (b"x-request-id", given))
    assert said["id"] == "checkout-42"
    assert headers[b"x-request-id"] == given
    for hostile in (b"", b"a b", b"x" * 129, b"\xff", b'"\\u0000"\n'):
        _, said, headers = ask(worker.handler, "POST", "/functions/score", RECORD, (b"x-request-id", hostile))
        assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]+", said["id"])
        assert headers[b"x-request-id"].decode() == said["id"]


def test_made_ids_differ(worker: Worker) -> None:
    ids = {ask(worker.handler, "POST", "/functions/score", RECORD)[1]["id"] for _ in range(100)}
    assert len(ids) == 100


def test_a_trace_is_continued(worker: Worker) -> None:
    trace = b"0af7651916cd43dd8448eb211c80319c"
    parent = b"00-" + trace + b"-b7ad6b7169203331-01"
    said = ask(worker.handler, "POST", "/functions/score", RECORD, (b"traceparent", parent))[2][b"traceparent"]
    assert re.fullmatch(b"00-" + trace + b"-[0-9a-f]{16}-01", said)
    assert said != parent
    assert b"traceparent" not in ask(worker.handler, "POST", "/functions/score", RECORD, (b"traceparent", b"x"))[2]


def test_server_timing_names_the_stages_and_once_the_cold_start(worker: Worker) -> None:
    worker.handler.cold = {"hold": 0.02, "fork": 0.001, "load": 0.004, "prove": 0.0005}
    first = ask(worker.handler, "POST", "/functions/score", RECORD)[2][b"server-timing"].decode()
    second = ask(worker.handler, "POST", "/functions/score", RECORD)[2][b"server-timing"].decode()
    stages = ["decode", "lookup", "batch", "execute", "encode"]
    assert re.findall(r"(\w+);dur=\d+\.\d+", second) == stages
    assert re.findall(r"(\w+);dur=\d+\.\d+", first) == [*stages, "hold", "fork", "load", "prove"]
    assert "hold;dur=20.000" in first


def test_more_calls_than_the_bound_are_refused_at_once(tmp_path: Path) -> None:
    digest = make_bundle(tmp_path, logistic(3), ROWS, scale=Scale(queue_max=2))

    async def flood() -> list[Response]:
        worker = Worker(tmp_path / digest, tmp_path, run_seconds=1.0)
        answers = [worker.handler.handle(Request(b"POST", b"/functions/score", [], RECORD)) for _ in range(8)]
        return list(await asyncio.gather(*(a for a in answers if not isinstance(a, Response))))

    responses = asyncio.run(flood())
    statuses = sorted(response.status for response in responses)
    assert statuses == [200, 200, 503, 503, 503, 503, 503, 503]
    refused = next(response for response in responses if response.status == 503)
    assert dict(refused.headers)[b"retry-after"] == b"1"
    assert msgspec.json.decode(refused.body)["error"]["code"] == "overloaded"


def test_a_call_that_is_too_late_is_refused(tmp_path: Path) -> None:
    digest = make_bundle(tmp_path, logistic(3), ROWS, limits=Limits(timeout_s=-1.0))
    status, said, headers = ask(Worker(tmp_path / digest, tmp_path).handler, "POST", "/functions/score", RECORD)
    assert (status, said["error"]["code"], headers[b"retry-after"]) == (503, "deadline_exceeded", b"1")


def test_what_nobody_foresaw_is_a_500_that_tells_nothing(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker.handler._pipeline, "answer_now", lambda _: 1 / 0)
    status, said, headers = ask(worker.handler, "POST", "/functions/score", RECORD)
    assert (status, said["error"]["code"]) == (500, "execution_failed")
    assert "division" not in said["error"]["message"]
    assert headers[b"x-request-id"].decode() in said["error"]["message"]
    assert "ZeroDivisionError" in caplog.text


def test_a_request_that_could_not_be_read_is_refused_and_counted(worker: Worker) -> None:
    response = worker.handler.refuse(BodyTimeout("late"))
    assert response.status == 408
    assert worker.counted(408) == 1


def test_activity_is_visible_to_the_engine(bundle: Path, tmp_path: Path) -> None:
    async def watch() -> None:
        worker = Worker(bundle, tmp_path, run_seconds=1.0)
        values, slot = worker.segment.values, worker.segment.slot
        worker.handler.connections(1)
        assert values[slot("sunup_connections", function="score")] == 1
        answer = worker.handler.handle(Request(b"POST", b"/functions/score", [], RECORD))
        assert inspect.iscoroutine(answer)
        task = asyncio.create_task(answer)
        await asyncio.sleep(0)
        assert values[slot("sunup_inflight", function="score")] == 1
        await task
        assert values[slot("sunup_inflight", function="score")] == 0
        assert values[slot("sunup_last_activity", function="score")] > 0

    asyncio.run(watch())


def test_a_worker_owns_its_function_only(worker: Worker) -> None:
    assert worker.handler.owns(route(b"POST", b"/functions/score"))
    assert worker.handler.owns(route(b"GET", b"/v2/models/score/ready"))
    assert not worker.handler.owns(route(b"POST", b"/functions/score2"))
    assert not worker.handler.owns(route(b"GET", b"/functions"))


# --- Other protocols --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target", ["/v1/models/score:predict", "/v1/models/score%3Apredict", "/v1/models/score:predict?x=1"]
)
def test_kserve_v1(worker: Worker, target: str) -> None:
    for instance in (RECORD, b"[1, 2, 3]"):
        status, said, _ = ask(worker.handler, "POST", target, b'{"instances": [' + instance + b"]}", JSON_TYPE)
        assert (status, said) == (200, {"predictions": [{"score": pytest.approx(SCORE), "decision": "block"}]})
    status, said, _ = ask(worker.handler, "POST", target, b'{"instances": [[1, 2]]}')
    assert (status, type(said["error"])) == (400, str)
    status, said, _ = ask(worker.handler, "POST", target, RECORD, (b"content-type", b"text/csv"))
    assert (status, type(said["error"])) == (415, str)


def test_codecs_are_made_when_they_are_needed(worker: Worker) -> None:
    before = len(worker.handler._hot)
    assert ask(worker.handler, "GET", "/v1/models/score")[0] == 200
    assert len(worker.handler._hot) == before
    ask(worker.handler, "POST", "/v1/models/score:predict", b"{}")
    assert len(worker.handler._hot) == before + 1


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (b"/functions/score", {"error": {"code": "request_timeout", "message": "late"}}),
        (b"", {"error": {"code": "request_timeout", "message": "late"}}),
        (b"/v2/models/score/infer", {"error": "late"}),
        (b"/v1/models/score:predict", {"error": "late"}),
        (b"/functions/score/invocations?x", {"error_code": "BAD_REQUEST", "message": "late"}),
    ],
)
def test_a_request_that_could_not_be_read_is_refused_in_its_protocol(
    worker: Worker, target: bytes, said: object
) -> None:
    assert msgspec.json.decode(worker.handler.refuse(BodyTimeout("late"), target).body) == said


def test_mlflows_scoring_server(worker: Worker) -> None:
    target = "/functions/score/invocations"
    wanted = {"predictions": [{"score": pytest.approx(SCORE), "decision": "block"}]}
    assert ask(worker.handler, "POST", target, b'{"inputs": [[1, 2, 3]]}', JSON_TYPE)[:2] == (200, wanted)
    csv = (b"content-type", b"text/csv; charset=utf-8")
    status, said, headers = ask(worker.handler, "POST", target, b"f0,f2,f1\n1,3,2\n", csv)
    assert (status, said, headers[b"content-type"]) == (200, wanted, b"application/json")
    status, said, _ = ask(worker.handler, "POST", target, b"{}", JSON_TYPE)
    assert (status, said["error_code"]) == (400, "BAD_REQUEST")
    status, text, headers = ask(worker.handler, "POST", target, b"", (b"content-type", b"text/plain"))
    assert (status, headers[b"content-type"]) == (415, b"text/plain; charset=utf-8")
    assert b"text/csv" in text


# --- Content codings --------------------------------------------------------------------------------------------------

GZIP = (b"content-encoding", b"gzip")
PROTOCOLS = {
    "/functions/score": RECORD,
    "/v2/models/score/infer": msgspec.json.encode(
        {"inputs": [{"name": f"f{i}", "shape": [1], "datatype": "FP64", "data": [i + 1]} for i in range(3)]}
    ),
    "/v1/models/score:predict": b'{"instances": [[1, 2, 3]]}',
    "/functions/score/invocations": b'{"inputs": [[1, 2, 3]]}',
}


@pytest.mark.parametrize("target", PROTOCOLS)
def test_bodies_may_come_compressed(worker: Worker, target: str) -> None:
    body = PROTOCOLS[target]
    plain = ask(worker.handler, "POST", target, body, (b"x-request-id", b"1"))
    for coding, sent in ((b"gzip", gzip.compress(body)), (b"X-GZIP", gzip.compress(body)), (b"identity", body)):
        given = ask(worker.handler, "POST", target, sent, (b"content-encoding", coding), (b"x-request-id", b"1"))
        assert given[:2] == plain[:2]
    for coding in (b"deflate", b"br", b"gzip, gzip"):
        status, _, headers = ask(worker.handler, "POST", target, body, (b"content-encoding", coding))
        assert (status, headers[b"accept-encoding"]) == (415, b"gzip")


@pytest.mark.parametrize("target", PROTOCOLS)
@pytest.mark.parametrize("cut", [-1, -8, 10, 1, 0])
def test_what_is_no_whole_gzip_is_400(worker: Worker, target: str, cut: int) -> None:
    whole = gzip.compress(PROTOCOLS[target])
    for body in (whole[:cut], whole + b"x", whole + whole, PROTOCOLS[target]):
        assert ask(worker.handler, "POST", target, body, GZIP)[0] == 400


def test_a_body_is_bounded_after_expansion(tmp_path: Path) -> None:
    digest = make_bundle(tmp_path, logistic(3), ROWS, limits=Limits(body_bytes=1000))
    handler = Worker(tmp_path / digest, tmp_path).handler
    for target, body in PROTOCOLS.items():
        fits, beyond = (gzip.compress(body.ljust(size)) for size in (1000, 1001))
        assert ask(handler, "POST", target, fits, GZIP)[0] == 200
        assert ask(handler, "POST", target, beyond, GZIP)[0] == 413
        bomb = gzip.compress(b" " * 100_000_000, 1)
        tracemalloc.start()
        assert ask(handler, "POST", target, bomb, GZIP)[0] == 413
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
        tracemalloc.stop()


def test_large_replies_go_out_compressed_where_that_is_asked_for(worker: Worker) -> None:
    large = b"[" + b",".join([RECORD] * 1000) + b"]"

    def answer(accepts: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        headers = [(b"x-request-id", b"1"), (b"accept-encoding", accepts)]
        given = worker.handler.handle(Request(b"POST", b"/functions/score", headers, large))
        response = given if isinstance(given, Response) else asyncio.run(finish(given))
        return response.body, response.headers

    plain, _ = answer(b"")
    assert len(plain) > GZIP_REPLY_BYTES_MIN
    for accepts in (b"gzip", b"deflate, GZIP;q=0.5", b"*", b"br;q=1.0, *;q=0.1"):
        body, headers = answer(accepts)
        assert (b"content-encoding", b"gzip") in headers
        assert gzip.decompress(body) == plain
    for accepts in (b"identity", b"gzip;q=0", b"gzip; q=0.000, *", b"*;q=0", b"", b";;,", b"gzipped"):
        assert answer(accepts)[0] == plain
    small = ask(worker.handler, "POST", "/functions/score", RECORD, (b"accept-encoding", b"gzip"))
    assert b"content-encoding" not in small[2]
