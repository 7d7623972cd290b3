"""The runtime image as a container has it, without a container engine: its layers in a folder that nobody may write to,
its own /tmp, user 65532, and nothing of this machine but the kernel's file systems and the network."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from sunup.engine.kubernetes.image.model import Image
from sunup.engine.kubernetes.image.runtime.build import lay_out

# What a container runtime does before it starts an entrypoint, in a mount namespace that ends with the process.
_ENTER: Final = """
set -eu
root=$1; user=$2; shift 2
mount --make-rprivate /
mount --bind "$root" "$root"
for each in proc sys dev; do mount --rbind "/$each" "$root/$each"; done
mount -t tmpfs -o mode=1777,size=64m none "$root/tmp"
mount -o remount,bind,ro "$root"
exec chroot --userspec="$user" "$root" "$@"
"""


class ImageRoot:
    """The layers of an image in `root`, and how its entrypoint is started."""

    def __init__(self, image: Image, root: Path) -> None:
        self.image, self.root = image, root
        root.mkdir(mode=0o755)
        root.chmod(0o755)  # whatever the umask is
        lay_out(image.layers, root)

    @property
    def environment(self) -> dict[str, str]:
        """What the image's config says."""
        return dict(entry.split("=", 1) for entry in self.image.run["Env"])

    def command(self, *arguments: str) -> list[str]:
        """The command line that runs `arguments` inside."""
        inside = ["unshare", "--mount", "sh", "-c", _ENTER, "enter", str(self.root), self.image.run["User"]]
        return [*inside, *arguments]

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end."""
        given = {**self.environment, **environment}
        return subprocess.run(
            self.command(*arguments), env=_with_path(given), capture_output=True, text=True, check=False, timeout=120
        )

    def python(self, code: str, **environment: str) -> str:
        """What a program in the image's Python prints."""
        ran = self.run(self.image.run["Entrypoint"][0], "-c", code, **environment)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    @contextmanager
    def started(self, *, log: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
        """The entrypoint, running."""
        given = _with_path({**self.environment, **environment})
        entrypoint: Sequence[str] = self.image.run["Entrypoint"]
        with log.open("wb") as output:
            process = subprocess.Popen(self.command(*entrypoint), env=given, stdout=output, stderr=output)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def needed() -> None:
    """Skips at home, and fails in CI, where the image cannot be made or started."""
    missing = [name for name in ("apt-get", "dpkg-deb", "unshare", "chroot") if not _there(name)]
    release = Path("/etc/os-release")
    debian = release.is_file() and "VERSION_CODENAME=bookworm" in release.read_text("utf-8")
    if missing or not debian or os.geteuid() != 0:
        says = f"the runtime image is made on Debian 12 and tried as root: {shlex.join(missing) or 'this is not'}"
        if os.environ.get("CI") == "true":
            pytest.fail(says)
        pytest.skip(says)


def _with_path(environment: dict[str, Any]) -> dict[str, str]:
    """Where unshare, mount and chroot are, too: they see the image's environment already."""
    return {**environment, "PATH": f"{environment['PATH']}:/usr/sbin:/sbin"}


def _there(name: str) -> bool:
    return shutil.which(name, path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin{os.pathsep}/sbin") is not None
