"""HTTP/1.1 as one connection speaks it: framing, order, limits, refusals. Over real sockets, on both event loops."""

import itertools
import random
import socket
import time

import pytest
from tests.unit.serving import GET, HEAD, SLOW, Echo, Loop, Passed, post

from sunup.limits import PIPELINED_MAX


def test_keeps_alive(passed: Passed) -> None:
    for body in (b"one", b"", b"three"):
        status, headers, got = passed.ask(post(body))
        assert (status, got) == (200, b"POST " + body)
        assert b"connection" not in headers


def test_a_request_may_arrive_byte_by_byte(passed: Passed) -> None:
    passed.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in post(b"abc"):
        passed.client.send(bytes([byte]))
    assert passed.answer()[2] == b"POST abc"


def test_reads_may_be_cut_anywhere(loop: Loop, echo: Echo) -> None:
    """The same requests give the same answers, however they are spread over reads."""
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    upgrade = post(b"up", b"Connection: Upgrade", b"Upgrade: h2c")
    whole = b"".join([GET, post(b"one"), b"\r\n", chunked, upgrade, post(b""), SLOW, post(b"two"), chunked])
    loop.call(echo.gate.set)
    dice = random.Random(1)
    for _ in range(30):
        cuts = sorted(dice.sample(range(1, len(whole)), dice.randint(0, 40)))
        with Passed(loop, echo) as passed:
            passed.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for start, end in itertools.pairwise([0, *cuts, len(whole)]):
                passed.client.send(whole[start:end])
            said = [passed.answer()[2].rpartition(b" ")[2] for _ in range(8)]
            assert said == [b"", b"one", b"abc", b"up", b"", b"", b"two", b"abc"]


def test_initial_bytes_come_first(loop: Loop, echo: Echo) -> None:
    whole = post(b"abcdef")
    with Passed(loop, echo, initial=whole[:-3]) as passed:
        assert passed.ask(whole[-3:])[2] == b"POST abcdef"
    with Passed(loop, echo, initial=whole) as passed:
        assert passed.answer()[2] == b"POST abcdef"


def test_pipelined_requests_are_answered_in_order(passed: Passed) -> None:
    count = 3 * PIPELINED_MAX
    passed.client.sendall(b"".join(post(b"%d" % i) for i in range(count)))
    assert [passed.answer()[2] for _ in range(count)] == [b"POST %d" % i for i in range(count)]


@pytest.mark.parametrize("slow", [SLOW, SLOW.replace(b"/slow", b"/soon")], ids=["awaited", "told"])
def test_a_slow_answer_holds_the_later_ones(loop: Loop, echo: Echo, passed: Passed, slow: bytes) -> None:
    count = 2 * PIPELINED_MAX
    passed.client.sendall(slow)
    for i in range(count):
        passed.client.sendall(post(b"%d" % i))
    passed.client.settimeout(0.1)
    with pytest.raises(TimeoutError):
        passed.client.recv(1)
    assert len(echo.order) == 1
    passed.client.settimeout(5)
    loop.call(echo.gate.set)
    assert passed.answer()[2] == b"slow "
    assert [passed.answer()[2] for _ in range(count)] == [b"POST %d" % i for i in range(count)]


def test_an_answer_whose_client_is_gone_is_cancelled(loop: Loop, echo: Echo, passed: Passed) -> None:
    passed.client.sendall(SLOW.replace(b"/slow", b"/soon"))
    passed.client.settimeout(0.1)
    with pytest.raises(TimeoutError):
        passed.client.recv(1)
    passed.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close with a reset
    passed.client.close()
    assert passed.told.released.get(timeout=5) == 7
    loop.call(echo.gate.set)
    assert [pending.cancelled for pending in echo.pending] == [True]


def test_reading_stops_while_enough_waits(loop: Loop, echo: Echo, passed: Passed) -> None:
    """A client that pipelines behind a slow answer fills its own socket, not our memory."""
    passed.client.sendall(SLOW)
    passed.client.setblocking(False)
    sent = 0
    while sent < 90_000_000:
        try:
            sent += passed.client.send(post(b"x" * 1000))
        except BlockingIOError:
            break
    passed.client.setblocking(True)
    assert sent < 90_000_000
    waiting = loop.call(lambda: len(passed.connection._waiting))
    assert waiting < 200
    loop.call(echo.gate.set)
    assert passed.answer()[2] == b"slow "
    assert passed.answer()[2] == b"POST " + b"x" * 1000


def test_chunked(passed: Passed) -> None:
    chunks = b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;note=x\r\nc\r\n2\r\nde\r\n0\r\nTrailer: x\r\n\r\n"
    assert passed.ask(HEAD + chunks)[2] == b"POST abcde"
    assert passed.ask(GET)[2] == b"GET "


def test_head_has_the_length_and_no_body(passed: Passed) -> None:
    passed.client.sendall(b"HEAD /functions/echo HTTP/1.1\r\nHost: a\r\n\r\n")
    status, headers, _ = passed.answer(head_only=True)
    assert (status, headers[b"content-length"]) == (200, b"5")
    assert passed.ask(GET)[2] == b"GET "


def test_http_1_0_closes_unless_asked(passed: Passed) -> None:
    status, headers, _ = passed.ask(b"GET /functions/echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert (status, headers[b"connection"]) == (200, b"keep-alive")
    status, headers, _ = passed.ask(b"GET /functions/echo HTTP/1.0\r\n\r\n")
    assert (status, headers[b"connection"]) == (200, b"close")
    assert passed.ended()


def test_connection_close_is_honoured(passed: Passed) -> None:
    status, headers, _ = passed.ask(post(b"x", b"Connection: close"))
    assert (status, headers[b"connection"]) == (200, b"close")
    assert passed.ended()
    assert passed.told.released.get(timeout=5) == 7


def test_continue_is_sent_to_who_waits_for_it(passed: Passed) -> None:
    whole = post(b"abc", b"Expect: 100-continue")
    assert passed.ask(whole[:-3])[0] == 100
    assert passed.ask(b"abc")[2] == b"POST abc"
    assert passed.ask(whole)[2] == b"POST abc"  # sent without waiting: no 100 in front of the answer


def test_an_offer_to_upgrade_is_ignored(passed: Passed) -> None:
    offer = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__")
    assert passed.ask(post(b"abc", *offer))[2] == b"POST abc"
    passed.client.sendall(post(b"def", *offer) + post(b"ghi", *offer) + GET)
    assert [passed.answer()[2] for _ in range(3)] == [b"POST def", b"POST ghi", b"GET "]
    whole = post(b"jkl", *offer)
    passed.client.sendall(whole[:-2])
    time.sleep(0.02)
    assert passed.ask(whole[-2:] + GET)[2] == b"POST jkl"
    assert passed.answer()[2] == b"GET "
    assert passed.ask(GET[:-2] + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n")[2] == b"GET "


def test_a_handler_that_raises_is_a_500_and_the_connection_lives(passed: Passed) -> None:
    assert passed.ask(b"GET /functions/echo/boom HTTP/1.1\r\nHost: a\r\n\r\n")[0] == 500
    assert passed.ask(GET)[0] == 200


def test_a_half_closed_client_gets_its_answer(loop: Loop, echo: Echo, passed: Passed) -> None:
    passed.client.sendall(SLOW)
    passed.client.shutdown(socket.SHUT_WR)
    loop.call(echo.gate.set)
    assert passed.answer()[2] == b"slow "
    assert passed.ended()
    assert passed.told.released.get(timeout=5) == 7


def test_a_slow_reader_gets_all_of_a_large_answer(passed: Passed) -> None:
    size = 30_000_000
    passed.client.sendall(b"GET /functions/echo/big?%d HTTP/1.1\r\nHost: a\r\n\r\n" % size + GET)
    status, _, body = passed.answer()
    assert (status, len(body)) == (200, size)
    assert passed.answer()[2] == b"GET "
