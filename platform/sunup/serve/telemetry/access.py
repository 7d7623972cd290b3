"""The access log: JSON lines of calls beside the function's log; some of those that went well, all that failed here.

A line says which function answered, with what status and how long it took: no body, no key, no feature, no query. Lines
are gathered and written together, at most once a second; a worker that is killed takes the last second's with it.
"""

import asyncio
import logging
import os
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from math import log
from pathlib import Path
from typing import Final

import msgspec

from sunup.limits import ACCESS_FLUSH_SECONDS, ACCESS_LINES_MAX
from sunup.types import Timings

_LOG: Final = logging.getLogger(__name__)
_STAGES: Final = ("decode", "lookup", "batch", "execute", "encode")


class Line(msgspec.Struct, omit_defaults=True):
    """One call. `ms`: milliseconds per stage that took time, cold start included; `trace`: the trace id its caller
    sent, or its span's; `bytes_in`, `bytes_out`: of the bodies; `dropped`: lines there was no room for before it."""

    time: str
    function: str
    revision: int
    status: int
    path: str
    ms: dict[str, float]
    id: str = ""
    error: str = ""
    bytes_in: int = 0
    bytes_out: int = 0
    records: int = 0
    trace: str = ""
    dropped: int = 0


class AccessLog:
    """Writes the lines of one worker to the file at `path`, which is found again when it is rotated away.

    `rate`: of the calls that did not fail here (status below 500), the share that is kept. Belongs to an event loop.
    """

    def __init__(self, path: Path, *, rate: float, function: str, revision: int) -> None:
        self._path = path
        self._rate = rate
        self._function = function
        self._revision = revision
        self._encode = msgspec.json.Encoder().encode
        self._lines: list[bytes] = []
        self._dropped = 0
        self._skip = self._gap()
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"AccessLog({self._path}, rate={self._rate:g})"

    def due(self, status: int) -> bool:
        """Whether a call with this status gets a line. Asked once per call: most of the time this is all it costs."""
        if status >= 500:
            return self._rate > 0
        self._skip -= 1
        if self._skip >= 0:
            return False
        self._skip = self._gap()
        return True

    def set_rate(self, rate: float) -> None:
        """From now on; 0: no lines at all."""
        self._rate = rate
        self._skip = self._gap()

    def note(
        self,
        status: int,
        path: bytes,
        *,
        seconds: float,
        timings: Timings | None = None,
        cold: Mapping[str, float] | None = None,
        **more: str | int,
    ) -> None:
        """A line. `seconds`: the whole call; `timings`: None where it failed; `more`: further fields of Line."""
        if len(self._lines) >= ACCESS_LINES_MAX:
            self._dropped += 1
            return
        spent = {stage: getattr(timings, stage) for stage in _STAGES} if timings is not None else {}
        spent = {**(cold or {}), **spent, "total": seconds}
        line = Line(
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            function=self._function,
            revision=self._revision,
            status=status,
            path=path.partition(b"?")[0].decode("latin-1"),
            ms={stage: round(1000 * took, 3) for stage, took in spent.items() if took},
            dropped=self._dropped,
        )
        for name, value in more.items():
            setattr(line, name, value)
        self._dropped = 0
        self._lines.append(self._encode(line))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(ACCESS_FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Write what is gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._lines:
            return
        data = b"\n".join([*self._lines, b""])
        self._lines.clear()
        try:
            # Opened each time, which follows a rotation; appended in one write, which other workers do not cut.
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                os.write(file, data)
            finally:
                os.close(file)
        except OSError as error:  # a full disk is no reason to refuse calls
            _LOG.warning("access log lines were lost: %s", error)

    def _gap(self) -> int:
        """How many calls are skipped before the next line: geometrically distributed, as if each drew for itself."""
        if self._rate >= 1:
            return 0
        if self._rate <= 0:
            return 1 << 62
        return int(log(1 - random.random()) / log(1 - self._rate))
