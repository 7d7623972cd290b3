"""A pod for a stream: load and prove, score until told to end, commit what is in hand, leave the group."""

import asyncio
import logging
import time
from collections.abc import Collection
from typing import Final

from sunup.errors import EngineError
from sunup.limits import POD_END_SECONDS, POD_GRACE_SECONDS, POD_JOIN_SECONDS_MAX, STREAM_READS_SECONDS
from sunup.serve.opening import load
from sunup.serve.pod.life import Pod
from sunup.serve.streams.scoring import Scoring
from sunup.stream.broker import Trouble

_LOG: Final = logging.getLogger("sunup.serve.pod")
_JOINING: Final = "joining the group that reads the topic"


async def score(pod: Pod) -> None:
    """To the end of the process. Raises what `function.load` does, and EngineError where it cannot go on or end."""
    await pod.begin()
    function = await load(pod.spec, None)
    reader = _Reader(pod)
    scoring = Scoring(pod.spec, function, reader)
    pod.loaded(function.timings)
    pod.trouble = _JOINING
    pod.ready()
    running = asyncio.ensure_future(scoring.loop.run())
    looking = asyncio.ensure_future(reader.look(scoring))
    told = asyncio.ensure_future(pod.told.wait())
    await asyncio.wait({running, told}, return_when=asyncio.FIRST_COMPLETED)
    scoring.loop.drain()
    looking.cancel()
    done, _ = await asyncio.wait({running}, timeout=POD_GRACE_SECONDS - POD_END_SECONDS)
    if not done:
        raise EngineError("The batch in hand was not committed in the time a pod has to end. Another one gets it.")
    await running
    await scoring.aclose()
    if scoring.is_replaced:
        raise EngineError("Another process reads the topic by the name of this pod. Are there two of one name?")
    _LOG.info("ended")


class _Reader:
    """What a pod says of its stream. See scoring.Told."""

    def __init__(self, pod: Pod) -> None:
        self._pod = pod
        self._since = time.monotonic()  # without trouble
        self._reads: Collection[int] = ()
        self._joined = False

    def state(self, trouble: Trouble | None, message: str) -> None:
        """What holds records up for a time, as a store that is away, is no reason to have another pod."""
        if trouble in (None, Trouble.WAITING):
            self._since = time.monotonic()
            self._say("" if self._joined else _JOINING)
        else:
            assert trouble is not None
            self._joined = False
            self._say(f"{trouble.value}: {message}")

    def worked(self) -> None:
        """Whoever commits has joined."""
        self._join()

    async def look(self, scoring: Scoring) -> None:
        """Note which partitions are this pod's. One more pod than there are partitions has none, and is a member."""
        while True:
            reads = scoring.reads()
            if reads != self._reads:
                self._reads = reads
                _LOG.info("reads", extra={"partitions": list(reads)})
            if self._pod.trouble == _JOINING and (reads or time.monotonic() - self._since >= POD_JOIN_SECONDS_MAX):
                self._join()
            await asyncio.sleep(STREAM_READS_SECONDS)  # brokers do not call: this is the period of looking

    def _join(self) -> None:
        self._joined = True
        if self._pod.trouble == _JOINING:
            self._say("")

    def _say(self, trouble: str) -> None:
        if not self._pod.told.is_set():
            self._pod.trouble = trouble
