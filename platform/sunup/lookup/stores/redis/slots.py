"""Which node of a Redis cluster holds a key, and what nodes say when they do not.

Source: "Redis cluster specification": a key's slot is CRC16 (XMODEM) of the key, or of what stands between its first
`{` and the next `}` if that is not empty, modulo 16384. Entity keys hold whatever callers send, braces too.
"""

from binascii import crc_hqx  # the same CRC16, in C
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from sunup.lookup.store import StoreUnavailable

SLOTS: Final = 16384


class Redirect(NamedTuple):
    """What a node answers that does not serve a key. `ask`: only this once, for the slot is on its way."""

    host: str  # "" for the host that answered
    port: int
    slot: int
    ask: bool


class Range(NamedTuple):
    """Slots `first` to `last` are served by the master at `host` ("" for the host that answered) and `port`."""

    first: int
    last: int
    host: str
    port: int


def slot_of(key: bytes) -> int:
    """The slot of a key. About 0.2 us."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) % SLOTS


def redirect(reply: Any) -> Redirect | None:
    """The redirection that an error reply is, if it is one: `MOVED 3999 host:port` or `ASK 3999 host:port`."""
    words = str(reply).split(" ")
    if len(words) != 3 or words[0] not in ("MOVED", "ASK"):
        return None
    host, _, port = words[2].rpartition(":")
    try:
        return Redirect(host, int(port), int(words[1]), words[0] == "ASK")
    except ValueError:
        return None


def ranges(reply: Any) -> Iterator[Range]:
    """What a reply to CLUSTER SLOTS says, masters only. Raises StoreUnavailable for any other reply."""
    if not isinstance(reply, list) or not reply:
        raise StoreUnavailable(f"no slots: {reply}")
    try:
        for first, last, (host, port, *_), *_replicas in reply:
            yield Range(int(first), int(last), (host or b"").decode(), int(port))
    except (TypeError, ValueError) as error:
        raise StoreUnavailable(f"slots that are none: {error}") from error
