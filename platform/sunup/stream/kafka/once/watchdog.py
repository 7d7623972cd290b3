"""Ends a process whose broker's client hangs.

Clients promise an end to every call, and have waits without one. A stream worker that hangs in a transaction holds up
its partitions for ever; one that is gone is replaced, by one of the same name, which ends what it left half done.
"""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Final

from sunup.limits import STREAM_TRANSACTION_SECONDS_MAX

EXIT: Final = 70  # the process's status, EX_SOFTWARE of sysexits.h
_LOOKS: Final = 20  # in the time that is allowed
_log = logging.getLogger("sunup.stream")


class Watchdog:
    """Of one broker object. A thread of its own that looks now and then, so that a call costs two assignments."""

    def __init__(self, seconds: float = STREAM_TRANSACTION_SECONDS_MAX) -> None:
        self._seconds = seconds
        self._begun: tuple[float, str] | None = None
        self._stop = Event()
        self._thread: Thread | None = None

    @contextmanager
    def over(self, what: str) -> Iterator[None]:
        """End the process if the block is not left within the time allowed. `what` it was, for the log."""
        if self._thread is None:
            self._thread = Thread(target=self._look, name="kafka-watchdog", daemon=True)
            self._thread.start()
        self._begun = (time.monotonic(), what)
        try:
            yield
        finally:
            self._begun = None

    def close(self) -> None:
        """Look no more. It looks again when there is another call."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._stop.clear()
        self._thread = None

    def _look(self) -> None:
        while not self._stop.wait(self._seconds / _LOOKS):
            begun = self._begun
            if begun is not None and time.monotonic() > begun[0] + self._seconds:
                _log.critical("%s has not returned within %.0f s: this process ends", begun[1], self._seconds)
                for handler in [*_log.handlers, *logging.getLogger().handlers]:
                    handler.flush()
                os._exit(EXIT)
