"""A stream worker: a process forked from the nursery that scores the records of one function's topic.

It ends in order: no more records are taken, the batch in hand is scored and committed, the group is left.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping
from typing import Any, Final

from sunup.errors import SunupError
from sunup.execute.executor import Executor
from sunup.limits import STREAM_READS_SECONDS
from sunup.link.channel import Channel, Message
from sunup.serve.attached import Attached
from sunup.serve.opening import load, settle
from sunup.serve.streams.scoring import Scoring
from sunup.stream.broker import Trouble

_LOG: Final = logging.getLogger(__name__)


async def live(spec: dict[str, Any], fds: list[int], begun: float, kept: Executor | None) -> None:
    """Load, score until told to stop, leave."""
    await StreamWorker(spec, fds).run(begun, kept)
    _LOG.info("ended")


class StreamWorker:
    """The process as its supervisor sees it, around one loop. See scoring.Told."""

    def __init__(self, spec: Mapping[str, Any], fds: list[int]) -> None:
        self._spec = spec
        self._attached = Attached(spec, fds, self._heard)
        self._scoring: Scoring | None = None
        self._reads: Collection[int] | None = None  # what the supervisor was told of it
        self._worked = False  # it was told that something is committed

    def __repr__(self) -> str:
        return f"StreamWorker({self._spec['id']}, {self._scoring!r})"

    async def run(self, begun: float, kept: Executor | None) -> None:
        """To the end of the process. `begun`: monotonic seconds; `kept`: see opening.load. What the loop cannot explain
        is raised."""
        try:
            function = await load(self._spec, kept)
        except SunupError as error:
            _LOG.error("cannot score: %s", error.message)
            self._attached.fail(error.code, error.message)
            await self._attached.ended.wait()
            return
        scoring = self._scoring = Scoring(self._spec, function, self)
        settle()
        timings = {"fork": begun - self._spec["asked"], **function.timings}
        self._attached.ready(timings, function.cost)
        _LOG.info("ready", extra={"ms": {stage: round(1000 * seconds, 3) for stage, seconds in timings.items()}})
        async with asyncio.TaskGroup() as tasks:
            telling = tasks.create_task(self._tell_reads(scoring))
            await scoring.loop.run()
            telling.cancel()
        self._tell_features()
        await scoring.aclose()

    def state(self, trouble: Trouble | None, message: str) -> None:
        """See loop.Teller: the supervisor shows it."""
        self._attached.tell({"op": "state", "trouble": trouble.value if trouble else None, "reason": message})

    def worked(self) -> None:
        """The supervisor hears of the first batch."""
        if not self._worked:
            self._worked = True
            self._attached.tell({"op": "worked"})

    async def _tell_reads(self, scoring: Scoring) -> None:
        """Tell the supervisor which partitions are this worker's, whenever that has changed."""
        while True:
            reads = scoring.reads()
            if reads != self._reads:
                self._reads = reads
                self._attached.tell({"op": "reads", "partitions": reads})
            self._tell_features()
            await asyncio.sleep(STREAM_READS_SECONDS)  # brokers do not call: this is the period of looking

    def _tell_features(self, *, anew: bool = False) -> None:
        if self._scoring is not None:
            for words in self._scoring.words(anew=anew):
                self._attached.tell(words)

    def _heard(self, _: Channel, message: Message) -> None:
        head, scoring = message.head, self._scoring
        match head["op"]:
            case "hello":
                self._reads, self._worked = None, False  # a supervisor that knows nothing yet
                self._tell_features(anew=True)
            case "drain" if scoring is not None:
                scoring.loop.drain()
            case "share" if scoring is not None:
                scoring.loop.share(head["index"], head["count"], head["without"])
