"""The packager's child, `python -m sunup.bundle.convert.child SECONDS_MAX`: jobs on standard input, answers on output.

It imports the converters once. Every job runs in a forked process of its own, with limits on memory and processor time
and a pipe to answer through, so that whatever a model's pickle does ends with that process.
"""

import contextlib
import ctypes
import importlib
import math
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Final, NoReturn

from sunup.bundle.convert.task import run
from sunup.bundle.job import Inbox, Job, Keep, Message, Ready, Refusal, Stage, frame
from sunup.errors import CommandError, ConversionRefused
from sunup.limits import PACKAGER_IDLE_SECONDS, PACKAGER_MEMORY_BYTES_MAX

# What MLflow imports only when it loads a model: half a second that every job would pay in its own process.
LATE: Final = ("mlflow.pyfunc", "skops.io")

_PR_SET_PDEATHSIG: Final = 1
_SMALLER: Final = "Train a smaller model, or fewer trees."
_ENDING_SECONDS: Final = 5.0  # s a job's process may take to end once it closed its pipe


class Child:
    """Serves jobs until its input ends or it has been idle for long. `jobs`, `answers`: descriptors of the packager;
    `seconds_max`: what one job may take.
    """

    def __init__(self, jobs: int, answers: int, seconds_max: float) -> None:
        self._jobs, self._answers, self._seconds_max = jobs, answers, seconds_max

    def serve(self, seconds: float) -> None:
        """Say that the libraries are there (which took `seconds`), then work."""
        inbox = Inbox(self._jobs)
        self._send(Ready(seconds))
        while True:
            try:
                job = inbox.receive(PACKAGER_IDLE_SECONDS)
            except TimeoutError:
                return
            if isinstance(job, Keep):
                continue
            if not isinstance(job, Job) or not self._do(job):
                return

    def _do(self, job: Job) -> bool:
        """Run one job in a process of its own. False when the packager is gone."""
        scratch = Path(job.out) / ".scratch"
        scratch.mkdir(exist_ok=True)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            for descriptor in (reader, self._jobs, self._answers):
                os.close(descriptor)
            _work(job, writer, scratch, self._seconds_max)
        os.close(writer)
        try:
            last = self._relay(pid, Inbox(reader))
        finally:
            os.close(reader)
            # Before the last message: the folder is the packager's from then on.
            shutil.rmtree(scratch, ignore_errors=True)
        if last is not None:
            self._send(last)
        return last is not None

    def _relay(self, pid: int, inbox: Inbox) -> Message | None:
        """Pass on what a job says before its last message. Returns that, or what happened if it never comes; None when
        the packager is gone.
        """
        deadline = time.monotonic() + self._seconds_max
        try:
            while isinstance(message := inbox.receive(deadline - time.monotonic(), stop=self._jobs), Stage):
                self._send(message)
        except ValueError:  # what the model's code wrote is no message
            message = Refusal(ConversionRefused.code, "The model's own code disturbed its conversion.")
        except TimeoutError:
            message = Refusal(ConversionRefused.code, self._explain(-signal.SIGXCPU))
        gone = bool(select.select([self._jobs], [], [], 0)[0])
        status = _end(pid, at_once=gone or message is not None)
        if message is None and not gone:
            return Refusal(ConversionRefused.code, self._explain(status))
        return message

    def _explain(self, status: int) -> str:
        if status == -signal.SIGXCPU:
            return f"The conversion took more than {self._seconds_max:.0f} s and was ended. Train a smaller model."
        if status == -signal.SIGKILL:
            return f"The conversion was killed, most likely for lack of memory. {_SMALLER}"
        how = f"by signal {-status}" if status < 0 else f"with code {status}"
        return f"The conversion's process ended {how} before it was done. The packager's log may say why."

    def _send(self, message: Message) -> None:
        _write(self._answers, message)


def _work(job: Job, answers: int, scratch: Path, seconds_max: float) -> NoReturn:
    """The forked process: limits, then the job, then nothing else of this process runs."""
    last: Message
    try:
        _limit(seconds_max)
        os.chdir(scratch)
        tempfile.tempdir = str(scratch)
        last = run(job, lambda name, seconds: _write(answers, Stage(name, seconds)))
    except CommandError as error:
        last = Refusal(error.code, error.message)
    except MemoryError:
        limit = PACKAGER_MEMORY_BYTES_MAX >> 30
        last = Refusal(ConversionRefused.code, f"The conversion needs more than {limit} GiB of memory. {_SMALLER}")
    except BaseException as error:  # a model's pickle may raise even SystemExit
        traceback.print_exc()
        sys.stderr.flush()
        reason = f"The conversion failed unexpectedly ({type(error).__name__}: {error}). The packager's log says where."
        last = Refusal(ConversionRefused.code, reason)
    try:
        _write(answers, last)
    finally:
        os._exit(0)


def _limit(seconds_max: float) -> None:
    """End with the parent, and use no more memory, processor time or core files than a job may."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory = pages * resource.getpagesize() + PACKAGER_MEMORY_BYTES_MAX
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    seconds = math.ceil(seconds_max)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _write(descriptor: int, message: Message) -> None:
    data = frame(message)
    while data:
        data = data[os.write(descriptor, data) :]


def _end(pid: int, *, at_once: bool) -> int:
    """Wait for a job's process and end it if it does not. Returns its exit code, or minus the signal that ended it."""
    if not at_once:
        watched = os.pidfd_open(pid)
        select.select([watched], [], [], _ENDING_SECONDS)
        os.close(watched)
    os.kill(pid, signal.SIGKILL)  # no error when it has ended: it is not waited for yet
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(seconds_max: float) -> None:
    """Take over standard input and output, so that what a library prints goes to the log instead; then serve."""
    jobs, answers = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    for name in LATE:
        with contextlib.suppress(ModuleNotFoundError):  # older versions of MLflow do without
            importlib.import_module(name)
    Child(jobs, answers, seconds_max).serve(time.clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID))


if __name__ == "__main__":
    main(float(sys.argv[1]))
