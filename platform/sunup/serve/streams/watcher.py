"""The watcher: one small process that looks at the lag of every deployed stream, so that workers need not exist.

The supervisor names the streams (`watch`, `forget`); the watcher says, whenever it changes, how far each group is
behind in each partition, or what keeps it from knowing. It also hears which workers live (`readers`), and has groups
forget those that do not.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from sunup.execute.executor import Executor
from sunup.limits import STREAM_RETRY_SECONDS_MAX, STREAM_WATCH_SECONDS, STREAM_WATCHERS_MAX
from sunup.link.channel import Channel, Message
from sunup.serve.attached import Attached
from sunup.serve.streams.names import is_dead, place
from sunup.settings import EMBEDDED_LOG
from sunup.stream.broker import BrokerError, Lag, Stream, Trouble, Watch
from sunup.stream.open import open_watch

_LOG: Final = logging.getLogger(__name__)
DISMISS_SECONDS: Final = 30.0  # s it is tried; then the sessions of the dead have ended by themselves
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


class Watched:
    """One function's stream, until `stop`."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.slots: frozenset[int] | None = None  # of the living workers; None: nothing is known of them
        self.dismiss_until = 0.0  # monotonic seconds: until then it is tried to have dead readers forgotten

    def live(self, slots: Collection[int]) -> None:
        """These workers live. One that lived before, or before this process was told anything, may be waited for."""
        if self.slots is None or not self.slots <= set(slots):
            self.dismiss_until = time.monotonic() + DISMISS_SECONDS
        self.slots = frozenset(slots)


class Watcher:
    """One task per stream, one lane per broker. Brokers block, so they are asked in a few threads."""

    def __init__(self, spec: Mapping[str, Any], fds: list[int]) -> None:
        self.attached = Attached(spec, fds, self._heard)
        self._log = Path(spec["run"]).parent / EMBEDDED_LOG
        self._place = place(Path(spec["run"]))
        self._threads = ThreadPoolExecutor(STREAM_WATCHERS_MAX)
        self._watched: dict[str, tuple[Watched, asyncio.Task[None]]] = {}
        self._lanes: dict[tuple[tuple[str, str], ...], Lane] = {}

    def __repr__(self) -> str:
        return f"Watcher({', '.join(self._watched)})"

    def _heard(self, _: Channel, message: Message) -> None:
        head = message.head
        match head["op"]:
            case "watch":
                self._forget(head["function"])
                of = Watched()
                watching = self._watch(head["function"], head["settings"], Stream(*head["stream"]), of)
                self._watched[head["function"]] = of, asyncio.get_running_loop().create_task(watching)
            case "readers":
                if (found := self._watched.get(head["function"])) is not None:
                    found[0].live(head["slots"])
            case "forget":
                self._forget(head["function"])
            case "drain":
                self.attached.ended.set()

    def _forget(self, function: str) -> None:
        if function in self._watched:
            of, _ = self._watched.pop(function)
            of.stop.set()  # not cancelled: a thread may be in the middle of asking its broker

    async def _watch(self, function: str, settings: Mapping[str, str], stream: Stream, of: Watched) -> None:
        """Look at one stream until told to stop; say what changed."""
        said: dict[str, Any] = {}
        pause = STREAM_WATCH_SECONDS
        key = tuple(sorted(settings.items()))
        lane = self._lanes.get(key) or self._lanes.setdefault(key, Lane(open_watch(settings, self._log)))
        lane.streams += 1
        while not of.stop.is_set():
            try:
                seen = _facts(await self._do(lane, partial(_lag, lane.watch, stream)))
                await self._dismiss(function, lane, stream, of)
                pause = STREAM_WATCH_SECONDS
            except BrokerError as error:
                if said.get("reason") != error.message:
                    _LOG.warning("%s: %s: %s", function, error.trouble.value, error.message, exc_info=error.__cause__)
                seen = {"trouble": error.trouble.value, "reason": error.message, "partitions": {}}
                pause = min(STREAM_RETRY_SECONDS_MAX, 2 * pause)
            if seen != said and not of.stop.is_set():
                self.attached.tell({"op": "lag", "function": function, **seen})
                said = seen
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(of.stop.wait(), pause)  # brokers do not call: this is the period of looking
        lane.streams -= 1
        if lane.streams:
            await self._do(lane, partial(lane.watch.forget, stream))
        else:
            del self._lanes[key]
            await self._do(lane, lane.watch.close)

    async def _dismiss(self, function: str, lane: Lane, stream: Stream, of: Watched) -> None:
        """Who died and was not replaced holds its partitions no longer. Where this fails, its session's end does it."""
        until = of.dismiss_until
        if not until or of.stop.is_set():
            return
        try:
            gone = await self._do(lane, partial(lane.watch.dismiss, stream, partial(self._is_dead, function, of)))
        except BrokerError as error:
            if time.monotonic() < until:
                _LOG.debug("%s: %s", function, error.message, exc_info=error.__cause__)
                return
            _LOG.warning("%s: readers that died are waited for: %s", function, error.message, exc_info=error.__cause__)
        else:
            if gone:
                _LOG.info("%s: not waited for any longer: %s", function, ", ".join(gone))
        if of.dismiss_until == until:  # and nobody has died since
            of.dismiss_until = 0.0

    def _is_dead(self, function: str, of: Watched, name: str) -> bool:
        return is_dead(name, function, of.slots or (), self._place)

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
