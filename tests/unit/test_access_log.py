"""The access log: which calls get a line, what is in it, what it costs, and that it ends up in the file."""

import asyncio
import json
import timeit
from pathlib import Path
from typing import Any

from tests.unit.working import JSON_TYPE, RECORD, Worker

from sunup.errors import BodyTimeout
from sunup.limits import ACCESS_LINES_MAX, ACCESS_LOG_RATE_DEFAULT
from sunup.serve.http.message import Request, Response
from sunup.serve.telemetry.access import AccessLog

TARGET = b"/functions/score"
TRACE = b"0af7651916cd43dd8448eb211c80319c"


def opened(path: Path, rate: float = 1.0) -> AccessLog:
    return AccessLog(path / "score.access.log", rate=rate, function="score", revision=7)


def lines(path: Path) -> list[dict[str, Any]]:
    log = path / "score.access.log"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def ask(worker: Worker, *requests: Request) -> None:
    """Requests on an event loop, and the log written."""

    async def run() -> None:
        for request in requests:
            assert isinstance(worker.handler.handle(request), Response)
        worker.handler.close()

    asyncio.run(run())


def test_a_line_says_who_what_and_how_long_and_nothing_of_the_record(worker: Worker, tmp_path: Path) -> None:
    worker.handler.access = opened(tmp_path)
    worker.handler.cold = {"hold": 0.001, "fork": 0.002, "load": 0.003, "prove": 0.0}
    headers = [
        (b"authorization", b"Bearer secret-key"),
        JSON_TYPE,
        (b"x-request-id", b"checkout-42"),
        (b"traceparent", b"00-" + TRACE + b"-b7ad6b7169203331-01"),
    ]
    ask(worker, Request(b"POST", TARGET + b"?secret=1", headers, RECORD), Request(b"POST", TARGET, [], RECORD))
    first, second = lines(tmp_path)
    assert set(first.pop("ms")) == {"hold", "fork", "load", "decode", "batch", "execute", "encode", "total"}
    assert first.pop("time").endswith("+00:00")
    assert first.pop("bytes_out") > 50
    assert first == {
        "function": "score",
        "revision": 7,
        "status": 200,
        "path": "/functions/score",
        "id": "checkout-42",
        "bytes_in": len(RECORD),
        "records": 1,
        "trace": TRACE.decode(),
    }
    assert "fork" not in second["ms"]
    assert "secret" not in (tmp_path / "score.access.log").read_text()


def test_calls_that_failed_say_why(worker: Worker, tmp_path: Path) -> None:
    worker.handler.access = opened(tmp_path)
    ask(worker, Request(b"POST", TARGET, [], b"{"))
    (line,) = lines(tmp_path)
    assert (line["status"], line["error"], line["bytes_in"]) == (400, "invalid_json", 1)
    assert set(line["ms"]) == {"total"}


def test_a_refused_head_has_a_line(worker: Worker, tmp_path: Path) -> None:
    worker.handler.access = opened(tmp_path)

    async def run() -> None:
        worker.handler.refuse(BodyTimeout("late"), TARGET + b"?x=1")
        worker.handler.close()

    asyncio.run(run())
    (line,) = lines(tmp_path)
    assert (line["status"], line["error"], line["path"]) == (408, "request_timeout", "/functions/score")


def test_every_failure_of_ours_and_a_share_of_the_rest(tmp_path: Path) -> None:
    log = opened(tmp_path, rate=0.01)
    kept = sum(log.due(200) for _ in range(100_000))
    assert 800 < kept < 1200  # a thousand, six standard deviations either way
    assert all(log.due(503) for _ in range(100))
    log.set_rate(0.0)
    assert not any(log.due(status) for status in (200, 404, 500, 503))
    log.set_rate(1.0)
    assert all(log.due(status) for status in (200, 404, 500))


def test_lines_are_bounded_and_those_left_out_are_counted(tmp_path: Path) -> None:
    async def run() -> None:
        log = opened(tmp_path)
        for _ in range(2):
            for _ in range(ACCESS_LINES_MAX + 5):
                log.note(200, TARGET, seconds=0.001)
            log.flush()

    asyncio.run(run())
    found = lines(tmp_path)
    assert len(found) == 2 * ACCESS_LINES_MAX
    assert [line.get("dropped", 0) for line in found[ACCESS_LINES_MAX - 1 : ACCESS_LINES_MAX + 2]] == [0, 5, 0]


def test_a_rotated_log_is_found_again_and_a_folder_that_is_gone_fails_nobody(tmp_path: Path) -> None:
    async def run() -> None:
        log = opened(folder)
        log.note(200, TARGET, seconds=0.001)
        log.flush()
        (folder / "score.access.log").rename(folder / "score.access.log.1")
        log.note(200, b"/second", seconds=0.001)
        log.flush()
        assert [line["path"] for line in lines(folder)] == ["/second"]
        (folder / "score.access.log").rename(tmp_path / "a")
        (folder / "score.access.log.1").rename(tmp_path / "b")
        folder.rmdir()
        log.note(200, TARGET, seconds=0.001)
        log.flush()

    folder = tmp_path / "logs"
    folder.mkdir()
    asyncio.run(run())


def test_what_a_call_pays_at_the_default(worker: Worker, tmp_path: Path) -> None:
    """Under one percent of a call: with its turn of the loop and its system calls, a call takes 50 us and more."""
    log = opened(tmp_path, rate=ACCESS_LOG_RATE_DEFAULT)

    async def run() -> float:
        def noted() -> None:
            if log.due(200):
                log.note(200, TARGET, seconds=0.001, id="abc", bytes_in=100)
            if len(log._lines) == ACCESS_LINES_MAX:
                log.flush()

        return min(timeit.repeat(noted, number=20_000, repeat=5)) / 20_000

    request = Request(b"POST", TARGET, [], RECORD)
    whole = min(timeit.repeat(lambda: worker.handler.handle(request), number=500, repeat=5)) / 500
    took = asyncio.run(run())
    print(f"{1e6 * took:.2f} us of a call whose handler alone takes {1e6 * whole:.1f} us")
    assert took < 1e-6
