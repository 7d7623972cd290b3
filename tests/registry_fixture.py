"""The registry of Python packages: tests that need it skip at home when it is away, and never in CI."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def packages_or_skip() -> None:
    """Skip, unless uv can resolve one small package."""
    uv = Path(sys.executable).with_name("uv")
    ran = subprocess.run(
        [str(uv), "pip", "compile", "-", "--quiet", "--no-config"],
        input="text-unidecode==1.3\n",
        env={"UV_SYSTEM_CERTS": "true", **os.environ, "UV_HTTP_TIMEOUT": "20"},
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode and os.environ.get("CI") != "true":
        pytest.skip("the registry of packages cannot be reached")
