"""Which ONNX Runtime distribution is installed, found without importing it."""

from importlib.metadata import PackageNotFoundError, version
from typing import Final

from sunup.errors import CommandError

CPU: Final = "onnxruntime"
GPU: Final = "onnxruntime-gpu"


def check_installed() -> str:
    """The one installed distribution: CPU or GPU.

    Both unpack into the same folder, so installing one over the other silently removes CUDA or leaves an empty module.
    Raises CommandError with the pip line that mends it when both or neither are there.
    """
    found = [name for name in (CPU, GPU) if _is_installed(name)]
    if not found:
        raise CommandError(f'ONNX Runtime is not installed. Run: pip install "{CPU}>=1.20"')
    if len(found) == 2:
        raise CommandError(
            f"{CPU} and {GPU} are both installed, and each overwrites files of the other. "
            f'Run: pip uninstall -y {CPU} {GPU} && pip install "{CPU}>=1.20"   (or "{GPU}[cuda,cudnn]>=1.20")'
        )
    return found[0]


def _is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True
