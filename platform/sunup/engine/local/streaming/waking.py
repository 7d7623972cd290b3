"""Whether a stream needs a worker though no record waits: values of views it aggregates change by themselves."""

import time
from collections.abc import Collection

from sunup.engine.local.streaming.aggregating import Aggregating
from sunup.engine.local.streaming.stream import Streaming
from sunup.engine.local.workers import Worker


def needs(stream: Streaming, serving: Collection[Worker], now: float) -> int:
    """Workers it should have for that: one, or none."""
    known = _known(stream)
    if known is None:
        return 0
    return int(known.needs([worker.name for worker in serving], stream.read, time.time(), now))


def wakes_in(stream: Streaming, now: float) -> float | None:
    """Seconds until it may need one, while it has none; None: never, as far as is known."""
    known = _known(stream)
    return None if known is None else known.wakes_in(time.time(), now)


def _known(stream: Streaming) -> Aggregating | None:
    """None: it aggregates nothing, or there is nothing a worker could read now."""
    if stream.aggregating is None or stream.watched or stream.is_paused or not stream.read:
        return None
    return stream.aggregating
