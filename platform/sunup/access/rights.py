"""What processes that answer strangers give up, and whose they are where the engine was started by root."""

import ctypes
import os
import pwd
import resource
import stat
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from sunup.errors import UsageError

_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_CAP_SYS_PTRACE: Final = 1 << 19


class Account(NamedTuple):
    """A user of the operating system."""

    uid: int
    gid: int


def account(name: str) -> Account:
    """An existing user other than root, as which root runs processes. Raises UsageError."""
    if os.geteuid() != 0:
        raise UsageError("--user changes the user of processes, which only root may. Leave it out.")
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise UsageError(f"There is no user {name} on this machine. Make one: useradd --system {name}") from None
    if found.pw_uid == 0:
        raise UsageError(f"--user {name} is root. Give a user with no rights of its own.")
    return Account(found.pw_uid, found.pw_gid)


def confine(*, descriptors: int | None = None) -> None:
    """Give up, here and in what this process forks: gaining rights by executing a file; core dumps, which hold what
    callers sent; more than `descriptors` open at a time; being read by another process of the same user.

    The last only where the parent may weigh a process that cannot be read: the engine reports memory.
    """
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if descriptors is not None:
        most = min(descriptors, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if _may_trace(os.getppid()):
        _prctl(_PR_SET_DUMPABLE, 0)


class Rights:
    """Whose the processes and files of an engine are: `account`'s, or with None the engine's own user's.

    Folders stay root's. A file that root writes is never in a folder where `account` could put a link in its place:
    counters, which both write, are in a sticky folder, and are never opened through a link.
    """

    def __init__(self, account: Account | None) -> None:
        self.account = account

    def __repr__(self) -> str:
        return f"Rights({self.account})"

    @classmethod
    def of(cls, user: str | None) -> Self:
        """Of a user other than root, by name; None for the engine's own. Raises UsageError."""
        return cls(None if user is None else account(user))

    def process(self) -> dict[str, Any]:
        """Arguments of subprocess.Popen for a process that answers strangers."""
        if self.account is None:
            return {}
        return {"user": self.account.uid, "group": self.account.gid, "extra_groups": []}

    def pass_through(self, *folders: Path) -> None:
        """Let the account reach what is in these folders, if it knows its name."""
        for folder in folders:
            self._open(folder, stat.S_IXGRP)

    def share(self, folder: Path) -> None:
        """Let the account make files in a folder, and not touch those of others; what is there, in folders too, becomes
        its own."""
        if self.account is None:
            return
        for _, folders, files, fd in os.fwalk(folder, follow_symlinks=False):  # by descriptors: through no link
            for name in (*folders, *files):
                os.chown(name, *self.account, dir_fd=fd, follow_symlinks=False)
        os.chown(folder, 0, self.account.gid)
        folder.chmod(0o1770)

    def own(self, path: Path) -> None:
        """Make a file, or a socket, the account's."""
        if self.account is not None:
            os.chown(path, *self.account, follow_symlinks=False)

    def log(self, path: Path) -> None:
        """Make a log file there is none of yet, for the account to append to."""
        if self.account is not None:
            path.touch(0o640)
            self.own(path)

    def read(self, folder: Path) -> None:
        """Let the account read a folder and all in it, which it cannot write. Done once: the folder comes last."""
        if self.account is None or not folder.is_dir() or folder.stat().st_gid == self.account.gid:
            return
        for path in (*folder.rglob("*"), folder):
            if not path.is_symlink():
                self._open(path, stat.S_IRGRP | stat.S_IXGRP if path.is_dir() else stat.S_IRGRP)

    def _open(self, path: Path, bits: int) -> None:
        if self.account is not None:
            path.chmod(stat.S_IMODE(path.stat().st_mode) & ~stat.S_IWGRP | bits)
            os.chown(path, -1, self.account.gid)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _may_trace(pid: int) -> bool:
    """Whether a process has CAP_SYS_PTRACE. One outside of this container, whose number is 0, is not asked."""
    if pid == 0:
        return False
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    effective = next((line for line in lines if line.startswith("CapEff:")), "CapEff: 0")
    return bool(int(effective.split()[1], 16) & _CAP_SYS_PTRACE)
