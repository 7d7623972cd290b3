"""What stream workers are called towards their brokers: whoever gets a dead one's slot gets its name."""

import hashlib
import re
import socket
from collections.abc import Collection
from pathlib import Path
from typing import Final

MACHINE: Final = Path("/etc/machine-id")  # machine-id(5); some containers have none


def place(run: Path) -> str:
    """This engine among others that may read in the same group: two of one name would fence each other for ever. The
    same after whatever restarts; in a pod the host's name is the pod's own."""
    machine = MACHINE.read_text() if MACHINE.exists() else ""
    return hashlib.sha256(f"{socket.gethostname()} {machine} {run}".encode()).hexdigest()[:8]


def reader_name(function: str, slot: int | str, place: str) -> str:
    """The worker in that slot of a function, of the engine at `place`."""
    return f"{function}-{slot}-{place}"


def is_dead(name: str, function: str, slots: Collection[int], place: str) -> bool:
    """Whether a reader of that name was this engine's, and is none of those in `slots`, who live. Of another engine's
    nothing is known here."""
    found = re.fullmatch(reader_name(re.escape(function), r"(\d+)", place), name)
    return found is not None and int(found[1]) not in slots
