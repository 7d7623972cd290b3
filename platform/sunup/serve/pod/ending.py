"""How a pod ends: exit codes, and the last words that Kubernetes shows."""

import json
import os
import sys
from enum import IntEnum
from pathlib import Path
from typing import Final

from sunup.errors import BundleDamaged, ProofFailed, SunupError, UsageError
from sunup.limits import TERMINATION_BYTES_MAX

TERMINATION_LOG: Final = Path("/dev/termination-log")  # Kubernetes makes it, and shows what is in it as the message


class Exit(IntEnum):
    """Exit codes of a pod. 2 to 4 come again at every start until somebody changes something."""

    DONE = 0
    FAILED = 1
    CONFIGURATION = 2
    BUNDLE = 3
    PROOF = 4


def exit_of(error: BaseException) -> Exit:
    """The code that an error ends with."""
    match error:
        case UsageError():
            return Exit.CONFIGURATION
        case BundleDamaged():
            return Exit.BUNDLE
        case ProofFailed():
            return Exit.PROOF
        case _:
            return Exit.FAILED


def last_words(error: BaseException, *, log: Path = TERMINATION_LOG) -> None:
    """One JSON line of `code` and `message`: the last on stderr, and in the termination log where there is one."""
    code, message = "internal", f"{error!r}; the log says more."
    if isinstance(error, SunupError):
        code, message = error.code, error.message
    line = _line(code, message)
    while (over := len(line) - TERMINATION_BYTES_MAX) > 0:
        message = message.encode()[:-over].decode(errors="ignore")
        line = _line(code, message)
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(sys.stderr.fileno(), line)
    try:
        file = os.open(log, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)  # never made: elsewhere there is none
    except OSError:
        return
    try:
        os.write(file, line)
    finally:
        os.close(file)


def _line(code: str, message: str) -> bytes:
    return json.dumps({"code": code, "message": message}, ensure_ascii=False).encode() + b"\n"
