"""The load that does not wait: what it charges a server that stalls, refuses, or hangs up."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from tests.bench.open_loop import Generator, Sent

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


@contextmanager
def server(answer: Callable[[int], bytes]) -> Iterator[str]:
    """Answers one call after the other, all connections together; `answer(n)` is the n-th one's, b"" hangs up."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        lock, count = threading.Lock(), [0]

        def serve(client: socket.socket) -> None:
            with client:
                while client.recv(65536):
                    with lock:
                        said = answer(count[0])
                        count[0] += 1
                    if not said:
                        return
                    client.sendall(said)

        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(client,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/functions/f"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def load(answer: Callable[[int], bytes], *, rate: float, seconds: float, connections: int = 4) -> Sent:
    with server(answer) as url:
        return Generator(url, [b'{"x": 1}', b'{"x": 2}'], connections).run(rate, seconds)


def test_every_call_is_made_and_answered() -> None:
    sent = load(lambda _: OK, rate=200, seconds=0.5)
    assert (sent.due, sent.lost, sent.broken) == (100, 0, 0)
    assert [status for status, _ in sent.answers] == [200] * 100
    assert sent.within(1000.0) == 200.0
    assert 0 < sent.quantile_ms(0.5) <= sent.quantile_ms(0.99)


def test_a_stall_is_charged_to_every_call_that_was_due_meanwhile() -> None:
    def stalls(n: int) -> bytes:
        if n == 10:
            time.sleep(0.3)
        return OK

    sent = load(stalls, rate=100, seconds=0.6)
    slow = [took for status, took in sent.answers if took > 50]
    assert len(slow) >= 20  # not one: calls were due every 10 ms
    assert max(slow) >= 290


def test_refusals_are_answers_but_not_right_ones() -> None:
    sent = load(lambda n: BUSY if n % 2 else OK, rate=100, seconds=0.4)
    assert sent.lost == 0
    assert sent.within(1000.0) == pytest.approx(50.0)


def test_a_server_that_hangs_up_is_called_again() -> None:
    sent = load(lambda n: b"" if n % 10 == 3 else OK, rate=100, seconds=0.5)
    assert sent.broken == 5
    assert len(sent.answers) == 45
    assert sent.lost == 0
