"""The packager: a handle on the child process that converts models.

The child starts with a clean environment (no credentials), imports its libraries once and stays warm; each job runs in
a process of its own there. Several threads may call `convert`; jobs are done one after another.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

import sunup
from sunup.bundle.job import Inbox, Job, Keep, Message, Ready, Refusal, Result, Stage, frame
from sunup.errors import CommandError, ConversionRefused, ParityFailed
from sunup.limits import PACKAGER_SECONDS_MAX

INHERITED: Final = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "TZ")
GIVEN: Final = {
    # One thread, so that sums have one order and the process can fork; one hash seed, so that sets have one too.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    # MLflow reports its use over the network otherwise.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}
_GRACE_SECONDS: Final = 10.0  # s beyond the child's own limit before it is given up itself
_ERRORS: Final = {error.code: error for error in (ConversionRefused, ParityFailed)}

OnStage = Callable[[str, float], None]


class Packager:
    """Converts models in a child process. `log`: file for what the child prints (default: our standard error);
    `seconds_max`: what one conversion may take; `python`: of another environment, to convert in that.
    """

    def __init__(
        self, log: Path | None = None, *, seconds_max: float = PACKAGER_SECONDS_MAX, python: Path | None = None
    ) -> None:
        self._log = log
        self._python = python
        self._seconds_max = seconds_max
        self._alone: tempfile.TemporaryDirectory[str] | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._inbox: Inbox | None = None
        self._ready = False
        self._turn = threading.RLock()

    def __repr__(self) -> str:
        state = "none" if self._child is None else f"pid {self._child.pid}, {'warm' if self._ready else 'starting'}"
        return f"Packager({state})"

    def start(self) -> None:
        """Start the child unless it lives. Returns at once; it takes seconds to become warm."""
        with self._turn:
            if self._child is not None and self._child.poll() is None:
                return
            self.close()
            with contextlib.ExitStack() as stack:
                log: IO[bytes] | None = None
                if self._log is not None:
                    self._log.parent.mkdir(parents=True, exist_ok=True)
                    log = stack.enter_context(self._log.open("ab"))
                self._child = subprocess.Popen(
                    [
                        str(self._python or sys.executable),
                        "-P",
                        "-m",
                        "sunup.bundle.convert.child",
                        str(self._seconds_max),
                    ],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    bufsize=0,
                    env=_environment(self._source()),
                    start_new_session=True,
                )
            assert self._child.stdout is not None
            self._inbox = Inbox(self._child.stdout.fileno())

    def convert(self, job: Job, on_stage: OnStage = lambda _name, _seconds: None) -> Result:
        """Convert and prove one model; the job's folder then holds its files. `on_stage`: see pack.

        Raises ConversionRefused or ParityFailed with the child's reason.
        """
        with self._turn:
            was_warm = self._ready
            self.start()
            try:
                last = self._exchange(job, on_stage)
                if last is None and was_warm:
                    # It ended itself, idle for long, just as the job came.
                    self.close()
                    self.start()
                    last = self._exchange(job, on_stage)
            except TimeoutError:
                self.close()
                last = Refusal(ConversionRefused.code, "The packager stopped answering. Try again.")
        if isinstance(last, Result):
            return last
        if isinstance(last, Refusal):
            raise _ERRORS.get(last.code, CommandError)(last.message)
        raise ConversionRefused(f"The packager ended unexpectedly.{self._where()} Try again.")

    def keep(self) -> None:
        """Have a child that stays for as long again as one stays that has nothing to do."""
        with self._turn:
            self.start()
            assert self._child is not None
            assert self._child.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it ended just now: the next job starts another
                self._child.stdin.write(frame(Keep()))

    def close(self) -> None:
        """End the child, at once and with all it started."""
        with self._turn:
            child, self._child, self._inbox, self._ready = self._child, None, None, False
            if self._alone is not None:
                self._alone.cleanup()
                self._alone = None
            if child is None:
                return
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    stream.close()
            child.wait()

    def _exchange(self, job: Job, on_stage: OnStage) -> Message | None:
        """Send a job and wait for its last message; None when the child ended before."""
        assert self._child is not None
        assert self._child.stdin is not None
        assert self._inbox is not None
        if not self._ready:
            self._ready = isinstance(self._inbox.receive(PACKAGER_SECONDS_MAX), Ready)
        try:
            self._child.stdin.write(frame(job))
        except BrokenPipeError:
            return None
        while isinstance(message := self._inbox.receive(self._seconds_max + _GRACE_SECONDS), Stage):
            on_stage(message.name, message.seconds)
        return message

    def elsewhere(self, python: Path) -> "Packager":
        """Another packager with the same log and limits, whose child runs in the environment of `python`."""
        return Packager(self._log, seconds_max=self._seconds_max, python=python)

    def _source(self) -> Path:
        """Where the child finds Sunup itself, also when it is run from its source folder: in another environment a
        folder that holds nothing else."""
        package = Path(sunup.__file__).parent
        if self._python is None:
            return package.parent
        self._alone = tempfile.TemporaryDirectory(prefix="sunup-")
        (Path(self._alone.name) / package.name).symlink_to(package)
        return Path(self._alone.name)

    def _where(self) -> str:
        return f" {self._log} may say why." if self._log else ""


def _environment(source: Path) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {**inherited, **GIVEN, "PYTHONPATH": str(source)}
