"""The runtime image, put together: Debian with Python, the wheels of a lock, Sunup. Each layer is made once for what
goes into it, and the same inputs give the same image."""

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from sunup import __version__
from sunup.engine.kubernetes.image import layer as layers
from sunup.engine.kubernetes.image import runtime
from sunup.engine.kubernetes.image.layer import compressor, contents
from sunup.engine.kubernetes.image.model import Image, Layer, architecture
from sunup.engine.kubernetes.image.runtime.cache import Cache, key_of
from sunup.engine.kubernetes.image.runtime.debian import CERTIFICATES, candidates, read_list, unpack
from sunup.engine.kubernetes.image.runtime.packages import sunup, wheels
from sunup.errors import UsageError

REPOSITORY: Final = "sunup-runtime"
PYTHON: Final = "3.11"  # Debian 12's
USER: Final = 65532
_ENVIRONMENT: Final = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/tmp",  # the one place it may write to
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONSAFEPATH": "1",
    "PYTHONUNBUFFERED": "1",
    "SSL_CERT_FILE": f"/{CERTIFICATES}",
    "REQUESTS_CA_BUNDLE": f"/{CERTIFICATES}",  # what sends spans looks there
}

OnStage = Callable[[str, str], None]


class Sources(NamedTuple):
    """What a runtime image is made from: the folders infra/image and platform/sunup, and the lock of a worker's
    packages."""

    debian: Path
    lock: Path
    package: Path


def sources(package: Path) -> Sources:
    """Where they are in Sunup's source folder. Raises UsageError where Sunup is installed without it."""
    infra = package.parents[1] / "infra"
    found = Sources(infra / "image", infra / "requirements" / "image.txt", package)
    if not found.lock.is_file() or not found.debian.is_dir():
        raise UsageError(
            f"The runtime image is made from Sunup's source folder, and {infra} has no image/. Run it there, or "
            "name one that was pushed with --runtime-image."
        )
    return found


def build(given: Sources, cache: Cache, *, on_stage: OnStage) -> Image:
    """The runtime image. Raises UsageError, ImageError."""
    on_stage("debian", "asking apt")
    names, remove = read_list(given.debian / "packages.txt"), read_list(given.debian / "remove.txt")
    found = candidates(names)
    how = key_of(_program(), compressor(), PYTHON, architecture(), _digest(given.debian))
    base_key = key_of(how, *(f"{package.file} {package.sha256}" for package in found))
    base = cache.layer(base_key, lambda at: unpack(names, remove, given.debian / "root", PYTHON, at))
    on_stage("wheels", given.lock.name)
    upper = _Upper(base)
    try:
        wheel_key = key_of(base_key, "wheels", given.lock.read_bytes())
        above = cache.layer(wheel_key, lambda at: wheels(given.lock, upper.root, PYTHON, at))
        on_stage("sunup", __version__)
        own_key = key_of(base_key, "sunup", _digest(given.package))
        own = cache.layer(own_key, lambda at: sunup(given.package, upper.root, PYTHON, at))
    finally:
        upper.close()
    run = {
        "Entrypoint": [f"/usr/bin/python{PYTHON}", "-m", "sunup.serve.pod"],
        "Env": [f"{name}={value}" for name, value in _ENVIRONMENT.items()],
        "User": f"{USER}:{USER}",
        "WorkingDir": "/",
    }
    annotations = {
        "org.opencontainers.image.title": REPOSITORY,
        "org.opencontainers.image.version": __version__,
        "org.opencontainers.image.description": "What runs Sunup's functions: Debian 12, Python, a worker's packages.",
    }
    return Image((base, above, own), run, annotations)


def tag_of(image: Image) -> str:
    """The tag a runtime image is pushed under: the version, and which one of it."""
    return f"{__version__}-{image.digest.removeprefix('sha256:')[:12]}"


def lay_out(layers: Iterable[Layer], root: Path) -> None:
    """Unpack layers into a folder, one over the other, as the user who asks. None of ours takes a file away."""
    for layer in layers:
        with layer.blob.open() as file:
            for member, data in contents(file):
                path = root / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                if member.isdir():
                    path.mkdir(exist_ok=True)
                    path.chmod(member.mode)
                    continue
                path.unlink(missing_ok=True)
                if member.issym():
                    path.symlink_to(member.linkname)
                else:
                    path.write_bytes(data)
                    path.chmod(member.mode)


class _Upper:
    """The lowest layer, unpacked when the first layer above it has to be made."""

    def __init__(self, base: Layer) -> None:
        self._base = base
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def root(self) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="sunup-image-")
            lay_out([self._base], Path(self._folder.name))
        return Path(self._folder.name)

    def close(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()


def _program() -> str:
    """The digest of the program that makes layers: another one may make other layers of the same."""
    files = [Path(layers.__file__), *sorted(Path(runtime.__file__).parent.glob("*.py"))]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()


def _digest(root: Path) -> str:
    """The digest of a folder's files, their names and rights."""
    hashed = hashlib.sha256()
    for path, mode in _files(root):
        name = path.relative_to(root).as_posix()
        hashed.update(f"{name}\0{mode}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return hashed.hexdigest()


def _files(root: Path) -> Iterator[tuple[Path, int]]:
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path, path.stat().st_mode & 0o100
