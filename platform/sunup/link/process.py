"""Small facts about processes that every Sunup process needs: descriptors, memory, names, parenthood."""

import ctypes
import hashlib
import importlib.metadata
import os
import resource
import socket
import sys
from functools import cache
from pathlib import Path
from typing import Any, Final

# The words that processes say to each other. Raised when a process of the version before would misunderstand one, or
# would need to know one: then neither is adopted by the other, which says `hello`, `close`, `drain` and `stop` only.
PROTOCOL: Final = 1
RELEASE: Final = "SUNUP_RELEASE"  # environment variable: what the supervisor that started a process called its code

_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36


@cache
def _libc() -> ctypes.CDLL:
    """Opened once, and before a fork: opening it makes a class, which costs a newborn worker 0.3 ms."""
    return ctypes.CDLL(None, use_errno=True)


def reap() -> None:
    """Take leave of the children that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass  # none left


def raise_nofile() -> int:
    """Raise the soft limit of open descriptors to the hard one; the limit in force."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def inherit_listener(number: int) -> socket.socket:
    """The listening socket that a parent left open at descriptor `number`. Not inherited any further."""
    os.set_inheritable(number, False)
    return socket.socket(fileno=number)


def name_process(name: str) -> None:
    """Show `name` (its first 15 bytes) in ps and top instead of the parent's."""
    _libc().prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def become_subreaper() -> None:
    """Become the parent of descendants whose own parent dies, so that none is left unreaped (prctl(2))."""
    libc = _libc()
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def started() -> float:
    """When the kernel started this process, in seconds of CLOCK_BOOTTIME; it counts in steps of 10 ms (proc(5))."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return ticks / os.sysconf("SC_CLK_TCK")


def introduction() -> dict[str, Any]:
    """What every process says of itself in its hello."""
    return {"pid": os.getpid(), "protocol": PROTOCOL, "release": os.environ.get(RELEASE, "")}


def release() -> str:
    """What this code is called: a digest of Sunup's source, the interpreter and ONNX Runtime. Takes milliseconds."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256("|".join([sys.version, *_runtimes()]).encode())
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def pss_bytes(pid: int) -> int:
    """Proportional set size of a process: its private memory plus its share of what it shares. 0 when it is gone; where
    another user's may not be looked into, all that is resident but for files, which counts what is shared in full."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except PermissionError:
        resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
        return (int(resident) - int(shared)) * resource.getpagesize()
    except OSError:
        return 0
    line = next((one for one in text.splitlines() if one.startswith("Pss:")), "Pss: 0 kB")
    return int(line.split()[1]) * 1024


def resident_bytes() -> int:
    """The memory of this process that is in use now, shared or not, but for files."""
    _, resident, shared = Path("/proc/self/statm").read_text().split()[:3]
    return (int(resident) - int(shared)) * resource.getpagesize()


def trim_heap() -> None:
    """Give the memory that the C library holds free back to the system, where it can (malloc_trim(3) of glibc)."""
    trim = getattr(_libc(), "malloc_trim", None)
    if trim is not None:
        trim(0)


def machine_key() -> str:
    """What a self-proof holds for: this machine's CPU flags and the installed version of ONNX Runtime."""
    info = Path("/proc/cpuinfo").read_text()
    flags = next((line for line in info.splitlines() if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256("|".join([flags, *_runtimes()]).encode()).hexdigest()[:16]


def _runtimes() -> list[str]:
    """The installed versions of ONNX Runtime."""
    return sorted(found for name in ("onnxruntime", "onnxruntime-gpu") if (found := _version(name)))


def _version(distribution: str) -> str:
    """`name=version` of an installed distribution, else "". Asked by name: a walk over all of them takes 50 ms."""
    try:
        return f"{distribution}={importlib.metadata.version(distribution)}"
    except importlib.metadata.PackageNotFoundError:
        return ""
