"""The upper layers: what the lock names, as wheels checked against its hashes, and Sunup itself."""

import csv
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sunup import __version__
from sunup.bundle.environment.uv import uv
from sunup.engine.kubernetes.image.layer import Entry, tree
from sunup.engine.kubernetes.image.model import architecture
from sunup.engine.kubernetes.image.runtime.programs import compile_python
from sunup.errors import ConversionRefused, ImageError
from sunup.limits import IMAGE_PACKAGES_SECONDS_MAX

# Debian 12's glibc is 2.36: wheels for it or an older one run.
_PLATFORMS: Final = {"amd64": "x86_64-manylinux_2_36", "arm64": "aarch64-manylinux_2_36"}


def lies_at(version: str) -> str:
    """Where Debian's Python looks for packages that are not Debian's."""
    return f"usr/local/lib/python{version}/dist-packages"


def wheels(lock: Path, root: Path, version: str, scratch: Path) -> Iterator[Entry]:
    """The entries of what `lock` names. `root`: the lower layer, unpacked."""
    target = scratch / "wheels"
    # uv compares hashes when it fetches, not when it copies from its cache, whose files environments of this machine
    # may share and have changed (an authority added to the list of certifi, for one). So nothing comes from there.
    how = ["--only-binary", ":all:", "--require-hashes", "--no-deps", "--no-cache", "--link-mode", "copy"]
    where = ["--python-version", version, "--python-platform", _PLATFORMS[architecture()], "--target", str(target)]
    try:
        uv(
            *("pip", "install", *how, *where, "-r", str(lock.resolve())),
            folder=scratch,
            failed=f"What {lock.name} names cannot be installed",
            seconds_max=IMAGE_PACKAGES_SECONDS_MAX,
        )
    except ConversionRefused as error:
        raise ImageError(error.message) from error
    shutil.rmtree(target / "bin", ignore_errors=True)  # commands, which name the Python they were installed with
    for tests in sorted(target.rglob("tests"), reverse=True):
        if tests.is_dir():
            shutil.rmtree(tests)
    for record in target.glob("*.dist-info/RECORD"):
        _forget(record)
    (target / ".lock").unlink(missing_ok=True)
    compile_python(root, version, target, f"/{lies_at(version)}")
    yield from tree(target, lies_at(version))


def sunup(package: Path, root: Path, version: str, scratch: Path) -> Iterator[Entry]:
    """The entries of Sunup, of the folder of its package."""
    target = scratch / "sunup"
    target.mkdir()
    shutil.copytree(package, target / package.name, ignore=shutil.ignore_patterns("__pycache__", "*.py[co]"))
    facts = target / f"{package.name}-{__version__}.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package.name}\nVersion: {__version__}\n")
    compile_python(root, version, target, f"/{lies_at(version)}")
    yield from tree(target, lies_at(version))


def _forget(record: Path) -> None:
    """Leave out of a distribution's list of files those that were removed: some hashes there are of files with this
    machine's paths in them."""
    rows = [row for row in csv.reader(io.StringIO(record.read_text("utf-8"))) if row]
    kept = [row for row in rows if (record.parent.parent / row[0]).is_file()]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(sorted(kept))
    record.unlink()
    record.write_text(text.getvalue(), "utf-8")
