"""How a connection to a Redis server begins: authentication, database, and a word from the server."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from sunup.limits import STORE_CONNECT_SECONDS_MAX
from sunup.lookup.store import StoreUnavailable
from sunup.lookup.stores.dial import Dial
from sunup.lookup.stores.redis.address import Address
from sunup.lookup.stores.redis.link import Link

Lost: TypeAlias = Callable[[Link, str], None]


def command(*words: bytes) -> bytes:
    """One command in RESP."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


async def connect(at: Address, on_lost: Lost, *, master: bool = False) -> Link:
    """A new link that has authenticated, chosen its database and answered a PING; with `master`, from a master.

    Raises OSError or StoreUnavailable. The time it takes is the caller's to bound.
    """
    loop = asyncio.get_running_loop()
    _, link = await loop.create_connection(lambda: Link(loop, on_lost), at.host, at.port, ssl=at.tls)
    try:
        await _greet(link, at, master=master)
    except BaseException:  # cancelled by the time limit too: no half-open connection may stay
        link.drop()
        raise
    return link


def dial(at: Address) -> Dial[Link]:
    """A link to the server at `at`, kept up."""
    return dialled(at, lambda lost: connect(at, lost))


def dialled(where: object, connecting: Callable[[Lost], Awaitable[Link]]) -> Dial[Link]:
    """A link made by `connecting`, which is given what the link must call when it is lost; kept up."""

    def lost(link: Link, reason: str) -> None:
        kept.lost(link, reason)

    kept: Dial[Link] = Dial(where, lambda: connecting(lost))
    return kept


async def _greet(link: Link, at: Address, *, master: bool) -> None:
    words = []
    if at.password:
        user = [at.username.encode()] if at.username else []
        words.append(command(b"AUTH", *user, at.password.encode()))
    if at.db:
        words.append(command(b"SELECT", b"%d" % at.db))
    words.append(command(b"ROLE") if master else command(b"PING"))
    replies = await link.request(b"".join(words), len(words), time.monotonic() + STORE_CONNECT_SECONDS_MAX)
    for reply in replies:
        if isinstance(reply, Exception):
            raise StoreUnavailable(f"refused: {reply}")
    if master and replies[-1][0] != b"master":
        raise StoreUnavailable(f"{at} is not a master")
