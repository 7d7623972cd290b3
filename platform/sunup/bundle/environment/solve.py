"""The environment a model was made in, as far as its answers depend on it: solved from its requirements, made once.

    ~/.cache/sunup/environments/<digest>/     an environment; the digest is of its lock and of this Python
    ~/.cache/sunup/environments/locks/<key>   the lock these requirements gave when they were solved

An environment is made beside and renamed: it is there whole or not at all. The longest unused ones go when there are
more than ENVIRONMENTS_MAX.
"""

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from sunup.bundle.environment.pins import Pin, installed_version
from sunup.bundle.environment.uv import canonical, uv
from sunup.errors import ConversionRefused
from sunup.limits import ENVIRONMENT_SECONDS_MAX, ENVIRONMENTS_MAX

# What the packager's child imports. A model runs on our ONNX Runtime afterwards, and speaks to us in our messages.
EXACT: Final = ("msgspec", "onnxruntime")
CHILD: Final = ("lightgbm", "mlflow", "numpy", "onnx", "pandas", "pyarrow", "scikit-learn", "skl2onnx", "skops")
XGBOOST: Final = ("xgboost", "xgboost-cpu")
# What of a model's requirements decides no answer, or is there under another name.
IGNORED: Final = ("mlflow", "mlflow-skinny", "onnxruntime", "onnxruntime-gpu", "msgspec")


def environments(cache: Path | None = None) -> Path:
    """The folder of environments: the user's cache unless `cache` says."""
    home = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "sunup" / "environments"


def environment(requirements: Sequence[str], pins: Sequence[Pin], root: Path) -> Path:
    """The Python of an environment for a model with these requirements, made under `root` unless it is there.

    Raises ConversionRefused with the solver's reason. Takes some tens of seconds the first time, if nothing is cached.
    """
    made_with = ", ".join(f"{pin.name} {pin.wanted} ({pin.installed or 'none'} is installed here)" for pin in pins)
    failed = (
        f"The model was made with {made_with}, and an environment with it for Python {platform.python_version()} "
        "cannot be made. Train and register the model again with what is installed, or mend its requirements"
    )
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root):
        lock = _lock(requirements, root, failed)
        home = root / hashlib.sha256(f"{sys.version}\n{lock.read_text()}".encode()).hexdigest()
        if not home.is_dir():
            _make(home, lock, failed)
        os.utime(home)
        _forget_oldest(root)
    return home / "bin" / "python"


def wanted(requirements: Sequence[str]) -> list[str]:
    """The model's requirements and what the packager's child needs beside them, one a line."""
    theirs = [line for line in requirements if canonical(_name(line)) not in IGNORED and not line.startswith("-")]
    names = {canonical(_name(line)) for line in theirs}
    ours = [f"{name}=={number}" for name in EXACT if (number := installed_version(name))]
    ours += [name for name in CHILD if name not in names]
    return sorted(theirs) + ours + ([] if names & set(XGBOOST) else ["xgboost-cpu"])


def _name(line: str) -> str:
    for place, letter in enumerate(line):
        if letter not in "._-" and not letter.isalnum():
            return line[:place]
    return line


def _lock(requirements: Sequence[str], root: Path, failed: str) -> Path:
    lines = wanted(requirements)
    key = hashlib.sha256("\n".join([sys.version, *lines]).encode()).hexdigest()
    lock = root / "locks" / f"{key}.txt"
    if lock.is_file():
        return lock
    lock.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sunup-") as scratch:
        asked, solved = Path(scratch) / "requirements.in", Path(scratch) / "lock.txt"
        asked.write_text("\n".join(lines) + "\n")
        # What a lock says already is kept where it can be: so the environment differs from ours only where it must.
        have = {name: installed_version(name) for name in (*CHILD, "xgboost-cpu")}
        solved.write_text("".join(f"{name}=={number}\n" for name, number in have.items() if number))
        uv(
            "pip", "compile", str(asked), "--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url",
            "--only-binary", ":all:", "--python", sys.executable, "-o", str(solved),
            folder=Path(scratch),
            failed=failed,
        )  # fmt: skip
        beside = lock.with_suffix(f".{os.getpid()}")
        shutil.copyfile(solved, beside)
        beside.replace(lock)
    return lock


def _make(home: Path, lock: Path, failed: str) -> None:
    beside = Path(tempfile.mkdtemp(prefix=".making-", dir=home.parent))
    try:
        folder = beside / "environment"
        uv("venv", "--relocatable", "--python", sys.executable, str(folder), folder=beside, failed=failed)
        uv(
            "pip", "install", "--require-hashes", "--only-binary", ":all:", "--python", str(folder / "bin" / "python"),
            "-r", str(lock),
            folder=beside,
            failed=failed,
            seconds_max=ENVIRONMENT_SECONDS_MAX,
        )  # fmt: skip
        folder.rename(home)
    except OSError as error:
        raise ConversionRefused(f"{failed}: {error}.") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _forget_oldest(root: Path) -> None:
    """What was left half made, and the environments that were not used for longest."""
    for left in root.glob(".making-*"):
        shutil.rmtree(left, ignore_errors=True)
    homes = sorted((path for path in root.iterdir() if len(path.name) == 64), key=lambda path: path.stat().st_mtime)
    for home in homes[:-ENVIRONMENTS_MAX]:
        gone = home.with_name(f".making-{home.name}")  # out of sight at once, whole
        home.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    """One process at a time makes environments."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
