"""The state of each connection a worker holds: one byte in shared memory, read by the door when the worker dies."""

import mmap
from enum import IntEnum
from pathlib import Path

from sunup.limits import CONNECTIONS_MAX


class State(IntEnum):
    """What a worker is doing with a connection. FREE: passed to it, but not yet taken."""

    FREE = 0
    IDLE = 1  # between requests: the door can take it back unseen
    READING = 2  # bytes of a request were read: the door answers 503 if the worker dies
    EXECUTING = 3  # a whole request is in hand: the same
    WRITING = 4  # part of an answer may be out: the door resets the connection


def create_states(path: Path) -> None:
    """Make the state file of a worker about to be born: zeros, written, so that a full disk fails here."""
    path.write_bytes(bytes(CONNECTIONS_MAX))


def map_states(path: Path) -> memoryview:
    """Map a state file; index i is the connection in slot i. A store of one byte is atomic."""
    with path.open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), CONNECTIONS_MAX))


def unmap_states(states: memoryview) -> None:
    """Undo `map_states`."""
    mapped = states.obj
    assert isinstance(mapped, mmap.mmap)
    states.release()
    mapped.close()
