"""A connection as the door passes it: handed back at message boundaries, ended although a duplicate is open."""

import socket
import time

import pytest
from tests.unit.serving import GET, SLOW, Echo, Loop, Passed, post

from sunup.limits import PASSED_BYTES_MAX
from sunup.link.states import State

OTHER = b"POST /functions/other HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"


def lives(passed: Passed) -> None:
    """The client notices nothing: whoever holds the duplicate goes on with the connection, both ways."""
    assert passed.told.released.empty()
    passed.client.setblocking(False)
    with pytest.raises(BlockingIOError):  # neither end of file nor reset
        passed.client.recv(1)
    passed.client.setblocking(True)
    passed.client.sendall(b"more")
    passed.duplicate.settimeout(5)
    assert passed.duplicate.recv(10) == b"more"
    passed.duplicate.sendall(b"from elsewhere")
    assert passed.client.recv(100) == b"from elsewhere"


def test_another_functions_request_is_handed_back_whole(passed: Passed) -> None:
    assert passed.ask(GET)[0] == 200
    passed.client.sendall(OTHER)
    assert passed.told.back.get(timeout=5) == (7, OTHER)
    lives(passed)


def test_a_head_cut_across_reads_is_handed_back_whole(loop: Loop, passed: Passed) -> None:
    assert passed.ask(GET)[0] == 200
    for part in (OTHER[:10], OTHER[10:40], OTHER[40:-7]):
        passed.client.sendall(part)
        while State.READING is not passed.told.states[-1]:
            loop.call(lambda: None)
    passed.client.sendall(OTHER[-7:])
    assert passed.told.back.get(timeout=5) == (7, OTHER)
    lives(passed)


def test_what_is_handed_back_fits_one_message(passed: Passed) -> None:
    """A large body behind the head is left in the socket for whoever reads on."""
    assert passed.ask(GET)[0] == 200
    body = b"x" * 300_000
    whole = OTHER.replace(b"4\r\n\r\nbody", b"%d\r\n\r\n" % len(body)) + body
    passed.client.sendall(whole[:30])
    passed.client.sendall(whole[30:])
    _, pending = passed.told.back.get(timeout=5)
    assert len(pending) <= PASSED_BYTES_MAX
    rest = b""
    passed.duplicate.settimeout(5)
    while len(pending) + len(rest) < len(whole):
        rest += passed.duplicate.recv(100_000)
    assert pending + rest == whole


def test_initial_bytes_of_another_function_go_straight_back(loop: Loop, echo: Echo) -> None:
    with Passed(loop, echo, initial=OTHER) as passed:
        assert passed.told.back.get(timeout=5) == (7, OTHER)
        lives(passed)


def test_earlier_answers_go_out_before_the_connection_goes_back(loop: Loop, echo: Echo, passed: Passed) -> None:
    passed.client.sendall(SLOW)
    while not echo.order:
        loop.call(lambda: None)
    passed.client.sendall(OTHER)
    passed.client.settimeout(0.1)
    with pytest.raises(TimeoutError):
        passed.client.recv(1)
    assert passed.told.back.empty()
    passed.client.settimeout(5)
    loop.call(echo.gate.set)
    assert passed.answer()[2] == b"slow "
    assert passed.told.back.get(timeout=5) == (7, OTHER)
    lives(passed)


def test_a_large_answer_is_sent_in_full_before_the_connection_goes_back(loop: Loop, echo: Echo, passed: Passed) -> None:
    size = 20_000_000
    passed.client.sendall(b"GET /functions/echo/big?%d HTTP/1.1\r\nHost: a\r\n\r\n" % size)
    while not echo.order:
        loop.call(lambda: None)
    passed.client.sendall(OTHER)
    _, _, body = passed.answer()
    assert len(body) == size
    pending = passed.told.back.get(timeout=5)[1]
    assert pending == OTHER
    lives(passed)


def test_a_request_that_shares_a_read_with_anothers_is_answered_with_close(passed: Passed) -> None:
    passed.client.sendall(GET + GET + OTHER)
    assert b"connection" not in passed.answer()[1]
    assert passed.answer()[1][b"connection"] == b"close"
    assert passed.ended()
    passed.client.shutdown(socket.SHUT_WR)
    assert passed.told.released.get(timeout=5) == 7
    assert passed.told.back.empty()


def test_a_shared_read_behind_a_slow_answer_too(loop: Loop, echo: Echo, passed: Passed) -> None:
    passed.client.sendall(SLOW + OTHER)
    while not echo.order:
        loop.call(lambda: None)
    loop.call(echo.gate.set)
    assert passed.answer()[1][b"connection"] == b"close"
    assert passed.ended()


def test_an_idle_connection_drains_at_once(loop: Loop, passed: Passed) -> None:
    assert passed.ask(GET)[0] == 200
    loop.call(passed.connection.drain)
    assert passed.told.back.get(timeout=5) == (7, b"")
    lives(passed)


def test_a_connection_drains_before_its_first_request(loop: Loop, passed: Passed) -> None:
    loop.call(passed.connection.drain)
    assert passed.told.back.get(timeout=5) == (7, b"")
    lives(passed)


def test_draining_finishes_what_is_in_hand(loop: Loop, echo: Echo, passed: Passed) -> None:
    passed.client.sendall(SLOW + GET)
    while not echo.order:
        loop.call(lambda: None)
    loop.call(passed.connection.drain)
    assert passed.told.back.empty()
    loop.call(echo.gate.set)
    assert passed.answer()[2] == b"slow "
    assert passed.answer()[2] == b"GET "
    assert passed.told.back.get(timeout=5) == (7, b"")
    lives(passed)


def test_draining_hands_back_part_of_a_head(loop: Loop, passed: Passed) -> None:
    passed.client.sendall(GET[:20])
    while State.READING not in passed.told.states:
        loop.call(lambda: None)
    loop.call(passed.connection.drain)
    assert passed.told.back.get(timeout=5) == (7, GET[:20])
    lives(passed)


def test_draining_waits_for_the_rest_of_a_body(loop: Loop, passed: Passed) -> None:
    whole = OTHER.replace(b"other", b"echo")
    passed.client.sendall(whole[:-2])
    while State.READING not in passed.told.states:
        loop.call(lambda: None)
    loop.call(passed.connection.drain)
    assert passed.ask(whole[-2:])[2] == b"POST body"
    assert passed.told.back.get(timeout=5) == (7, b"")
    lives(passed)


def test_a_client_that_leaves_is_let_go(loop: Loop, echo: Echo) -> None:
    with Passed(loop, echo) as passed:
        assert passed.ask(GET)[0] == 200
        passed.client.close()
        assert passed.told.released.get(timeout=5) == 7
    with Passed(loop, echo) as passed:  # a reset, in the middle of an answer
        passed.client.sendall(SLOW)
        while len(echo.order) < 2:
            loop.call(lambda: None)
        passed.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        passed.client.close()
        assert passed.told.released.get(timeout=5) == 7
        loop.call(echo.gate.set)
    assert not loop.call(lambda: echo.open)


def test_the_state_byte_follows_a_request(loop: Loop, passed: Passed) -> None:
    assert passed.ask(GET)[0] == 200
    loop.call(lambda: None)
    assert passed.told.states == [State.IDLE, State.READING, State.EXECUTING, State.WRITING, State.IDLE]


def test_the_state_is_writing_until_the_client_has_it_all(loop: Loop, echo: Echo, passed: Passed) -> None:
    passed.client.sendall(b"GET /functions/echo/big?20000000 HTTP/1.1\r\nHost: a\r\n\r\n")
    while not echo.order:
        loop.call(lambda: None)
    loop.call(lambda: None)
    assert passed.told.states[-1:] == [State.WRITING]
    passed.answer()
    loop.call(lambda: None)
    assert passed.told.states[-1:] == [State.IDLE]


def test_what_a_request_waited_at_the_door_is_part_of_its_age(loop: Loop) -> None:
    """Even when its body comes later; not what its client takes to send that, nor the next request's."""
    handler = Echo()
    head, body = post(b"0123456789")[:-4], b"6789"
    with Passed(loop, handler, head, hold=5.0) as passed:
        time.sleep(0.05)
        before = loop.call(loop.loop.time)
        assert passed.ask(body)[0] == 200
        assert passed.ask(GET)[0] == 200
        after = loop.call(loop.loop.time)
    first, second = handler.since
    assert before - 5.001 <= first <= after - 5.0
    assert before - 0.001 <= second <= after


def test_only_what_was_silent_for_so_long_is_handed_back(loop: Loop, passed: Passed) -> None:
    assert passed.ask(GET)[0] == 200
    assert not loop.call(lambda: passed.connection.drain(silent=(1.0, 75.0)))
    time.sleep(0.05)
    assert not loop.call(lambda: passed.connection.drain(silent=(0.0, 0.01)))
    assert passed.told.back.empty()
    assert loop.call(lambda: passed.connection.drain(silent=(0.01, 75.0)))
    assert passed.told.back.get(timeout=5) == (7, b"")
    lives(passed)
