"""Whom a registry is told we are: what `docker login` left, in Docker's config.json or with a program that keeps
secrets.

Formats: docker/cli's config file, and the protocol of docker-credential-helpers (a host on standard input, JSON on
standard output). podman login --authfile, skopeo login and crane auth login write the same file."""

import base64
import binascii
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from sunup.engine.kubernetes.image.registry.reference import HUB
from sunup.errors import ImageError
from sunup.limits import IMAGE_LOGIN_SECONDS_MAX

_HUB_KEY: Final = f"https://index.{HUB}/v1/"
_TOKEN_USER: Final = "<token>"  # what a credential program calls the user where the secret is an identity token
_NONE: Final = "credentials not found"


class Login(NamedTuple):
    """A user's name and password, or a token that is exchanged for others, or one that is sent as it is; "" for none.
    `source`: where it was found, for people."""

    user: str = ""
    password: str = ""
    identity: str = ""
    registry: str = ""
    source: str = ""

    def __repr__(self) -> str:
        return f"Login(user={self.user!r}, source={self.source!r})"

    def __bool__(self) -> bool:
        return bool(self.user or self.identity or self.registry)


def config_path(environment: Mapping[str, str]) -> Path:
    """Where Docker's config is."""
    folder = environment.get("DOCKER_CONFIG")
    return (Path(folder) if folder else Path.home() / ".docker") / "config.json"


def find_login(host: str, environment: Mapping[str, str] = os.environ) -> Login:
    """The login for a registry; an empty one where there is none. Raises ImageError when one is there and
    unreadable."""
    path = config_path(environment)
    config = _read(path)
    keys = _keys(host)
    helpers, auths = _table(config, "credHelpers", path), _table(config, "auths", path)
    for key in keys:
        if isinstance(name := helpers.get(key), str):
            return _ask(name, key, path, environment)
    store = config.get("credsStore")
    # Docker writes "auths": {host: {}} beside a store, and asks it; what lies open in the file is used first.
    for key in keys:
        if isinstance(entry := auths.get(key), dict) and (found := _open(entry, key, path)):
            return found
    if isinstance(store, str) and store:
        for key in keys:
            if found := _ask(store, key, path, environment):
                return found
    return Login(source=str(path))


def _keys(host: str) -> list[str]:
    """The names a host may have in the file: Docker Hub's is an old one, and old versions wrote URLs."""
    plain = [host, f"https://{host}", f"http://{host}", f"https://{host}/v1/", f"https://{host}/v2/"]
    return [_HUB_KEY, *plain, f"index.{HUB}", f"registry-1.{HUB}"] if host == HUB else plain


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ImageError(f"{path}, Docker's config, cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ImageError(
            f"{path}, Docker's config, is not JSON: {error}. Mend it, or run docker login again."
        ) from error
    if not isinstance(found, dict):
        raise ImageError(f"{path}, Docker's config, is not a JSON object. Mend it, or run docker login again.")
    return found


def _table(config: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    table = config.get(name) or {}
    if not isinstance(table, dict):
        raise ImageError(f"{name} in {path} is not a JSON object. Mend it, or run docker login again.")
    return table


def _open(entry: dict[str, Any], key: str, path: Path) -> Login:
    """A login that lies in the file itself."""
    if token := entry.get("registrytoken"):
        return Login(registry=str(token), source=str(path))
    user, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if packed := entry.get("auth"):
        try:
            user, colon, password = base64.b64decode(str(packed), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise ImageError(f"auth of {key} in {path} is not base64. Run docker login {key} again.") from error
        if not colon:
            raise ImageError(f"auth of {key} in {path} is not USER:PASSWORD. Run docker login {key} again.")
        password = password.strip("\0")  # Docker does; Windows wrote some
    return Login(user, password, str(entry.get("identitytoken") or ""), source=str(path))


def _ask(name: str, key: str, path: Path, environment: Mapping[str, str]) -> Login:
    """What the program docker-credential-NAME knows of a registry."""
    program = f"docker-credential-{name}"
    found = shutil.which(program, path=environment.get("PATH")) if "/" not in name else None
    if found is None:
        raise ImageError(
            f"{path} says that {program} keeps the login of {key}, and there is no such program on the path."
        )
    try:
        ran = subprocess.run(
            [found, "get"],
            input=key,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=IMAGE_LOGIN_SECONDS_MAX,
        )
    except subprocess.TimeoutExpired as error:
        raise ImageError(f"{program} did not answer within {IMAGE_LOGIN_SECONDS_MAX:.0f} s.") from error
    except OSError as error:
        raise ImageError(f"{program} cannot be run: {error.strerror}.") from error
    if ran.returncode:
        said = (ran.stdout.strip() or ran.stderr.strip())[:300]
        if _NONE in said:
            return Login(source=program)
        raise ImageError(f"{program} has no login for {key}: {said or f'exit code {ran.returncode}'}")
    try:
        answer = json.loads(ran.stdout)
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError) as error:
        raise ImageError(f"{program} did not answer for {key} as a credential helper does.") from error
    if user == _TOKEN_USER:
        return Login(identity=secret, source=program)
    return Login(user, secret, source=program)
