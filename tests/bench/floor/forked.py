"""One answer from a fork of this process, as the floors of cold starts measure it."""

import os
import struct
from collections.abc import Callable
from time import perf_counter


def start(answer: Callable[[], float]) -> tuple[float, float]:
    """Seconds from just before the fork to the first byte of what `answer` gave in the child, and that answer."""
    began = perf_counter()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, struct.pack("d", answer()))
        os._exit(0)
    os.close(write)
    told = os.read(read, 8)
    seconds = perf_counter() - began
    os.close(read)
    os.waitpid(pid, 0)
    return seconds, struct.unpack("d", told)[0]
