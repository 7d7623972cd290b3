"""The nursery: a process that has imported what a worker needs and does nothing but fork workers from itself.

It starts no thread of its own and never touches CUDA, so a child is whole: it rehearses one cold start, which opens and
drops a session with no thread pool, so that a child finds warm what every birth needs. Small models that are asked for
again it keeps open (serve/kept.py).
Runs as `python -m sunup.serve.nursery RUN_FOLDER OWN_FD`. A request is one link message
{"op": "fork", "id", "asked", ...} with the descriptors the child is to own; the answer {"op": "forked", "id", "pid"}
carries a pidfd, so that the asker can wait for a process that is not its child.
"""

import os

# Before the imports: the pools of numpy's libraries would be threads at fork.
os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")

import gc
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from sunup.access.rights import confine
from sunup.limits import CONNECTIONS_MAX, QUIET_SECONDS, SPARE_DESCRIPTORS
from sunup.link.channel import Message, receive, send
from sunup.link.process import inherit_listener, introduction, name_process, raise_nofile, reap
from sunup.rehearsal import rehearse
from sunup.serve import worker
from sunup.serve.kept import KeptModels
from sunup.serve.telemetry.traces import prepared

Child = Callable[[dict[str, Any], list[int]], None]
Prepare = Callable[[dict[str, Any]], None]
Settle = Callable[[], bool]


class Nursery:
    """Answers fork requests from whoever is connected to `own`. `child(spec, fds)` runs in each new process, after
    `prepare(spec)` in this one: imports a child would have to make, and its siblings again. `settle()` runs when
    the last birth was a while ago; it says whether it has more to do."""

    def __init__(
        self, own: socket.socket, child: Child, prepare: Prepare = lambda _: None, settle: Settle = lambda: False
    ) -> None:
        self._own = own
        self._child = child
        self._prepare = prepare
        self._settle = settle
        self._unsettled = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(own, selectors.EVENT_READ)
        # A child's death interrupts the selector, so that it is reaped at once.
        self._wake_read, self._wake_write = socket.socketpair()
        for end in (self._wake_read, self._wake_write):
            end.setblocking(False)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)

    def run(self) -> None:
        """Serve until told to stop."""
        while True:
            events = self._selector.select(QUIET_SECONDS if self._unsettled else None)
            if not events:
                self._unsettled = self._settle()
            for ready, _ in events:
                sock = ready.fileobj
                assert isinstance(sock, socket.socket)
                if sock is self._own:
                    peer, _ = sock.accept()
                    self._selector.register(peer, selectors.EVENT_READ)
                    send(peer, {"op": "hello", **introduction(), "role": "nursery"})
                elif sock is self._wake_read:
                    sock.recv(4096)
                    reap()
                elif not self._serve(sock):
                    return

    def _serve(self, peer: socket.socket) -> bool:
        """One message of a peer; False when it says stop."""
        message = receive(peer)
        if message is None:
            self._selector.unregister(peer)
            peer.close()
            return True
        if message.head["op"] == "fork":
            self._fork(peer, message)
        return bool(message.head["op"] != "stop")

    def _fork(self, peer: socket.socket, message: Message) -> None:
        self._prepare(message.head)
        self._unsettled = True
        pid = os.fork()
        if pid == 0:
            self._become(message)
        pidfd = os.pidfd_open(pid)  # before any reaping: the number cannot have been used again
        for fd in message.fds:
            os.close(fd)
        send(peer, {"op": "forked", "id": message.head["id"], "pid": pid}, fds=[pidfd])
        os.close(pidfd)

    def _become(self, message: Message) -> NoReturn:
        """Run the child, and end without the parent's clean-up: none of what it would close is ours."""
        code = 70
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for registered in list(self._selector.get_map().values()):
                assert isinstance(registered.fileobj, socket.socket)
                registered.fileobj.close()
            self._wake_write.close()
            self._selector.close()
            self._child(message.head, message.fds)
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def main() -> None:
    """Entry point: RUN_FOLDER, then the number of the own listening socket."""
    raise_nofile()
    confine(descriptors=CONNECTIONS_MAX + SPARE_DESCRIPTORS)  # once, for every worker
    name_process("sunup-nursery")
    own = inherit_listener(int(sys.argv[2]))
    rehearse()
    prepared()
    gc.collect()
    gc.freeze()  # what exists now is never scanned, so a child does not copy its pages
    kept = KeptModels()

    def prepare(spec: dict[str, Any]) -> None:
        worker.prepare(spec)
        kept.of(spec)  # asked for here, too, where it is remembered

    def child(spec: dict[str, Any], fds: list[int]) -> None:
        worker.born(spec, fds, kept.of(spec))

    Nursery(own, child, prepare, kept.settle).run()


if __name__ == "__main__":
    main()
