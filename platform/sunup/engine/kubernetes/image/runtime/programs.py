"""Programs the runtime image is made with: apt, dpkg-deb, and the image's own Python, which runs here without being
installed."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from sunup.engine.kubernetes.image.model import architecture
from sunup.errors import ImageError
from sunup.limits import IMAGE_COMPILE_SECONDS_MAX

_SHOWN: Final = 600  # characters of what a program says
_TRIPLETS: Final = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
_LOADERS: Final = {"amd64": "ld-linux-x86-64.so.2", "arm64": "ld-linux-aarch64.so.1"}


def run(
    command: Sequence[str | Path],
    *,
    failed: str,
    seconds_max: float,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """What a program says. Raises ImageError: `failed` and the program's own reason."""
    try:
        ran = subprocess.run(
            command,
            cwd=folder,
            env={"LC_ALL": "C.UTF-8", **(os.environ if environment is None else environment)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds_max,
        )
    except FileNotFoundError as error:
        raise ImageError(
            f"{failed}: {Path(command[0]).name} is not there. The runtime image is made on Debian 12, of its packages."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ImageError(f"{failed}: {Path(command[0]).name} took more than {seconds_max:.0f} s.") from error
    if ran.returncode:
        said = " ".join((ran.stderr or ran.stdout).split())[:_SHOWN]
        raise ImageError(f"{failed}: {said or f'{Path(command[0]).name} ended with {ran.returncode}'}")
    return ran.stdout


def compile_python(root: Path, version: str, folder: Path, lies_at: str) -> None:
    """Compile every Python file below `folder`, which will lie at `lies_at` in the image, with the Python of the image
    unpacked at `root`: whoever makes it has perhaps another one, which would compile to other bytes.

    Files are found unchanged by nobody (unchecked-hash, PEP 552): times mean nothing in an image. One process and no
    random hashes, so that the bytes are the same each time."""
    machine = architecture()
    libraries = [root / place / _TRIPLETS[machine] for place in ("lib", "usr/lib")]
    loader = libraries[0] / _LOADERS[machine]
    python: list[str | Path] = [
        loader,
        "--library-path",
        ":".join(map(str, libraries)),
        root / f"usr/bin/python{version}",
    ]
    how = ["-m", "compileall", "-q", "-f", "-j", "1", "--invalidation-mode", "unchecked-hash"]
    run(
        [*python, "-S", "-P", *how, "-s", str(folder), "-p", lies_at, folder],
        failed="Python files of the runtime image cannot be compiled",
        seconds_max=IMAGE_COMPILE_SECONDS_MAX,
        environment={"PYTHONHOME": str(root / "usr"), "PYTHONHASHSEED": "0"},
    )
