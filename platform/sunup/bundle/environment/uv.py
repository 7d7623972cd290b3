"""uv, which resolves and installs packages: the one place it is run.

It gets what concerns it of our environment (indexes, certificates, proxies), builds nothing and runs nobody's code.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from sunup.errors import ConversionRefused
from sunup.limits import SOLVER_SECONDS_MAX

CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
_PASSED: Final = re.compile(
    r"(UV|SSL)_.*|(https?|all|no)_proxy|HOME|PATH|LANG|TMPDIR|XDG_CACHE_HOME|NETRC", re.IGNORECASE
)
_SHOWN: Final = 600  # characters of the resolver's reason


def canonical(name: str) -> str:
    """A distribution's name as registries compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def uv(*arguments: str, folder: Path, failed: str, seconds_max: float = SOLVER_SECONDS_MAX) -> None:
    """Run uv in `folder`. Raises ConversionRefused: `failed` and uv's own reason, shortened."""
    beside = Path(sys.executable).with_name("uv")
    program = str(beside) if beside.is_file() else shutil.which("uv")
    if program is None:
        raise ConversionRefused(f"{failed}: uv, which resolves and installs, is not there. Run: pip install uv")
    given = {name: value for name, value in os.environ.items() if _PASSED.fullmatch(name)}
    if CERTIFICATES.exists():  # where the system has a store of certificates, it is the one that knows this network's
        given.setdefault("UV_SYSTEM_CERTS", "true")
    try:
        ran = subprocess.run(
            [program, *arguments, "--quiet", "--no-config", "--color", "never"],
            cwd=folder,
            env=given,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds_max,
        )
    except subprocess.TimeoutExpired as error:
        raise ConversionRefused(f"{failed}: it took more than {seconds_max:.0f} s.") from error
    if ran.returncode:
        reason = " ".join(re.sub(r"[×╰├│▶─]", "", ran.stderr).split()).removeprefix("error: ").rstrip(".")
        raise ConversionRefused(f"{failed}: {reason[:_SHOWN]}{'...' if len(reason) > _SHOWN else ''}.")
