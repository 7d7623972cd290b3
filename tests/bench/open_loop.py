"""A load that does not wait for answers: calls leave at fixed times, whatever became of those before.

    python -m tests.bench.open_loop URL BODIES.json --rate 500 --seconds 5 --connections 128

Each call's time runs from when it was due, not from when it was sent, so a server that stalls is charged for every call
that should have been made meanwhile (no coordinated omission). A call that finds no connection free waits for one. One
thread, its own loop on epoll; it spins through the last millisecond before a call is due, because timers are no finer:
give it a core of its own. Prints JSON: see Sent.
"""

import argparse
import json
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

SPIN_SECONDS = 0.001
DRAIN_SECONDS = 2.0  # after the last call was due: what has not come by then is lost


class Sent(NamedTuple):
    """What became of the calls. `answers`: per answer its status and milliseconds since it was due, as they came;
    `lost`: calls without one; `broken`: connections that ended under a call; `late_ms`: by how much the generator
    itself was late to send, at the 99th percentile."""

    due: int
    seconds: float
    answers: list[tuple[int, float]]
    lost: int
    broken: int
    late_ms: float

    def within(self, ms: float) -> float:
        """Right answers per second that came within so many milliseconds."""
        return sum(status == 200 and took <= ms for status, took in self.answers) / self.seconds

    def quantile_ms(self, q: float) -> float:
        """Of the right answers; those that never came count as infinitely late."""
        took = sorted(took for status, took in self.answers if status == 200) + [float("inf")] * self.lost
        return took[min(len(took) - 1, int(q * len(took)))]


class Line:
    """One kept-alive connection and the call on it: when it was due, and what of its answer is here."""

    def __init__(self, host: str, port: int) -> None:
        self.address = (host, port)
        self.due = 0.0
        self.got = b""
        self.sock = self._connected()

    def _connected(self) -> socket.socket:
        sock = socket.create_connection(self.address, timeout=10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        return sock

    def again(self) -> None:
        """Another connection in place of one that ended."""
        self.sock.close()
        self.got = b""
        self.sock = self._connected()

    def status(self) -> int | None:
        """Of the answer, when it is whole. Raises ConnectionError when the server closed."""
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return None
        if not data:
            raise ConnectionResetError
        self.got += data
        head, found, body = self.got.partition(b"\r\n\r\n")
        if not found:
            return None
        at = head.lower().find(b"content-length:")
        if at < 0:
            raise ValueError(f"an answer without content-length: {head!r}")
        return int(head[9:12]) if len(body) >= int(head[at + 15 :].split(b"\r\n", 1)[0]) else None


class Generator:
    """The calls of one run, to one server."""

    def __init__(self, url: str, bodies: Sequence[bytes], connections: int) -> None:
        parts = urlsplit(url)
        host, port = parts.hostname or "127.0.0.1", parts.port or 80
        head = f"POST {parts.path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        self._requests = [f"{head}content-length: {len(body)}\r\n\r\n".encode() + body for body in bodies]
        self._poll = select.epoll()
        self._lines: dict[int, Line] = {}
        self._free: list[Line] = []
        for _ in range(connections):
            self._add(Line(host, port))
        self._waiting: deque[float] = deque()  # due, but no connection was free
        self._late: list[float] = []
        self._sent = self._broken = 0
        self.answers: list[tuple[int, float]] = []

    def run(self, rate: float, seconds: float) -> Sent:
        """Calls at `rate` per second, evenly spaced."""
        count = int(rate * seconds)
        begun = time.perf_counter() + 0.01
        end = begun + seconds + DRAIN_SECONDS
        made = 0
        while (now := time.perf_counter()) < end and (made < count or self._waiting or len(self._free) < self._all):
            while made < count and begun + made / rate <= now:
                self._waiting.append(begun + made / rate)
                made += 1
            while self._waiting and self._free:
                self._send(self._waiting.popleft())
            ahead = (begun + made / rate if made < count else end) - time.perf_counter()
            self._receive(max(0.0, ahead - SPIN_SECONDS) if ahead > SPIN_SECONDS else 0.0)
        self._poll.close()
        for line in self._lines.values():
            line.sock.close()
        late = sorted(self._late)[int(0.99 * len(self._late))] if self._late else 0.0
        lost = count - len(self.answers) - self._broken
        return Sent(count, seconds, self.answers, lost, self._broken, late)

    @property
    def _all(self) -> int:
        return len(self._lines)

    def _add(self, line: Line) -> None:
        self._lines[line.sock.fileno()] = line
        self._poll.register(line.sock.fileno(), select.EPOLLIN)
        self._free.append(line)

    def _send(self, due: float) -> None:
        line = self._free.pop(0)  # the one that rested longest: all of them are used
        line.due = due
        self._late.append(1000 * (time.perf_counter() - due))
        self._sent += 1
        try:
            line.sock.send(self._requests[self._sent % len(self._requests)])
        except OSError:
            self._end(line, waited_for=True)

    def _receive(self, seconds: float) -> None:
        for number, _ in self._poll.poll(seconds):
            line = self._lines[number]
            try:
                status = line.status()
            except OSError:
                self._end(line, waited_for=line not in self._free)
                continue
            if status is not None:
                self.answers.append((status, 1000 * (time.perf_counter() - line.due)))
                line.got = b""
                self._free.append(line)

    def _end(self, line: Line, *, waited_for: bool) -> None:
        """The server ended it: on with another one."""
        self._broken += waited_for
        self._poll.unregister(line.sock.fileno())
        del self._lines[line.sock.fileno()]
        if not waited_for:
            self._free.remove(line)
        line.again()
        self._add(line)


def main() -> None:
    parser = argparse.ArgumentParser(description="calls at fixed times")
    parser.add_argument("url")
    parser.add_argument("bodies", type=Path)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--connections", type=int, default=128)
    given = parser.parse_args()
    bodies = [body.encode() for body in json.loads(given.bodies.read_text())]
    json.dump(Generator(given.url, bodies, given.connections).run(given.rate, given.seconds), sys.stdout)


if __name__ == "__main__":
    main()
