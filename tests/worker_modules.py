"""What a worker imports."""

import subprocess
import sys
from typing import Final

# What a fresh worker may hold beside the standard library. Anything else is a bug, or a decision to be made here.
WORKER_MODULES: Final = {
    "anyio",
    "cython_runtime",  # a name that compiled extensions share, not a distribution
    "hiredis",
    "httptools",
    "mmh3",
    "msgspec",
    "numpy",
    "onnxruntime",
    "prometheus_client",
    "sniffio",
    "starlette",
    "sunup",
    "typing_extensions",
    "uvloop",
}


def imported(code: str) -> set[str]:
    """The distributions and packages that `code` imports, the standard library's left out; what the interpreter itself
    starts with is nobody's (Debian's imports sitecustomize)."""
    whole = f"import sys; bare = set(sys.modules); {code}; print(*set(sys.modules) - bare)"
    ran = subprocess.run([sys.executable, "-P", "-c", whole], capture_output=True, text=True, check=True)
    names = {name.partition(".")[0] for name in ran.stdout.split()}
    return {name for name in names if not name.startswith("_")} - sys.stdlib_module_names
