"""What handler.py requires, resolved and installed by uv beside it, with hashes: at packaging, never in a worker."""

import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final

from sunup.bundle.environment.uv import canonical, uv
from sunup.bundle.handler.source import LIB, LOCK, REQUIREMENTS, Source
from sunup.errors import ConversionRefused
from sunup.limits import HANDLER_LIB_BYTES_MAX, HANDLER_LIB_FILES_MAX

RUNTIMES: Final = ("onnxruntime", "onnxruntime-gpu")
# What an installer writes about itself, and what would differ from one installation to the next.
_UNSTABLE: Final = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json")
_PLACES: Final = ("--no-index", "-f", "--find-links", "-i", "--index-url", "--extra-index-url")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PINNED: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==(\S+)")


def worker_packages() -> dict[str, str]:
    """The distributions every worker has, with their versions: Sunup's own requirements and theirs."""
    found: dict[str, str] = {}
    waiting = ["sunup", *RUNTIMES]
    while waiting:
        name = canonical(waiting.pop())
        if name in found:
            continue
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
        waiting += [_NAME.match(line)[0] for line in requires(name) or () if "extra ==" not in line]  # type: ignore[index]
    found.pop("sunup", None)
    return dict(sorted(found.items()))


def install(source: Source, staged: Path, scratch: Path) -> None:
    """Resolve what `source` requires and install it into lib/ of the bundle being written, with its lock beside it.

    Nothing when it requires nothing beyond what workers have. Raises ConversionRefused with the resolver's reason.
    """
    if not source.requirements.strip():
        return
    workers = worker_packages()
    constraints, lock = scratch / "constraints.txt", scratch / LOCK
    constraints.write_text("".join(f"{name}=={number}\n" for name, number in workers.items()))
    what = f"{Path(source.folder) / REQUIREMENTS}"
    uv(
        "pip", "compile", REQUIREMENTS, "--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url",
        "--no-emit-find-links", "--only-binary", ":all:", "--constraints", str(constraints), "--python", sys.executable,
        "-o", str(lock),
        folder=Path(source.folder),
        failed=f"What {what} names cannot be had together with what workers have",
    )  # fmt: skip
    kept = "".join(_without(lock.read_text(), workers, what))
    if not kept:
        return
    (staged / LOCK).write_text(kept)
    uv(
        "pip", "install", "--require-hashes", "--no-deps", "--only-binary", ":all:", "--link-mode", "copy", "--python",
        sys.executable, "--target", str(staged / LIB), "-r", str(staged / LOCK), *_places(source.requirements),
        folder=Path(source.folder),
        failed=f"What {what} names cannot be installed",
    )  # fmt: skip
    _settle(staged / LIB, what)


def _places(requirements: str) -> Iterator[str]:
    """Where packages are looked for, as far as requirements.txt says: a lock does not."""
    for line in requirements.splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0].partition("=")[0] in _PLACES:
            yield from words


def _without(lock: str, workers: Mapping[str, str], what: str) -> Iterator[str]:
    """The entries of a lock that workers do not have, each with its hashes."""
    keep = False
    for line in lock.splitlines(keepends=True):
        if line[:1] not in (" ", "\t", "#"):
            pinned = _PINNED.match(line)
            if pinned is None:
                raise ConversionRefused(
                    f"{what} names {line.split()[0]}, which is no released version of a package. Name it as name==1.2."
                )
            keep = canonical(pinned[1]) not in workers
        if keep and not line.startswith("#"):
            yield line


def _settle(lib: Path, what: str) -> None:
    """Take away what is not the packages' own, so that the same lock gives the same files."""
    shutil.rmtree(lib / "bin", ignore_errors=True)
    (lib / ".lock").unlink(missing_ok=True)
    for path in sorted(lib.rglob("*"), reverse=True):
        if path.is_symlink():
            raise ConversionRefused(f"What {what} names holds a link ({path.relative_to(lib)}), which a bundle cannot.")
        if path.is_dir():
            if path.name == "__pycache__":
                shutil.rmtree(path)
        elif path.parent.name.endswith(".dist-info") and path.name in _UNSTABLE:
            path.unlink()
    files = [path for path in lib.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    if size > HANDLER_LIB_BYTES_MAX or len(files) > HANDLER_LIB_FILES_MAX:
        raise ConversionRefused(
            f"What {what} names is {len(files)} files of {size >> 20} MiB together; a bundle takes "
            f"{HANDLER_LIB_FILES_MAX} of {HANDLER_LIB_BYTES_MAX >> 20} MiB. Require less."
        )
