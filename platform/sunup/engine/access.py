"""Who may reach an engine: what `platform up` said, the key file as it is now, and the word passed to every process."""

import ipaddress
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from sunup.access.guard import LOOPBACK, Guard
from sunup.access.keys import Key
from sunup.access.rights import Rights, account
from sunup.access.watched import KeyFile
from sunup.errors import EngineError, UsageError
from sunup.limits import ACCESS_LOG_RATE_DEFAULT
from sunup.settings import Project


class Rules(NamedTuple):
    """What `platform up` said. `is_open`: anyone may call; `hosts`: names beside this machine's own; `user`: whom the
    processes that answer run as, where the supervisor is root; `access_log`: the share of calls its log keeps."""

    api_keys: str | None = None
    is_open: bool = False
    hosts: tuple[str, ...] = ()
    user: str | None = None
    access_log: float = ACCESS_LOG_RATE_DEFAULT

    def flags(self) -> list[str]:
        """As a command line says them: no key is among them."""
        flags = [] if self.api_keys is None else ["--api-keys", self.api_keys]
        flags += ["--open"] if self.is_open else []
        flags += [word for host in self.hosts for word in ("--allow-host", host)]
        flags += [] if self.access_log == ACCESS_LOG_RATE_DEFAULT else ["--access-log", str(self.access_log)]
        return flags if self.user is None else [*flags, "--user", self.user]

    def check(self, host: str) -> None:
        """Whether an engine may listen on `host` under these rules. Raises UsageError with the reason."""
        if self.is_open and self.api_keys is not None:
            raise UsageError("--open lets anyone call, and --api-keys does not. Give one of them.")
        if not is_loopback(host) and not self.is_open and self.api_keys is None:
            raise UsageError(
                f"--host {host} would let anyone who reaches this machine make predictions. Add --api-keys FILE "
                "(`platform keys new` makes it), or --open if that is what you want."
            )
        if self.user is not None:
            account(self.user)


def remember(project: Project, rules: Rules) -> None:
    """Note what `platform up` said, so that an engine which another command starts keeps to it."""
    project.state.mkdir(parents=True, exist_ok=True)
    temporary = project.rules.with_suffix(".new")
    temporary.write_bytes(msgspec.json.encode(rules))
    temporary.replace(project.rules)


def remembered(project: Project) -> Rules:
    """What the last `platform up` said. Raises EngineError when that cannot be read."""
    try:
        return msgspec.json.decode(project.rules.read_bytes(), type=Rules)
    except FileNotFoundError:
        return Rules()
    except (OSError, msgspec.DecodeError) as error:
        raise EngineError(
            f"{project.rules}, which says who may call, cannot be read: {error}. Say it again with `platform up`."
        ) from error


class Access:
    """The rules as they hold now. `tell(message)` passes a change on to every process that answers."""

    def __init__(self, rules: Rules, tell: Callable[[dict[str, Any]], None]) -> None:
        self._rules = rules
        self._tell = tell
        self._word: dict[str, Any] | None = None  # made once for all births
        self._host: str | None = None  # what is listened on, once that is known
        self.rights = Rights.of(rules.user)
        self._file: KeyFile | None = None
        if rules.api_keys is not None:
            self._file = KeyFile(Path(rules.api_keys), self._changed, partial(print, file=sys.stderr))

    def __repr__(self) -> str:
        return f"Access({self._rules}, {self._file})"

    def listens(self, host: str) -> None:
        """The address that is listened on, which a living door may have brought; whoever lives is told the rules.

        Raises EngineError when the rules do not allow it.
        """
        self._host, self._word = host, None
        try:
            self._rules.check(host)
        except UsageError as error:
            raise EngineError(
                f"The door that lives listens on {host}. Say again who may call: add --api-keys FILE, or --open."
            ) from error
        self._tell(self.word)

    def greet(self, send: Callable[[dict[str, Any]], object]) -> None:
        """Tell a new door; one that is being adopted keeps its word until it is clear that it is."""
        if self._host is not None:
            send(self.word)

    @property
    def word(self) -> dict[str, Any]:
        """What processes that answer are told: see Guard.heard."""
        assert self._host is not None, "nobody is born before it is known where the engine listens"
        if self._word is None:
            hosts: set[str] | None = None
            if is_loopback(self._host) or self._rules.hosts:
                hosts = {*LOOPBACK, *self._rules.hosts, f"[{self._host}]" if ":" in self._host else self._host}
            self._word = {"op": "guard", **Guard(self._keys, hosts).told(), "access_log": self._rules.access_log}
        return self._word

    @property
    def _keys(self) -> list[Key] | None:
        return None if self._file is None else self._file.keys

    def facts(self) -> dict[str, Any]:
        """What `platform status` says: nothing of the keys but how many there are."""
        facts: dict[str, Any] = {"keys": None if self._keys is None else len(self._keys), "hosts": self.word["hosts"]}
        if self._file is not None:
            facts["file"] = str(self._file.path)
        return facts | ({"user": self._rules.user} if self._rules.user else {}) | self._said()

    def close(self) -> None:
        """Look no more."""
        if self._file is not None:
            self._file.close()

    def _said(self) -> dict[str, str]:
        return {"trouble": self._file.trouble} if self._file is not None and self._file.trouble else {}

    def _changed(self, _: list[Key]) -> None:
        self._word = None
        self._tell(self.word)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
