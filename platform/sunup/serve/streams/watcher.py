"""The watcher: one small process that looks at the lag of every deployed stream, so that workers need not exist.

The supervisor names the streams (`watch`, `forget`); the watcher says, whenever it changes, how far each group is
behind in each partition, or what keeps it from knowing.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from sunup.execute.executor import Executor
from sunup.limits import STREAM_RETRY_SECONDS_MAX, STREAM_WATCH_SECONDS, STREAM_WATCHERS_MAX
from sunup.link.channel import Channel, Message
from sunup.serve.attached import Attached
from sunup.settings import EMBEDDED_LOG
from sunup.stream.broker import BrokerError, Lag, Stream, Trouble, Watch
from sunup.stream.open import open_watch

_LOG: Final = logging.getLogger(__name__)
T = TypeVar("T")


async def live(spec: dict[str, Any], fds: list[int], begun: float, _: Executor | None) -> None:
    """Watch until told to stop."""
    attached = Watcher(spec, fds).attached
    attached.ready({"fork": begun - spec["asked"]})
    await attached.ended.wait()


class Lane:
    """The streams of one broker: looked at one after another, so that one that hangs delays only its like."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.lock = asyncio.Lock()
        self.streams = 0


class Watcher:
    """One task per stream, one lane per broker. Brokers block, so they are asked in a few threads."""

    def __init__(self, spec: Mapping[str, Any], fds: list[int]) -> None:
        self.attached = Attached(spec, fds, self._heard)
        self._log = Path(spec["run"]).parent / EMBEDDED_LOG
        self._threads = ThreadPoolExecutor(STREAM_WATCHERS_MAX)
        self._watched: dict[str, tuple[asyncio.Event, asyncio.Task[None]]] = {}
        self._lanes: dict[tuple[tuple[str, str], ...], Lane] = {}

    def __repr__(self) -> str:
        return f"Watcher({', '.join(self._watched)})"

    def _heard(self, _: Channel, message: Message) -> None:
        head = message.head
        match head["op"]:
            case "watch":
                self._forget(head["function"])
                stop = asyncio.Event()
                watching = self._watch(head["function"], head["settings"], Stream(*head["stream"]), stop)
                self._watched[head["function"]] = stop, asyncio.get_running_loop().create_task(watching)
            case "forget":
                self._forget(head["function"])
            case "drain":
                self.attached.ended.set()

    def _forget(self, function: str) -> None:
        if function in self._watched:
            stop, _ = self._watched.pop(function)
            stop.set()  # not cancelled: a thread may be in the middle of asking its broker

    async def _watch(self, function: str, settings: Mapping[str, str], stream: Stream, stop: asyncio.Event) -> None:
        """Look at one stream until told to stop; say what changed."""
        said: dict[str, Any] = {}
        pause = STREAM_WATCH_SECONDS
        key = tuple(sorted(settings.items()))
        lane = self._lanes.get(key) or self._lanes.setdefault(key, Lane(open_watch(settings, self._log)))
        lane.streams += 1
        while not stop.is_set():
            try:
                seen = _facts(await self._do(lane, partial(_lag, lane.watch, stream)))
                pause = STREAM_WATCH_SECONDS
            except BrokerError as error:
                if said.get("reason") != error.message:
                    _LOG.warning("%s: %s: %s", function, error.trouble.value, error.message, exc_info=error.__cause__)
                seen = {"trouble": error.trouble.value, "reason": error.message, "partitions": {}}
                pause = min(STREAM_RETRY_SECONDS_MAX, 2 * pause)
            if seen != said and not stop.is_set():
                self.attached.tell({"op": "lag", "function": function, **seen})
                said = seen
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)  # brokers do not call: this is the period of looking
        lane.streams -= 1
        if lane.streams:
            await self._do(lane, partial(lane.watch.forget, stream))
        else:
            del self._lanes[key]
            await self._do(lane, lane.watch.close)

    async def _do(self, lane: Lane, call: Callable[[], T]) -> T:
        async with lane.lock:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)


def _lag(watch: Watch, stream: Stream) -> Mapping[int, Lag]:
    try:
        return watch.lag(stream)
    except BrokerError:
        raise
    except Exception as error:  # a bug; the other streams are watched on, and this one says what it is
        raise BrokerError(Trouble.FAILED, f"{error!r}; the watcher's log says more") from error


def _facts(lags: Mapping[int, Lag]) -> dict[str, Any]:
    partitions = {str(partition): [lag.position, lag.end] for partition, lag in sorted(lags.items())}
    return {"trouble": None, "reason": "", "partitions": partitions}
