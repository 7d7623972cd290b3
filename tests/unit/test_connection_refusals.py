"""What one connection refuses: malformed and smuggling requests, too much, too late. On both event loops."""

import asyncio
import socket
import time

import pytest
from tests.unit.serving import GET, HEAD, SLOW, Echo, Loop, Passed, post

from sunup import limits
from sunup.limits import HEAD_BYTES_MAX


def refused(passed: Passed, data: bytes) -> int:
    """The status of a refusal after which the connection is ended, with the refusal read in full."""
    status, headers, body = passed.ask(data)
    assert headers[b"connection"] == b"close"
    assert b'"code"' in body
    assert passed.ended()
    passed.client.shutdown(socket.SHUT_WR)
    assert passed.told.released.get(timeout=5) == 7
    return status


SMUGGLING = {
    "both lengths": HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both lengths, other order": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "list of lengths": HEAD + b"Content-Length: 3, 3\r\n\r\nabc",
    "signed length": HEAD + b"Content-Length: +3\r\n\r\nabc",
    "huge length": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "space before colon": HEAD + b"Content-Length : 3\r\n\r\nabc",
    "chunked not last": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked not alone": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked lookalike": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked after vertical tab": HEAD + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"POST /functions/echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "folded line": HEAD + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "bare LF in head": b"POST /functions/echo HTTP/1.1\nHost: a\nContent-Length: 0\n\n",
    "bare LF after header": b"POST /functions/echo HTTP/1.1\r\nHost: a\nContent-Length: 0\r\n\r\n",
    "bare CR": b"POST /functions/echo HTTP/1.1\r\nHost: a\rX: b\r\nContent-Length: 0\r\n\r\n",
    "bare LF after chunk size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\nz\r\n0\r\n\r\n",
    "chunk longer than said": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nzz\r\n0\r\n\r\n",
    "NUL in header": HEAD + b"X: a\0b\r\n\r\n",
    "empty header name": HEAD + b": x\r\n\r\n",
    "no Host": b"GET /functions/echo HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /functions/echo HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "two Hosts in HTTP/1.0": b"GET /functions/echo HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
    "HTTP/0.9": b"GET /functions/echo\r\n\r\n",
    "HTTP/2.0": b"GET /functions/echo HTTP/2.0\r\nHost: a\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "upgrade with chunks": HEAD
    + b"Connection: upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nz\r\n0\r\n\r\n",
    "space in target": b"GET /functions/echo x HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("shape", SMUGGLING)
def test_malformed_requests_are_400(passed: Passed, shape: str) -> None:
    assert refused(passed, SMUGGLING[shape]) == 400


def test_requests_before_a_malformed_one_are_answered(passed: Passed) -> None:
    passed.client.sendall(post(b"good") + SMUGGLING["two lengths"])
    assert passed.answer()[2] == b"POST good"
    assert refused(passed, b"") == 400


def test_nothing_after_connection_close_is_answered(echo: Echo, passed: Passed) -> None:
    passed.client.sendall(post(b"x", b"Connection: close") + GET)
    assert passed.answer()[1][b"connection"] == b"close"
    assert passed.ended()
    assert len(echo.order) == 1


def test_a_large_head_is_431(passed: Passed) -> None:
    assert refused(passed, HEAD + b"X: " + b"a" * HEAD_BYTES_MAX + b"\r\n\r\n") == 431


def test_a_head_without_end_is_431(loop: Loop, passed: Passed) -> None:
    passed.client.sendall(HEAD)
    loop.call(lambda: None)
    assert refused(passed, b"X: " + b"a" * HEAD_BYTES_MAX) == 431


def test_a_head_just_below_the_limit_is_read(passed: Passed) -> None:
    assert passed.ask(post(b"abc", b"X: " + b"a" * (HEAD_BYTES_MAX - 200)))[2] == b"POST abc"


def test_a_declared_large_body_is_413_before_it_comes(passed: Passed) -> None:
    assert refused(passed, HEAD + b"Expect: 100-continue\r\nContent-Length: 1001\r\n\r\n") == 413


def test_a_refusal_survives_the_body_that_follows_it(passed: Passed) -> None:
    """Closing on unread bytes would reset the connection and could destroy the answer."""
    passed.client.sendall(HEAD + b"Content-Length: 1000000\r\n\r\n" + b"x" * 500_000)
    assert refused(passed, b"x" * 100_000) == 413


def test_a_large_chunked_body_is_413(passed: Passed) -> None:
    passed.client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    assert refused(passed, b"fa\r\n" + b"x" * 250 + b"\r\n" + b"2ef\r\n" + b"x" * 751 + b"\r\n0\r\n\r\n") == 413


def test_chunk_framing_without_end_is_413(passed: Passed) -> None:
    passed.client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 30_000)
    assert refused(passed, b"x" * 30_000) == 413


# --- Time -------------------------------------------------------------------------------------------------------------


LATE = {  # the limit that passes, what was sent, the status of the answer if there is one
    "head": ("HEAD_SECONDS_MAX", HEAD, 408),
    "body": ("BODY_SECONDS_MAX", post(b"abc")[:-1], 408),
    "between requests": ("IDLE_SECONDS_MAX", GET, 200),
    "before the first request": ("IDLE_SECONDS_MAX", b"", None),
    "after a refusal": ("LINGER_SECONDS_MAX", SMUGGLING["no Host"], 400),
    "while nobody reads": ("WRITE_SECONDS_MAX", b"GET /functions/echo/big?30000000 HTTP/1.1\r\nHost: a\r\n\r\n", None),
}


@pytest.mark.parametrize("case", LATE)
def test_deadlines(monkeypatch: pytest.MonkeyPatch, loop: Loop, echo: Echo, case: str) -> None:
    limit, data, status = LATE[case]
    monkeypatch.setattr(limits, limit, 0.05)
    with Passed(loop, echo) as passed:
        passed.client.sendall(data)
        if status:
            assert passed.answer()[0] == status
            assert passed.ended()
        if status == 408:
            passed.client.shutdown(socket.SHUT_WR)
        assert passed.told.released.get(timeout=5) == 7


def test_deadlines_do_not_touch_a_call_in_progress(monkeypatch: pytest.MonkeyPatch, loop: Loop, echo: Echo) -> None:
    for limit in ("HEAD_SECONDS_MAX", "BODY_SECONDS_MAX", "IDLE_SECONDS_MAX"):
        monkeypatch.setattr(limits, limit, 0.02)
    with Passed(loop, echo) as passed:
        passed.client.sendall(SLOW)
        loop.wait(_after(0.1, echo))
        assert passed.answer()[2] == b"slow "


def test_traffic_moves_the_deadline(monkeypatch: pytest.MonkeyPatch, loop: Loop, echo: Echo) -> None:
    """Requests cut across reads never look like one head that takes for ever."""
    monkeypatch.setattr(limits, "HEAD_SECONDS_MAX", 1.0)
    with Passed(loop, echo) as passed:
        passed.client.sendall(GET[:10])
        for _ in range(7):
            time.sleep(0.2)
            assert passed.ask(GET[10:] + GET[:10])[0] == 200


async def _after(seconds: float, echo: Echo) -> None:
    await asyncio.sleep(seconds)
    echo.gate.set()


def test_unfinished_requests_of_all_connections_together_are_bounded(loop: Loop) -> None:
    """Two thousand bytes here: three bodies of which 900 each are there are too many, and one that goes makes room."""
    handler = Echo()
    part = post(b"x" * 1000)[:-100]
    with Passed(loop, handler, slot=1) as first, Passed(loop, handler, slot=2) as second:
        for passed in (first, second):
            passed.client.sendall(part)
        while handler.unfinished.used < 1800:
            loop.call(lambda: None)
        with Passed(loop, handler, slot=3) as third:
            third.client.sendall(part)
            assert third.answer()[0] == 503
            assert third.client.recv(10) == b""
        assert first.ask(b"x" * 100)[0] == 200
        with Passed(loop, handler, slot=4) as fourth:
            fourth.client.sendall(part)
            assert fourth.ask(b"x" * 100)[0] == 200
    while handler.unfinished.used:  # the second was never finished, and its client went away
        loop.call(lambda: None)
