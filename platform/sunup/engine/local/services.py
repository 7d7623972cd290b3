"""The door and the nursery: the supervisor's own children, started, adopted when they outlived it, and restarted; and
the sockets and logs that they and the workers are given."""

import asyncio
import contextlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from sunup.access.rights import Rights
from sunup.errors import EngineError
from sunup.limits import ADOPT_SECONDS_MAX, LOG_BYTES_MAX, RESTART_BACKOFF_SECONDS_MAX
from sunup.link.channel import Message, send
from sunup.link.peer import Peer, find, prepare
from sunup.link.process import PROTOCOL, RELEASE
from sunup.settings import API_KEY, Project

NOBODY_ELSE = Rights(None)
_INHERITED = re.compile(
    r"PATH|HOME|LANG|LC_.*|TZ|TMPDIR|PYTHON.*|VIRTUAL_ENV|LD_.*|MALLOC_.*|GLIBC_.*|SUNUP_.*|SSL_CERT_.*|OTEL_.*|"
    r"(OMP|OPENBLAS|MKL|ORT|CUDA|NVIDIA|COVERAGE)_.*"
)
SERVICE_SECONDS_MAX = 15.0  # of a start
END_SECONDS = 2.0  # of a stop
STEADY_SECONDS = 10.0  # a process that lived this long is restarted at once when it dies


class Service:
    """One resident process that must always be there: `python -m MODULE RUN_FOLDER OWN_FD [INHERITED_FD ...]`.

    `peer` is there from its hello to its end. `on_up(peer, hello)` runs each time it has said hello; `inherited` gives
    further descriptors it is to own, `given` its environment (by default that of what answers strangers), `rights`
    whose it is, `release` what the code it is started with is called.
    """

    def __init__(
        self,
        role: str,
        module: str,
        project: Project,
        *,
        rights: Rights,
        release: str,
        inherited: Callable[[], list[int]] = list,
        given: Callable[[], dict[str, str]] | None = None,
        on_up: Callable[[Peer, Message], None],
        on_message: Callable[[Peer, Message], None],
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.role = role
        self._module = module
        self.path = project.run / f"{role}.sock"
        self._next = project.run / f"{role}.next"  # of the one that is to replace it
        self._rights = rights
        self._own_release = release
        self._inherited = inherited
        self._given = given or environment
        self._on_up = on_up
        self._on_message = on_message
        self._on_end = on_end
        self._log = project.logs / f"{role}.log"
        self._loop = asyncio.get_running_loop()
        self._started = 0.0
        self._failures = 0
        self._stopping = False
        self._up = asyncio.Event()
        self.ended = asyncio.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._let_go: set[Peer] = set()  # whose end is no concern
        self._new: Peer | None = None  # on its way to replace the one there is
        self._next_hello: asyncio.Future[Message] = self._loop.create_future()
        self.retired = asyncio.Event()  # a door said that it passes nothing any more
        self.peer: Peer | None = None
        self.release = ""  # what its code is called
        self.foreign: tuple[Peer, Message] | None = None  # a living process that speaks another protocol

    def __repr__(self) -> str:
        return f"Service({self.role}, up={self._up.is_set()}, failures={self._failures})"

    async def adopt(self) -> bool:
        """Take over a living process of this role, if there is one that answers and speaks as we do (`foreign`: it does
        not)."""
        if (stray := find(self._next)) is not None:  # it was to replace another one when a supervisor died
            with contextlib.suppress(OSError), stray:
                send(stray, {"op": "stop"})
            self._next.unlink(missing_ok=True)
        sock = find(self.path)
        if sock is None:
            return False
        peer = Peer(self._loop, sock, self._heard, self._ended)
        try:
            await asyncio.wait_for(self._up.wait(), ADOPT_SECONDS_MAX)
        except TimeoutError:
            peer.channel.close()
            return False
        if self.foreign is not None:
            self._up.clear()
        return self.foreign is None

    async def replace(self, hand_over: Callable[[Peer | None], Awaitable[None]]) -> None:
        """Start another process of this role beside the one there is. When it is up, and `hand_over` of the old one has
        been waited for, it is this service's. Raises TimeoutError or EngineError; then the old one serves on."""
        before = self._process
        self._next_hello = self._loop.create_future()
        new = self._new = self._start(self._next)
        born = self._process
        try:
            hello = await asyncio.wait_for(self._next_hello, SERVICE_SECONDS_MAX)
            await hand_over(self.peer)
            self._check_lives()
        except BaseException:
            self._next.unlink(missing_ok=True)
            self._let_go.add(new)
            self._process, self._new = before, None
            if born is not None:
                born.kill()
            if self.peer is None:  # the old one ended meanwhile
                self._restart()
            raise
        self._next.replace(self.path)
        self._new = None
        if self.peer is not None:
            self._let_go.add(self.peer)
        self._is_up(new, hello)

    def _check_lives(self) -> None:
        if self._new is None:
            raise EngineError(f"A new {self.role} ended before it took over; its log says why.")

    def handed_over(self) -> socket.socket | None:
        """The listening socket of a living process that speaks another protocol."""
        fds = [] if self.foreign is None else self.foreign[1].fds
        return socket.socket(fileno=fds[0]) if fds else None

    def start(self) -> None:
        """Start the process; `on_up` follows when it has said hello."""
        self._start(self.path)

    def _start(self, path: Path) -> Peer:
        own, sock = prepare(path)
        inherited = self._inherited()
        fds = [own.fileno(), *inherited]
        command = [sys.executable, "-P", "-m", self._module, str(path.parent), *map(str, fds)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**self._given(), RELEASE: self._own_release},
                **self._rights.process(),
            )
        own.close()
        self._started = self._loop.time()
        peer = Peer(self._loop, sock, self._heard, self._ended)
        peer.watch(self._process.pid)
        return peer

    async def wait_up(self, seconds: float) -> None:
        """Wait until it has said hello. Raises TimeoutError."""
        await asyncio.wait_for(self._up.wait(), seconds)

    def stop(self) -> None:
        """Tell it to end, and do not start it again."""
        self._stopping = True
        if self.peer is not None:
            self.peer.channel.send({"op": "stop"})
        elif self._process is not None and self._process.poll() is None:
            self._process.kill()  # it has not said hello, so it has nothing to finish; `_ended` follows
        else:
            self.ended.set()

    def _heard(self, peer: Peer, message: Message) -> None:
        op = message.head["op"]
        if op == "retired":
            self.retired.set()
        elif op != "hello":
            self._on_message(peer, message)
        elif message.head.get("protocol") != PROTOCOL:
            self._differs(peer, message)
        else:
            if peer.pid == 0:
                peer.watch(message.head["pid"])
            if peer is self._new:
                self._next_hello.set_result(message)
            else:
                self._is_up(peer, message)

    def _differs(self, peer: Peer, message: Message) -> None:
        """It speaks another protocol. One that was found is let go; one started here has another Sunup's code."""
        if peer.pid == 0:
            peer.watch(message.head["pid"])
            self._let_go.add(peer)
            self.foreign = peer, message
            self._up.set()
        else:
            print(f"The {self.role} is of another Sunup than this engine: run `platform up`.", file=sys.stderr)
            peer.kill()

    def _is_up(self, peer: Peer, hello: Message) -> None:
        self.peer = peer  # from now on: nothing may be said to it before what `on_up` says
        self.release = hello.head["release"]
        self._up.set()
        self._on_up(peer, hello)

    def _ended(self, peer: Peer) -> None:
        if self._process is not None:
            self._process.poll()
        if peer in self._let_go:
            self._let_go.discard(peer)
            return
        if peer is self._new:
            self._new = None
            if not self._next_hello.done():
                self._next_hello.set_exception(EngineError(f"A new {self.role} ended at its start; its log says why."))
            return
        self._up.clear()
        self.peer = None
        self._on_end()
        if self._new is not None:
            return  # another one is on its way
        if self._stopping:
            self.ended.set()
            return
        lived = self._loop.time() - self._started
        self._failures = 0 if lived > STEADY_SECONDS else self._failures + 1
        delay = 0.0 if self._failures <= 1 else min(RESTART_BACKOFF_SECONDS_MAX, 0.1 * 2**self._failures)
        self._loop.call_later(delay, self._restart)

    def _restart(self) -> None:
        if not self._stopping:
            self.start()


# Started, never imported: the nursery holds ONNX Runtime, and each keeps its own memory small.
DOOR_MODULE = "sunup.engine.door"
NURSERY_MODULE = "sunup.serve.nursery"


async def stop_all(*services: Service) -> None:
    """Stop them together, and wait END_SECONDS for it."""
    for service in services:
        service.stop()
    await asyncio.wait([asyncio.ensure_future(service.ended.wait()) for service in services], timeout=END_SECONDS)


def listen(host: str, port: int) -> socket.socket:
    """A public listening socket. Raises EngineError when the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise EngineError(
            f"Cannot listen on {host}:{port}: {error.strerror}. Choose another with --port or --metrics-port."
        ) from error


def environment() -> dict[str, str]:
    """What the processes that answer strangers inherit: none of the registry's credentials, nor anybody's key."""
    return {name: value for name, value in os.environ.items() if _INHERITED.fullmatch(name) and name != API_KEY}


def rotate(logs: Path, rights: Rights = NOBODY_ELSE) -> None:
    """Move logs over LOG_BYTES_MAX aside, each over its last one. Workers find another file there and open it."""
    for log in logs.glob("*.log"):
        if log.stat().st_size > LOG_BYTES_MAX:
            fresh, aside = log.with_suffix(".log.new"), log.with_suffix(".log.1")
            fresh.touch(0o640)
            rights.own(fresh)
            aside.unlink(missing_ok=True)
            os.link(log, aside)
            fresh.replace(log)  # there always is one: a worker that is another user's could not make it
