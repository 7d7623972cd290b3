"""Records in, predictions out: the pipeline's transport for topics.

    broker.poll -> scoring.batch.Reading -> scoring.scorer -> pipeline.answer -> scoring.batch.Writing -> broker.commit

A batch is decoded, scored in one call and written together with its position. A record that cannot be read or scored
goes to the dead-letter topic with the reason in its headers; it holds up no other. Positions move only after outputs
are written, so whatever ends this loop in between, the next reader gets the batch again. The pipeline is used on the
event loop; the broker, which blocks, in one thread of its own, where stream feature views are aggregated, too.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from sunup import limits
from sunup.clock import Clock, SystemClock
from sunup.errors import CallError, WorkerDied
from sunup.pipeline import Pipeline
from sunup.stream.broker import Broker, BrokerError, Output, Record, Stream, Trouble
from sunup.stream.scoring.batch import Batch, Reading, Writing
from sunup.stream.scoring.deaths import Deaths
from sunup.stream.scoring.letters import Letters
from sunup.stream.scoring.scorer import Scorer
from sunup.stream.scoring.thread import BrokerThread
from sunup.types import Row
from sunup.wire.cloudevent import Outgoing
from sunup.wire.record import RecordCodec

if TYPE_CHECKING:
    from sunup.stream.scoring.aggregating import Aggregating  # for functions with stream feature views
    from sunup.wire.confluent.schemas import Schemas  # http and ssl, for workers whose records need a registry

_LOG: Final = logging.getLogger(__name__)
_REFUSALS: Final = (Trouble.TOPIC_MISSING, Trouble.NOT_PERMITTED)


class Teller(Protocol):
    """What a loop tells while it works. Both are called on the event loop and must return at once."""

    def state(self, trouble: Trouble | None, message: str) -> None:
        """What keeps the stream from going on; None: nothing does any more. Called when it changes."""
        ...

    def counted(self, scored: int, dead: int, ignored: int) -> None:
        """A batch was committed: so many predictions, so many dead letters, so many records without a value."""
        ...


class Loop:
    """Scores one stream with one revision of a function. Belongs to one event loop; is run once.

    `content`: how records are read, see wire.cloudevent. `model`: "name/version", for the outputs' headers.
    `deaths`: what the workers before died with, if that is known; `schemas`: of records in Confluent's wire format,
    None without a registry; `clock`: the pipeline's; `aggregating`: of a function that aggregates its topic. Reader 0
    of 1 until `share` says otherwise. The pipeline must stay open until `run` has returned: one that is closed before
    refuses records, which then become dead letters.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        codec: RecordCodec,
        open_broker: Callable[[], Broker],
        stream: Stream,
        content: str,
        function: str,
        revision: int,
        model: str,
        teller: Teller,
        records_max: int = limits.STREAM_BATCH_RECORDS_MAX,
        deaths: Deaths | None = None,
        schemas: "Schemas | None" = None,
        clock: Clock | None = None,
        aggregating: "Aggregating | None" = None,
    ) -> None:
        self._stream = stream
        self._teller = teller
        self._clock = clock or SystemClock()
        self._schemas = schemas
        self._reading = Reading(codec, content, schemas)
        self._scorer = Scorer(pipeline, codec, self, self._clock, records_max)
        signature = {"function": function, "revision": str(revision)}
        outgoing = Outgoing(f"/functions/{function}", {"revision": str(revision), "model": model})
        self._writing = Writing(stream.output, outgoing, Letters(stream.dead_letter, signature))
        self._mark = deaths
        self._deaths: Deaths | None = None  # the same, once it is known that a worker died
        self._broker = BrokerThread(open_broker, aggregating)
        self._drain = asyncio.Event()
        self._told: tuple[Trouble | None, str] = (None, "")
        self._holding = False  # records whose commit, or what is aggregated of them, may fail
        self._unwritten = False  # the trouble came of that: the records come again
        self._kept = 0.0  # event loop's seconds at which the group was last shown that we are there
        self._pause = limits.STREAM_RETRY_SECONDS_MAX / 10

    def __repr__(self) -> str:
        state = "draining" if self._drain.is_set() else "running"
        trouble = self._told[0].value if self._told[0] else None
        return f"Loop({self._stream.input}, {state}, {self._broker!r}, trouble={trouble})"

    async def run(self) -> None:
        """Read, score and write until `drain`; the batch in hand is finished first, and the group left last.

        A broker that fails is told, closed and opened again, for as long as it takes. Any other error ends the loop.
        """
        if self._mark is not None and self._mark.begin():
            self._deaths = self._mark
        try:
            while not self._drain.is_set():
                try:
                    await self._turn()
                except BrokerError as error:
                    await self._start_over(error)
            if self._mark is not None:
                self._mark.end()
        finally:
            left = self._broker.end()
            await asyncio.shield(left)  # whoever cancels this too does not keep the group from being left

    def drain(self) -> None:
        """Take no more in. What waits to be tried again is given up uncommitted: the next reader gets it."""
        self._drain.set()

    def share(self, index: int, count: int, without: Collection[int] = ()) -> None:
        """Be reader `index` of `count`, and read no partition of `without`, from the next poll on."""
        self._broker.share(index, count, without)

    # --- One batch ----------------------------------------------------------------------------------------------------

    async def _turn(self) -> None:
        records = await self._broker.take(self._scorer.records_max)
        # A poll does not end the trouble of a commit; but if it finds nothing, what was refused for a time was written.
        if not self._unwritten or not (records or self._told[0] in _REFUSALS):
            self._go_on()
        if not records:
            return
        self._kept = asyncio.get_running_loop().time()
        batch = await self._scored(records)
        if batch is not None:
            written = self._writing.write(batch, self._clock.wall())
            await self._commit(written.outputs)
            if self._deaths is not None:
                self._deaths.committed()
            self._teller.counted(written.scored, written.dead, written.ignored)

    async def _scored(self, records: Sequence[Record]) -> Batch | None:
        """None: given up, because of `drain`."""
        if self._schemas is not None and not await self._schemas.learn([one.value for one in records], self):
            return None
        is_stuck = self._deaths is not None and self._deaths.take(records)
        given = await self._given(records) if self._broker.aggregates else None
        if is_stuck and self._deaths is not None:
            batch = await self._one_by_one(Batch(records, [], [], [], given), self._deaths)
            again = [
                at
                for at, (row, error) in enumerate(zip(batch.rows, batch.answers, strict=True))
                if row is not None and isinstance(error, CallError) and error.retry
            ]
        else:
            batch = self._reading.read(records, given)
            again = [at for at, row in enumerate(batch.rows) if row is not None]
        return batch if await self._scorer.score(batch, again) else None

    async def _one_by_one(self, batch: Batch, deaths: Deaths) -> Batch:
        """Workers died with this batch: which record is it?"""
        self._tell(Trouble.WAITING, "a worker died with these records: they are scored one by one")
        for at, record in enumerate(batch.records):
            died = deaths.alone(record)
            if died >= limits.STREAM_DEATHS_MAX:
                error = WorkerDied(f"{died} workers died while they scored this record and no other")
                batch.append(None, None, error)
            else:
                batch.append(*self._reading.read_one(record))
                if batch.rows[at] is not None:
                    await self._scorer.score_alone(batch, at)
                await self.stay()
        deaths.alone(None)
        return batch

    # --- Waiting: see scorer.Patience ---------------------------------------------------------------------------------

    async def pause(self, seconds: float, error: CallError) -> bool:
        """Wait for what `error` says is missing, as a member of the group; whether to give up, because of `drain`."""
        what = f"{error.code}: {error.message}{' ' + error.hint if error.hint else ''}"
        self._tell(Trouble.WAITING, what)
        while seconds > 0:
            part = min(seconds, limits.STREAM_KEEP_SECONDS)
            if await self._drained_within(part):
                return True
            await self.stay()
            seconds -= part
        return False

    async def stay(self) -> None:
        """Let others have their turn, and stay in the group."""
        await asyncio.sleep(0)
        now = asyncio.get_running_loop().time()
        if now - self._kept >= limits.STREAM_KEEP_SECONDS:
            self._kept = now
            await self._broker.keep()

    # --- The broker ---------------------------------------------------------------------------------------------------

    async def _given(self, records: Sequence[Record]) -> Sequence[Row]:
        """All of them at once, whatever becomes of each: a record that kills is an event, too."""
        self._holding = True
        given = await self._broker.given(records)
        self._holding = False
        return given

    async def _commit(self, outputs: Sequence[Output]) -> None:
        self._holding = True
        await self._broker.commit(outputs)
        self._holding = self._unwritten = False
        self._go_on()

    def _go_on(self) -> None:
        self._tell(None, "")
        self._pause = limits.STREAM_RETRY_SECONDS_MAX / 10

    async def _start_over(self, error: BrokerError) -> None:
        """With another broker, after a pause."""
        self._tell(error.trouble, error.message)
        self._unwritten, self._holding = self._holding, False
        await self._broker.let_go()
        await self._drained_within(self._pause)
        self._pause = min(2 * self._pause, limits.STREAM_RETRY_SECONDS_MAX)

    def _tell(self, trouble: Trouble | None, message: str) -> None:
        if (trouble, message) != self._told:
            self._told = (trouble, message)
            if trouble is None:
                _LOG.info("the stream goes on")
            else:
                _LOG.warning("%s: %s", trouble.value, message)
            self._teller.state(trouble, message)

    async def _drained_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._drain.wait()
        except TimeoutError:
            return False
        return True
