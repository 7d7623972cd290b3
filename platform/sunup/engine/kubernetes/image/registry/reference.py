"""Names of images and addresses of registries, as people write them.

Grammar: the distribution project's `reference` package, on which the OCI distribution specification builds; in short
HOST[:PORT]/PATH[:TAG][@sha256:DIGEST], the path in lower case.
"""

import ipaddress
import re
from typing import Final, NamedTuple

from sunup.errors import UsageError

_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH: Final = re.compile(rf"{_PART}(?:/{_PART})*")
_HOST: Final = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::\d{1,5})?")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_PATH_MAX: Final = 255  # characters; what registries take of host and path together
HUB: Final = "docker.io"
_SCHEMES: Final = ("http://", "https://")


class Address(NamedTuple):
    """Where a registry is: `host` as it is written in references, `prefix` before every repository, "" for none."""

    host: str
    prefix: str
    plain: bool

    @property
    def url(self) -> str:
        """Where its API is."""
        host = f"registry-1.{HUB}" if self.host == HUB else self.host
        return f"{'http' if self.plain else 'https'}://{host}"

    def path(self, repository: str) -> str:
        """The whole path of a repository below the prefix. Raises UsageError where it is no name for one."""
        path = f"{self.prefix}/{repository}" if self.prefix else repository
        if not _PATH.fullmatch(path) or len(path) > _PATH_MAX:
            raise UsageError(
                f"{path!r} cannot be a repository: lower-case letters, digits and . _ - between them, {_PATH_MAX} "
                "characters at most."
            )
        return path


class Reference(NamedTuple):
    """An image somewhere: `address` without a prefix, the path, and what is asked for, a digest or a tag."""

    address: Address
    path: str
    wanted: str

    @property
    def by_digest(self) -> bool:
        """Whether it says exactly which image."""
        return self.wanted.startswith("sha256:")


def parse_address(text: str) -> Address:
    """ "host[:port][/prefix]", or the same behind "http://" or "https://". Plain http is for this machine alone, unless
    it is asked for. Raises UsageError."""
    scheme, rest = _scheme(text)
    host, _, prefix = rest.rstrip("/").partition("/")
    if not _HOST.fullmatch(host):
        raise UsageError(f"{text!r} is no registry. Write HOST[:PORT][/PREFIX], as in registry.example.com/ml.")
    if "." not in host and ":" not in host and host != "localhost":
        raise UsageError(
            f"{text!r} does not say which registry. Write HOST[:PORT][/PREFIX]; on Docker Hub, {HUB}/{host}."
        )
    if prefix and not _PATH.fullmatch(prefix):
        what = "a tag or digest is not part of it" if re.search(r"[:@]", prefix) else "it is written in lower case"
        raise UsageError(f"{prefix!r} in {text!r} is no prefix of repositories: {what}. Write HOST[:PORT][/PREFIX].")
    return Address(host, prefix, scheme == "http://" or (not scheme and is_loopback(host)))


def parse_reference(text: str) -> Reference:
    """HOST/PATH[:TAG][@DIGEST]; a digest wins over a tag, and without either it is "latest". Raises UsageError."""
    scheme, rest = _scheme(text)
    named, _, digest = rest.partition("@")
    host, _, path = named.partition("/")
    path, _, tag = path.partition(":")
    address = parse_address(f"{scheme}{host}")
    if not _PATH.fullmatch(path):
        raise UsageError(
            f"{text!r} is no image. Write HOST/PATH@sha256:DIGEST or HOST/PATH:TAG, the path in lower case."
        )
    if digest and not _DIGEST.fullmatch(digest):
        raise UsageError(f"{digest!r} in {text!r} is no digest: sha256: and 64 hexadecimal digits.")
    if tag and not _TAG.fullmatch(tag):
        raise UsageError(f"{tag!r} in {text!r} is no tag: letters, digits and . _ -, 128 of them at most.")
    return Reference(address, path, digest or tag or "latest")


def repository_of(function: str) -> str:
    """The repository of a function's images: its name as registries take one."""
    return re.sub(r"[_-]{2,}", "-", function.lower()).strip("_-")


def is_loopback(host: str) -> bool:
    """Whether `host`, with a port or without, is this machine."""
    name = host.rpartition(":")[0] if re.search(r":\d+$", host) and not host.endswith("]") else host
    name = name.strip("[]")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _scheme(text: str) -> tuple[str, str]:
    for scheme in _SCHEMES:
        if text.startswith(scheme):
            return scheme, text.removeprefix(scheme)
    if "://" in text:
        raise UsageError(f"{text!r}: registries speak https, or plain http where http:// is written.")
    return "", text
