"""Load on a local engine while its processes are killed, revisions change and clients misbehave; and what came of it.

Every answer is kept with the revision that gave it, and is right when it is what that revision's model says. A request
may end without an answer only where its worker or the door was killed under it.
"""

import http.client
import json
import os
import random
import signal
import socket
import statistics
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.engine_fixture import Engine, until

from sunup.bundle.manifest import Scale

ROLES = ("worker", "nursery", "door", "supervisor")
SECONDS_PER_DEPLOY = 10.0
CALM_SECONDS = (0.5, 3.0)  # between two kills
UNDER_SECONDS = 2.0  # how long after a kill a request it hit may come to its end
NAME = "times"


@dataclass
class Outcome:
    """`seen`: how often each (revision, factor) answered. `unexplained`: ends without an answer nothing was killed
    for. `recovery`: seconds from a kill (of the supervisor: from the start after it) to the next right answer."""

    seen: Counter[tuple[int, float]] = field(default_factory=Counter)
    refused: int = 0
    broken: list[tuple[float, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    kills: list[tuple[float, str]] = field(default_factory=list)
    recovery: dict[str, list[float]] = field(default_factory=lambda: {role: [] for role in ROLES})
    deploys: int = 0
    factors: dict[int, float] = field(default_factory=dict)

    @property
    def answered(self) -> int:
        return sum(self.seen.values())

    @property
    def unexplained(self) -> list[tuple[float, str]]:
        ends = [at for at, role in self.kills if role in ("worker", "door")]
        return [(at, why) for at, why in self.broken if not any(0 <= at - end <= UNDER_SECONDS for end in ends)]

    @property
    def misattributed(self) -> list[tuple[int, float]]:
        """Revisions that gave an answer which is not theirs."""
        return [pair for pair in self.seen if self.factors.get(pair[0]) != pair[1]]

    def lines(self) -> list[str]:
        """For people."""
        said = [
            f"{self.answered:,} answered by {len({r for r, _ in self.seen})} revisions, {self.refused:,} refused with "
            f"503, {len(self.broken)} ended by a kill without an answer, {len(self.wrong)} wrong",
            f"{len(self.kills)} kills, {self.deploys} deploys",
        ]
        for role, seconds in self.recovery.items():
            if seconds:
                middle, most = statistics.median(seconds), max(seconds)
                said.append(
                    f"{role:10} x {len(seconds)}: right again after {1e3 * middle:.0f} ms, at most {1e3 * most:.0f}"
                )
        return said


def run(engine: Engine, seconds: float, seed: int) -> Outcome:
    """Load for so long. The engine runs, and is left running."""
    outcome, stop, chance = Outcome(), threading.Event(), random.Random(seed)
    factor_of = {engine.bundle(NAME, factor, scale=Scale(max=2)): factor for factor in (2.0, 3.0, 5.0)}
    _deploy(engine, factor_of, outcome)
    up = threading.Lock()  # held while there is no supervisor to deploy to
    callers = [_Caller(engine, outcome, kept=number % 2 == 0) for number in range(4)]
    acts: list[Callable[[], None]] = [caller.call for caller in callers]
    acts += [_Nuisance(engine.port, seed + number).act for number in range(2)]
    threads = [threading.Thread(target=_repeat, args=(act, stop), daemon=True) for act in acts]
    threads.append(threading.Thread(target=_deploys, args=(engine, factor_of, outcome, stop, up), daemon=True))
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    turn = 0
    while time.monotonic() < end:
        stop.wait(chance.uniform(*CALM_SECONDS))
        _kill(engine, ROLES[turn % len(ROLES)], outcome, up)
        turn += 1
    stop.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a client hangs"
    for caller in callers:
        caller.close()
    return outcome


def _repeat(act: Callable[[], None], stop: threading.Event) -> None:
    while not stop.is_set():
        act()


def _kill(engine: Engine, role: str, outcome: Outcome, up: threading.Lock) -> None:
    with up:
        pid = engine.pids().get(NAME if role == "worker" else role)
        if pid is None:
            return  # being replaced just now
        os.kill(pid, signal.SIGKILL)
        outcome.kills.append((time.monotonic(), role))
        if role == "supervisor":
            until(lambda: engine.running() is None, "the supervisor to be gone")
            begun = time.monotonic()
            engine.up()
        else:
            begun = time.monotonic()
    until(lambda: _right(engine), f"an answer after the {role} was killed")
    outcome.recovery[role].append(time.monotonic() - begun)


def _right(engine: Engine) -> bool:
    try:
        return engine.call(NAME, 1.0).status == 200
    except OSError:
        return False


def _deploys(
    engine: Engine, factor_of: dict[str, float], outcome: Outcome, stop: threading.Event, up: threading.Lock
) -> None:
    while not stop.wait(SECONDS_PER_DEPLOY):
        with up:
            outcome.deploys += 1
            _deploy(engine, factor_of, outcome)


def _deploy(engine: Engine, factor_of: dict[str, float], outcome: Outcome) -> None:
    """The next of the bundles in turn. What it multiplies by is noted here: the engine forgets old revisions."""
    digest = [*factor_of][outcome.deploys % len(factor_of)]
    revision = engine.deploy(NAME, digest, settings={}, on_event=lambda _: None)["revision"]
    outcome.factors[revision] = factor_of[digest]


class _Caller:
    """One client that calls as fast as it is answered, on a connection it keeps or on a new one each time."""

    def __init__(self, engine: Engine, outcome: Outcome, *, kept: bool) -> None:
        self._engine, self._outcome, self._kept = engine, outcome, kept
        self._connection: http.client.HTTPConnection | None = None
        self._x = 1.0

    def call(self) -> None:
        self._x += 1.0
        if self._connection is None:
            self._connection = self._engine.open()
        try:
            answer = self._engine.call(NAME, self._x, self._connection)
        except TimeoutError:
            self._outcome.wrong.append("an answer never came")
            self.close()
        except (OSError, http.client.HTTPException) as error:
            self._outcome.broken.append((time.monotonic(), repr(error)))
            self.close()
        else:
            self._check(answer.status, answer.headers, answer.body)
            if not self._kept or answer.headers.get("connection") == "close":
                self.close()

    def _check(self, status: int, headers: dict[str, str], body: bytes) -> None:
        if status == 503 and headers.get("retry-after"):
            self._outcome.refused += 1
            return
        if status != 200:
            self._outcome.wrong.append(f"{status} {body!r}")
            return
        said = json.loads(body)
        self._outcome.seen[said["revision"], said["predictions"][0]["y"] / self._x] += 1

    def close(self) -> None:
        """Of its connection, if it holds one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Nuisance:
    """A client that is slow, stops in the middle, resets the connection, or sends what is no HTTP."""

    def __init__(self, port: int, seed: int) -> None:
        self._port = port
        self._chance = random.Random(seed)

    def act(self) -> None:
        whole = b'POST /functions/times HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{"x": 1.0'
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=5) as sock:
                match self._chance.randrange(4):
                    case 0:  # a byte at a time, and gone before the end
                        for at in range(self._chance.randrange(len(whole))):
                            sock.sendall(whole[at : at + 1])
                    case 1:
                        sock.sendall(whole[: self._chance.randrange(len(whole))])
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    case 2:
                        sock.sendall(self._chance.randbytes(200) + b"\r\n\r\n")
                        sock.recv(4096)
                    case _:
                        sock.sendall(whole)
                        sock.shutdown(socket.SHUT_WR)
                        sock.recv(4096)
        except OSError:
            return  # what it gets for it is its own affair; the others are watched
