"""HTTP/1.1 through the door, as raw bytes: RFC 9112's rules, shapes that smuggle requests, pipelines, slow clients.

Every shape is sent twice: on a fresh connection, which the door passes on, and on a kept-alive one, which a worker has.
A whole request follows each in the same packet: whatever is refused, that one must never be answered.
"""

import socket
import time
from collections.abc import Iterator

import pytest
from tests.engine_fixture import Engine, until
from tests.raw_http import Client

from sunup.bundle.manifest import Scale
from sunup.limits import BODY_BYTES_DEFAULT, BODY_SECONDS_MAX, HEAD_BYTES_MAX, HEAD_SECONDS_MAX

BODY = b'{"x": 2.0}'
LINE = b"POST /functions/double HTTP/1.1\r\n"
HEAD = LINE + b"Host: localhost\r\n"
GOOD = HEAD + b"Content-Length: 10\r\n\r\n" + BODY
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
TRIPLE = GOOD.replace(b"double", b"triple")
FRONT = b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n"


def sized(length: bytes) -> bytes:
    return HEAD + b"Content-Length: " + length + b"\r\n\r\n" + BODY


def coded(*codings: bytes) -> bytes:
    return HEAD + b"".join(b"Transfer-Encoding: " + one + b"\r\n" for one in codings) + b"\r\n0\r\n\r\n"


def with_line(line: bytes) -> bytes:
    return HEAD + line + b"\r\nContent-Length: 10\r\n\r\n" + BODY


REFUSED = {
    "two lengths, the same": HEAD + b"Content-Length: 10\r\nContent-Length: 10\r\n\r\n" + BODY,
    "two lengths that differ": HEAD + b"Content-Length: 10\r\nContent-Length: 0\r\n\r\n" + BODY,
    "list of lengths": sized(b"10, 10"),
    "signed length": sized(b"+10"),
    "negative length": sized(b"-1"),
    "hexadecimal length": sized(b"0xa"),
    "length with a space": sized(b"1 0"),
    "empty length": sized(b""),
    "length beyond 64 bits": sized(b"18446744073709551626"),
    "coding, then length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 10\r\n\r\n0\r\n\r\n",
    "length, then coding": HEAD + b"Content-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": coded(b"chunked", b"chunked"),
    "chunked twice in one line": coded(b"chunked, chunked"),
    "chunked lookalike": coded(b"xchunked"),
    "chunked, identity": coded(b"chunked, identity"),
    "identity, chunked": coded(b"identity, chunked"),
    "identity": coded(b"identity"),
    "gzip, chunked": coded(b"gzip, chunked"),
    "chunked in quotes": coded(b'"chunked"'),
    "chunked with a parameter": coded(b"chunked;q=1"),
    "chunked after a vertical tab": coded(b"\x0bchunked"),
    "chunked of HTTP/1.0": coded(b"chunked").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "bare LF everywhere": GOOD.replace(b"\r\n", b"\n"),
    "bare LF after a line": GOOD.replace(b"localhost\r\n", b"localhost\n"),
    "bare LF at the end of the head": HEAD + b"Content-Length: 10\r\n\n" + BODY,
    "folded line": with_line(b"X: a\r\n b"),
    "folded first line": LINE + b" Host: localhost\r\nContent-Length: 10\r\n\r\n" + BODY,
    "space before the colon": with_line(b"X : a"),
    "tab before the colon": HEAD + b"Content-Length\t: 10\r\n\r\n" + BODY,
    "line without a colon": with_line(b"X"),
    "empty name": with_line(b": a"),
    "NUL in a value": with_line(b"X: a\0b"),
    "CR in a value": with_line(b"X: a\rb"),
    "control character in a value": with_line(b"X: a\x01b"),
    "byte above 127 in a name": with_line(b"X\xff: a"),
    "NUL in the target": GOOD.replace(b"double", b"dou\0ble"),
    "byte above 127 in the target": GOOD.replace(b"double", b"d\xf6uble"),
    "space in the target": GOOD.replace(b"double", b"double x"),
    "tab for a space": GOOD.replace(b"POST ", b"POST\t"),
    "space after the version": GOOD.replace(b"HTTP/1.1", b"HTTP/1.1 "),
    "space before the method": b" " + GOOD,
    "target without a slash": GOOD.replace(b" /", b" "),
    "authority for a target": b"GET localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "unknown method": GOOD.replace(b"POST", b"FETCH"),
    "method in small letters": GOOD.replace(b"POST", b"post"),
    "asterisk of another method": b"GET * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HTTP/0.9": b"GET /functions/double\r\n\r\n",
    "HTTP/1.2": GOOD.replace(b"HTTP/1.1", b"HTTP/1.2"),
    "HTTP/1.10": GOOD.replace(b"HTTP/1.1", b"HTTP/1.10"),
    "HTTP/2.0": GOOD.replace(b"HTTP/1.1", b"HTTP/2.0"),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http in small letters": GOOD.replace(b"HTTP/1.1", b"http/1.1"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",
    "no Host": GOOD.replace(b"Host: localhost\r\n", b""),
    "two Hosts": GOOD.replace(b"Host: localhost\r\n", b"Host: localhost\r\n" * 2),
    "two Hosts that differ": GOOD.replace(b"Host: localhost\r\n", b"Host: localhost\r\nHost: evil.test\r\n"),
    "chunk size beyond 64 bits": CHUNKED + b"1000000000000000A\r\n" + BODY + b"\r\n0\r\n\r\n",
    "negative chunk size": CHUNKED + b"-A\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunk size with 0x": CHUNKED + b"0xA\r\n" + BODY + b"\r\n0\r\n\r\n",
    "space after the chunk size": CHUNKED + b"A \r\n" + BODY + b"\r\n0\r\n\r\n",
    "bare LF after the chunk size": CHUNKED + b"A\n" + BODY + b"\r\n0\r\n\r\n",
    "bare LF in a chunk extension": CHUNKED + b"A;x\n" + BODY + b"\r\n0\r\n\r\n",
    "chunk longer than said": CHUNKED + b"9\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunk without its end": CHUNKED + b"A\r\n" + BODY + b"0\r\n\r\n",
    "folded trailer": CHUNKED + b"A\r\n" + BODY + b"\r\n0\r\nX: a\r\n b\r\n\r\n",
    "length among the trailers": CHUNKED + b"A\r\n" + BODY + b"\r\n0\r\nContent-Length: 99\r\n\r\n",
    "upgrade with chunks": HEAD + b"Connection: upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}
READ = {  # what a server must read, and what it may ignore
    "leading empty line": b"\r\n" + GOOD,
    "leading zeros": sized(b"0010"),
    "absolute target": GOOD.replace(b"/functions", b"http://localhost/functions").replace(b"Host: l", b"Host: evil.l"),
    "absolute target with a port": GOOD.replace(b"/functions", b"HTTP://localhost:8000/functions"),
    "chunk extensions": CHUNKED + b'5;a="b";c\r\n{"x":\r\n5\r\n 2.0}\r\n0;z\r\n\r\n',
    "trailers": CHUNKED + b"A\r\n" + BODY + b"\r\n0\r\nHost: evil.test\r\nX-API-Key: x\r\n\r\n",
    "chunk size with zeros": CHUNKED + b"000000a\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunked in capitals": CHUNKED.replace(b"chunked", b"Chunked") + b"A\r\n" + BODY + b"\r\n0\r\n\r\n",
    "an offer to upgrade": with_line(b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x"),
    "another expectation": with_line(b"Expect: something"),
    "another scheme of authorization": with_line(b"Authorization: Basic eDp5"),
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = Engine(tmp_path_factory.mktemp("http") / "p")
    engine.up()
    engine.serve("double", 2.0, scale=Scale(min=1))
    engine.serve("triple", 3.0, scale=Scale(min=1))
    yield engine
    engine.down()


@pytest.mark.parametrize("kept", [False, True], ids=["fresh", "kept"])
@pytest.mark.parametrize("shape", REFUSED)
def test_refused_with_400_and_nothing_behind_it_is_read(served: Engine, shape: str, kept: bool) -> None:
    with Client(served) as client:
        if kept:
            assert client.ask(GOOD)[0] == 200
        status, headers, body = client.ask(REFUSED[shape] + GOOD)
        assert (status, headers[b"connection"]) == (400, b"close"), body
        assert b'"code"' in body
        assert client.is_over()


@pytest.mark.parametrize("kept", [False, True], ids=["fresh", "kept"])
@pytest.mark.parametrize("shape", READ)
def test_read_and_what_follows_too(served: Engine, shape: str, kept: bool) -> None:
    with Client(served) as client:
        if kept:
            assert client.ask(GOOD)[0] == 200
        for _ in range(2):
            status, _, body = client.ask(READ[shape])
            assert (status, b'"y":4.0' in body) == (200, True), body
        client.sock.sendall(READ[shape] + GOOD)
        assert [client.answer()[0], client.answer()[0]] == [200, 200]


def test_a_truncated_chunked_body_is_no_request(served: Engine) -> None:
    with Client(served) as client:
        client.sock.sendall(CHUNKED + b"A\r\n" + BODY + b"\r\n")
        client.sock.shutdown(socket.SHUT_WR)
        assert client.is_over()
    with Client(served) as client:
        client.sock.sendall(GOOD[:-1])
        client.sock.shutdown(socket.SHUT_WR)
        assert client.is_over()


def test_a_half_closed_client_gets_every_answer(served: Engine) -> None:
    with Client(served) as client:
        client.sock.sendall(GOOD + GOOD + GOOD)
        client.sock.shutdown(socket.SHUT_WR)
        assert [client.answer()[0] for _ in range(3)] == [200] * 3
        assert client.is_over()


def test_pipelined_requests_of_one_function_are_answered_in_order(served: Engine) -> None:
    with Client(served) as client:
        client.sock.sendall(b"".join(GOOD.replace(b"2.0", b"%d.0" % n) for n in range(1, 10)))
        for n in range(1, 10):
            assert b'"y":%d.0' % (2 * n) in client.answer()[2]


def test_pipelined_requests_of_several_functions(served: Engine) -> None:
    """A request of another function that shares a packet with the one before is not answered: that one's answer says
    close, and the client asks again. In packets of their own they are all answered."""
    with Client(served) as client:
        status, headers, _ = client.ask(GOOD + TRIPLE + GOOD)
        assert (status, headers[b"connection"]) == (200, b"close")
        assert client.is_over()
    with Client(served) as client:
        for _ in range(3):
            for request, expected in ((GOOD, b'"y":4.0'), (TRIPLE, b'"y":6.0'), (FRONT, b'"sunup"')):
                status, headers, body = client.ask(request)
                assert (status, expected in body, b"connection" in headers) == (200, True, False)


def test_continue_is_said_before_a_body_and_not_before_a_refusal(served: Engine) -> None:
    expecting = HEAD + b"Expect: 100-continue\r\n"
    with Client(served) as client:
        for _ in range(2):
            assert client.ask(expecting + b"Content-Length: 10\r\n\r\n")[0] == 100
            assert client.ask(BODY)[0] == 200
    for refused, status in (
        (expecting + b"Content-Length: %d\r\n\r\n" % (BODY_BYTES_DEFAULT + 1), 413),
        (expecting.replace(b"localhost", b"evil.test") + b"Content-Length: 10\r\n\r\n", 421),
    ):
        with Client(served) as client:
            assert client.ask(refused)[0] == status
            assert client.is_over()


def test_head_and_options(served: Engine) -> None:
    with Client(served) as client:
        for target, status in ((b"/functions/double", 200), (b"/functions/absent", 404), (b"/v2", 200)):
            client.sock.sendall(FRONT.replace(b"GET /v2", b"HEAD " + target))
            found, headers, _ = client.answer(bodiless=True)
            assert (found, int(headers[b"content-length"]) > 0) == (status, True)
        status, headers, body = client.ask(FRONT.replace(b"GET /v2", b"OPTIONS *"))
        assert (status, headers[b"allow"], body) == (200, b"get, head, options, post", b"")
        status, headers, _ = client.ask(FRONT.replace(b"GET /v2", b"OPTIONS /functions/double"))
        assert (status, b"post" in headers[b"allow"]) == (405, True)
        assert client.ask(GOOD.replace(b"POST", b"TRACE"))[0] == 405
        assert client.ask(GOOD)[0] == 200
    for before in (b"", GOOD):
        with Client(served) as client:
            client.sock.sendall(before + b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n" + GOOD)
            assert client.answer()[0] == (200 if before else 405)
            assert client.is_over()
    with Client(served) as client:  # a refusal has no body either
        client.sock.sendall(FRONT.replace(b"GET", b"HEAD").replace(b"localhost", b"evil.test"))
        assert client.answer(bodiless=True)[0] == 421
        assert client.is_over()


def test_a_large_head_is_431(served: Engine) -> None:
    with Client(served) as client:
        status, _, _ = client.ask(HEAD + b"X: " + b"a" * HEAD_BYTES_MAX + b"\r\n\r\n")
        assert status == 431
        assert client.is_over()


def test_http_1_0_needs_no_host_and_closes(served: Engine) -> None:
    with Client(served) as client:
        status, headers, _ = client.ask(LINE.replace(b"1.1", b"1.0") + b"Content-Length: 10\r\n\r\n" + BODY)
        assert (status, headers[b"connection"]) == (200, b"close")
        assert client.is_over()


def test_slow_heads_and_bodies_are_408_however_they_trickle(served: Engine) -> None:
    """One that stops at the door before its function is known, one that trickles there, one a worker waits for, and
    one whose body does not come."""
    line, part = HEAD[:20], HEAD[:-3]
    with Client(served) as stopped, Client(served) as trickling, Client(served) as kept, Client(served) as bodiless:
        bodiless.sock.settimeout(BODY_SECONDS_MAX + 10)
        bodiless.sock.sendall(GOOD[:-1])
        assert kept.ask(GOOD)[0] == 200
        began = time.monotonic()
        stopped.sock.sendall(line)
        kept.sock.sendall(part)
        for byte in line:  # each in time, all of them together not
            trickling.sock.sendall(bytes([byte]))
            time.sleep(HEAD_SECONDS_MAX / (2 * len(line)))
        for client in (stopped, kept, trickling):
            status, headers, _ = client.answer()
            assert (status, headers[b"connection"]) == (408, b"close")
            assert client.is_over()
        took = time.monotonic() - began
        assert HEAD_SECONDS_MAX - 1 < took < HEAD_SECONDS_MAX + 5
        assert bodiless.answer()[0] == 408
        assert bodiless.is_over()
        assert BODY_SECONDS_MAX - 1 < time.monotonic() - began < BODY_SECONDS_MAX + 5
    until(lambda: served.call("double", 2.0).status == 200, "service")
