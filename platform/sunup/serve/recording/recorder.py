"""The recorder: a process that turns what workers spooled into the files of the served-feature log.

It runs as `python -m sunup.serve.recording.recorder RUN_FOLDER OWN_FD`, a child of the engine, as the engine's own
user, and ends with it: whatever it was doing then is taken up where it stopped (served/shelf.py). It is there while
there is something in the spool, and gives way to every other process. To write files it imports pyarrow, which makes it
five times as large; when it has written none for a while it asks to be replaced by a fresh one.
"""

import asyncio
import fcntl
import gc
import logging
import os
import sys
import time
from pathlib import Path
from typing import Final

from sunup.bundle.store import read_manifest
from sunup.errors import CommandError
from sunup.limits import SERVED_LOOK_SECONDS, SERVED_REST_SECONDS, SERVED_RETRY_SECONDS
from sunup.link.channel import Channel
from sunup.link.process import inherit_listener, introduction, name_process
from sunup.serve.telemetry.log import configure
from sunup.served.schema import Heading
from sunup.served.shelf import File, Moved, Shelf, Terms
from sunup.served.spool import Group
from sunup.settings import Project

_LOG: Final = logging.getLogger("sunup.recorder")
NICE: Final = 10  # its files can wait; calls cannot


class Recorder:
    """Looks at the spool once a second, in a thread: reading, compressing and flushing take what they take."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._shelf = Shelf(project.served, project.spool, terms=self._terms, make=_make)
        self._known: dict[Group, Terms | None] = {}
        self._recovered = False
        self._wrote: float | None = None  # a file, the last time; monotonic seconds

    def __repr__(self) -> str:
        return f"Recorder({self._shelf!r})"

    def look(self, *, everything: bool = False) -> bool:
        """Write what is due, or everything that is whole; whether there is nothing to stay for. Raises OSError."""
        if not self._recovered:
            self._shelf.recover()
            self._recovered = True
        for moved in self._shelf.move(time.time(), everything=everything):
            self._told(moved)
            self._wrote = time.monotonic()
            gc.collect()
        rests = self._wrote is not None and time.monotonic() - self._wrote > SERVED_REST_SECONDS
        return rests or self._shelf.empty()

    def _told(self, moved: Moved) -> None:
        _LOG.info("wrote %s", moved.path, extra={"rows": moved.rows})
        for reason in moved.damaged:
            _LOG.error("rows are lost: %s", reason)
        if moved.lost:
            _LOG.error("%d rows do not fit the types of their columns, and are left out", moved.lost)

    def _terms(self, group: Group) -> Terms | None:
        """What the bundle says, not the spool: that may be another user's."""
        if group not in self._known:
            try:
                manifest = read_manifest(self._project.bundles / group.digest)
            except CommandError as error:
                _LOG.error("rows of %s stay in the spool: %s", group, error.message)
                self._known[group] = None
            else:
                log = manifest.log if manifest.function == group.function else None
                folder = self._project.root / log.path if log is not None else Path()
                self._known[group] = None if log is None else Terms(folder, log.rotate_s, log.size)
        return self._known[group]


def _make(path: Path, heading: Heading) -> File:
    from sunup.served.parquet import ParquetFile  # pyarrow: 0.3 s and 40 MB, which a recorder that only waits spares

    return ParquetFile(path, heading)


async def live(run: Path, own: int) -> None:
    """Record until the engine says stop, or is gone. `finish`, before that: write everything first."""
    loop = asyncio.get_running_loop()
    said: asyncio.Queue[str] = asyncio.Queue()
    listener = inherit_listener(own)
    sock, _ = listener.accept()  # the engine connected before this process was born, and nobody else is to
    listener.close()
    # When the engine is gone this ends at any moment, in the middle of a file too: see served/shelf.py.
    channel = Channel(loop, sock, lambda _, message: said.put_nowait(message.head["op"]), lambda _: os._exit(0))
    project = Project(run.parent.parent)
    recorder = Recorder(project)
    channel.send({"op": "hello", **introduction()})
    with (project.served / "lock").open("w") as lock:  # one that was started before may be ending just now
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        pause, op = 0.0, ""
        while op != "stop":
            try:
                op = await asyncio.wait_for(said.get(), pause)
            except TimeoutError:
                op = ""
            if op in ("", "finish"):
                pause = await _look(recorder, channel, everything=op == "finish")


async def _look(recorder: Recorder, channel: Channel, *, everything: bool) -> float:
    """Look once; seconds to the next look."""
    try:
        done = await asyncio.to_thread(recorder.look, everything=everything)
    except Exception as error:  # a full disk, or a bug: what is spooled stays, and is tried again
        _LOG.exception("rows could not be written, and stay in the spool: %r", error)
        return SERVED_RETRY_SECONDS
    if done:
        channel.send({"op": "done"})
    return SERVED_LOOK_SECONDS


def main(run: str, own: str) -> None:
    """Entry point."""
    name_process("sunup-recorder")
    gc.disable()  # what is read is values in lists: looking through them for cycles takes longer than all the rest
    os.umask(0o077)  # what callers sent is in these files
    os.nice(NICE)
    configure(None)
    asyncio.run(live(Path(run), int(own)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
