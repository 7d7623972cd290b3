"""The lowest layer: Debian packages, fetched and verified by apt as the machine is set up to, unpacked by dpkg-deb. No
installation script runs; what of their work is needed is done here."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from sunup.engine.kubernetes.image.layer import Entry, folder, tree
from sunup.engine.kubernetes.image.runtime.programs import compile_python, run
from sunup.errors import ImageError
from sunup.limits import IMAGE_PACKAGES_SECONDS_MAX

CERTIFICATES: Final = "etc/ssl/certs/ca-certificates.crt"
_FAILED: Final = "Debian's packages cannot be had (apt-get update may help)"
_EMPTY: Final = ("dev", "proc", "run", "sys", "var")


class Package(NamedTuple):
    """A package as apt would fetch it now."""

    file: str
    sha256: str


def read_list(path: Path) -> list[str]:
    """The lines of a list that say something."""
    lines = (line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines())
    return [line for line in lines if line]


def candidates(names: Sequence[str]) -> list[Package]:
    """The files apt would fetch for these packages. Raises ImageError where it knows one of them not."""
    asked = ["apt-get", "download", "--print-uris", "-qq", *names]
    said = run(asked, failed=_FAILED, seconds_max=IMAGE_PACKAGES_SECONDS_MAX)
    found = []
    for line in said.splitlines():
        words = line.split()
        if len(words) != 4 or not words[3].startswith("SHA256:"):
            raise ImageError(f"{_FAILED}: apt-get has no SHA-256 for {words[1] if len(words) > 1 else line!r}.")
        found.append(Package(words[1], words[3].removeprefix("SHA256:")))
    if len(found) != len(set(names)):
        raise ImageError(f"{_FAILED}: apt-get knows {len(found)} of {len(set(names))} packages.")
    return sorted(found)


def unpack(
    names: Sequence[str], remove: Sequence[str], additions: Path, version: str, scratch: Path
) -> Iterator[Entry]:
    """The layer's entries. `remove`: patterns of what is left out; `additions`: a folder that is laid over the rest."""
    downloads, root = scratch / "packages", scratch / "root"
    downloads.mkdir()
    root.mkdir()
    download = ["apt-get", "download", "-qq"]
    if os.geteuid() == 0:  # apt's own user could not write here
        download += ["-o", "APT::Sandbox::User=root"]
    run([*download, *names], failed=_FAILED, seconds_max=IMAGE_PACKAGES_SECONDS_MAX, folder=downloads)
    controls = {}
    for package in sorted(downloads.glob("*.deb")):
        run(["dpkg-deb", "-x", package, root], failed=f"{package.name} cannot be unpacked", seconds_max=60)
        control = run(["dpkg-deb", "-f", package], failed=f"{package.name} cannot be read", seconds_max=60)
        controls[package.name.partition("_")[0]] = control
        package.unlink()
    _trust(root)
    for pattern in remove:
        for path in root.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    compile_python(root, version, root / f"usr/lib/python{version}", f"/usr/lib/python{version}")
    yield from tree(root)
    yield from tree(additions)
    yield from (folder(name) for name in _EMPTY)
    yield folder("tmp", anyone=True)
    yield Entry("usr/bin/python3", link=f"python{version}")
    yield Entry("usr/lib/ssl/cert.pem", link=f"/{CERTIFICATES}")
    for name, control in controls.items():  # where scanners of images without dpkg look
        yield Entry(f"var/lib/dpkg/status.d/{name}", 0o644, data=control.encode())


def _trust(root: Path) -> None:
    """What update-ca-certificates would make: every authority in one file."""
    authorities = root / "usr/share/ca-certificates"
    parts = [path.read_bytes().rstrip(b"\n") + b"\n" for path in sorted(authorities.rglob("*.crt"))]
    (root / CERTIFICATES).parent.mkdir(parents=True, exist_ok=True)
    (root / CERTIFICATES).write_bytes(b"".join(parts))
    shutil.rmtree(authorities)
