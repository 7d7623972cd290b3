"""Whether a request may be answered: is its Host one of ours, is its key known, does the key cover the function?

Pure, and the same in the door, the front and every worker. A guard never changes: who gets new keys gets a new guard.
"""

import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Self

from sunup.access.keys import Key, digest_of
from sunup.errors import Forbidden, Misdirected, Unauthorized

LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")
# What a load balancer or a watchdog asks, which has no key. It says that the server lives and no more.
OPEN: Final = frozenset({b"/v2/health/live", b"/v2/health/ready"})
CHALLENGE: Final = 'Bearer realm="sunup"'  # www-authenticate of a 401 (RFC 6750)
HEADERS: Final = frozenset({b"authorization", b"x-api-key"})

_HOST: Final = re.compile(rb"(\[[^][]*\]|[^][:]*)(?::[0-9]*)?")  # name or literal address, and any port
_BEARER: Final = b"bearer "
_KEY_BYTES_MAX: Final = 256  # bytes of a presented key that are looked at; ours have 49
_HEAD: Final = 8  # bytes of a digest that find its record; the whole of it is then compared in constant time
_SEEN_MAX: Final = 64  # spellings of hosts remembered; what comes with another port each time is looked at each time
_TWO: Final = b"\0"  # stands for two keys that differ: no key is spelled so

Headers = Iterable[tuple[bytes, bytes]]


class Guard:
    """`keys`: who may call, None for anyone. `hosts`: names a request may be addressed to, None for any."""

    def __init__(self, keys: Sequence[Key] | None, hosts: Iterable[str] | None) -> None:
        self.keys = None if keys is None else tuple(keys)
        self.hosts = None if hosts is None else frozenset(name.lower() for name in hosts)
        self._seen: set[bytes] = set()
        self._found: dict[bytes, list[tuple[bytes, Key]]] = {}
        for key in self.keys or ():
            digest = bytes.fromhex(key.sha256)
            self._found.setdefault(digest[:_HEAD], []).append((digest, key))

    def __repr__(self) -> str:
        keys = "any" if self.keys is None else len(self.keys)
        return f"Guard(keys={keys}, hosts={'any' if self.hosts is None else sorted(self.hosts)})"

    @classmethod
    def heard(cls, message: Mapping[str, Any] | None) -> Self | None:
        """The guard a message tells of; None where everything passes."""
        if message is None or (message["keys"] is None and message["hosts"] is None):
            return None
        keys = message["keys"]
        if keys is not None:
            keys = [Key(id, sha256, functions=None if of is None else tuple(of)) for id, sha256, of in keys]
        return cls(keys, message["hosts"])

    def told(self) -> dict[str, Any]:
        """What `heard` makes an equal guard of. It holds digests, no keys."""
        keys = None if self.keys is None else [[key.id, key.sha256, key.functions] for key in self.keys]
        return {"keys": keys, "hosts": None if self.hosts is None else sorted(self.hosts)}

    def check(self, *, host: bytes | None, given: bytes | None, function: str | None, target: bytes) -> None:
        """Pass a request or refuse it. `given`: the key as `presented` found it; `function`: the one it names, if any.

        Raises Misdirected, Unauthorized or Forbidden. The last two say the same whether or not the function exists.
        """
        if self.hosts is not None and host is not None and host not in self._seen:
            self._check_host(host, self.hosts)
        if self.keys is None or target in OPEN:
            return
        key = self.find(given)
        if key is None:
            if given is None:
                raise Unauthorized("This server wants a key. Send Authorization: Bearer KEY, or X-API-Key: KEY.")
            raise Unauthorized("This server does not know that key.")
        if function is not None and not key.covers(function):
            raise Forbidden("The key does not cover this function.")

    def find(self, given: bytes | None) -> Key | None:
        """The record of a presented key. About a microsecond, whichever and however many there are."""
        if given is None or len(given) > _KEY_BYTES_MAX:
            return None
        digest = digest_of(given)
        for known, key in self._found.get(digest[:_HEAD], ()):
            if hmac.compare_digest(known, digest):
                return key
        return None

    def _check_host(self, host: bytes, hosts: frozenset[str]) -> None:
        found = _HOST.fullmatch(host)
        if found is None or found[1].decode("latin-1").lower() not in hosts:
            raise Misdirected(
                "This server is not called by that name (the Host header). "
                "If it should be: platform up --allow-host NAME."
            )
        if len(self._seen) < _SEEN_MAX:
            self._seen.add(host)


def presented(name: bytes, value: bytes, before: bytes | None) -> bytes | None:
    """The key of one header of HEADERS, beside what headers before it presented. Two different ones are no key."""
    if name == b"authorization":
        if value[: len(_BEARER)].lower() != _BEARER:
            return before  # another scheme, for somebody on the way
        value = value[len(_BEARER) :]
    value = value.strip(b" \t")
    return value if before in (None, value) else _TWO


def given_in(headers: Headers) -> bytes | None:
    """The key that a request's headers (names in lower case) present."""
    given: bytes | None = None
    for name, value in headers:
        if name in HEADERS:
            given = presented(name, value, given)
    return given
