"""On-demand views tried before they are deployed, in a process of their own with the code that will run them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from sunup.errors import FeaturesRefused
from sunup.limits import HANDLER_SECONDS_MAX

_PASSED: Final = ("LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "TZ")


def try_on_demand(folder: Path) -> None:
    """Try the on-demand views of the bundle being written in `folder`: features.json and features.py are there.

    Raises FeaturesRefused, naming the view and what it did: an error, a column that is missing or of another type, a
    row that depends on those beside it.
    """
    environment = {name: os.environ[name] for name in _PASSED if name in os.environ}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[4]), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-P", "-m", "sunup.lookup.compile.on_demand.child", str(HANDLER_SECONDS_MAX)]
    try:
        ran = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            check=False,
            timeout=HANDLER_SECONDS_MAX + 10,
            cwd=folder,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise FeaturesRefused(
            f"The on-demand feature views took more than {HANDLER_SECONDS_MAX:.0f} s to be tried. Do less in them."
        ) from error
    verdict = ran.stdout.decode("utf-8", "replace").rpartition("\n")[2]
    if ran.returncode or verdict:
        said = ran.stderr.decode("utf-8", "replace").strip().splitlines() or [f"code {ran.returncode}"]
        raise FeaturesRefused(verdict or f"The process that tried the on-demand views ended early: {said[-1][:200]}.")
