"""Having a stream's topic to oneself for a while, and the moments that people name."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final, TypeVar

from sunup.bundle.declare.quantity import parse_seconds
from sunup.cli.streams.source import LOOK_SECONDS, unfenced
from sunup.engine.local.client import LocalEngine
from sunup.errors import CommandError, UsageError

_ALONE_SECONDS: Final = 90.0  # s until nobody reads: workers finish their batch, and a broker forgets a dead one in 30

Given = TypeVar("Given")


@contextmanager
def nobody_reads(engine: LocalEngine, function: str) -> Iterator[None]:
    """Pause the stream, and what was not paused before go on at the end. Killed in between, it stays paused, and
    `platform stream status` says by whom."""
    facts = engine.status(function)["functions"][0]["stream"]
    paused = facts["paused"]
    # Where some partitions are paused already, the others are one by one: only then can they go on alone.
    rest = [one["partition"] for one in facts["partitions"] if not one["paused"]] if paused else None
    try:
        if paused != "all":
            engine.pause(function, rest)
        until = time.monotonic() + _ALONE_SECONDS
        while engine.status(function)["functions"][0]["stream"]["workers"]:
            if time.monotonic() > until:
                raise CommandError(
                    f"Workers of {function} have not ended for {_ALONE_SECONDS:.0f} s; nothing was done."
                )
            time.sleep(LOOK_SECONDS)
        yield
    finally:
        if paused != "all":
            engine.resume(function, rest)


def alone(act: Callable[[], Given]) -> Given:
    """What `act` returns as soon as the broker knows that nobody reads."""
    return unfenced(act, _ALONE_SECONDS, "Waiting for the broker to know that nobody reads any more.")


def moment(text: str, now: float, option: str, others: str = "") -> float:
    """Seconds since the epoch of an age before `now` ("1h") or of an ISO 8601 time; one without a zone is local.
    `others`: what else `option` may be, for the error."""
    try:
        return now - parse_seconds(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        wanted = f"{others}an age such as 1h, or a time such as 2026-11-22T10:00:00Z"
        raise UsageError(f"{option}: {text!r} is not {wanted}.") from None
