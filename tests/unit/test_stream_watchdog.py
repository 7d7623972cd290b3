"""The watchdog over calls of a broker's client that may never return."""

import subprocess
import sys
import threading
import time

from sunup.stream.kafka.once.watchdog import EXIT, Watchdog

HANGS = """
import logging, sys, threading
from sunup.stream.kafka.once.watchdog import Watchdog
logging.basicConfig(stream=sys.stderr)
watchdog = Watchdog(0.3)
with watchdog.over("a commit"):
    pass
with watchdog.over("a commit"):
    threading.Event().wait()
"""


def test_a_process_whose_call_does_not_return_ends_and_says_why() -> None:
    ran = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=20, check=False)
    assert ran.returncode == EXIT
    assert "a commit has not returned within 0 s: this process ends" in ran.stderr


def test_calls_that_return_are_left_alone_however_many() -> None:
    watchdog, before = Watchdog(0.2), threading.active_count()
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        with watchdog.over("a commit"):
            time.sleep(0.01)
    watchdog.close()
    watchdog.close()
    assert threading.active_count() == before
