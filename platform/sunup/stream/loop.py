"""Records in, predictions out: the pipeline's transport for topics.

    broker.poll -> cloudevent.read, codec.row -> pipeline.answer -> codec.predictions -> broker.commit

A batch is decoded, scored in one call and written together with its position. A record that cannot be read or scored
goes to the dead-letter topic with the reason in its headers; it holds up no other. Positions move only after outputs
are written, so whatever ends this loop in between, the next reader gets the batch again. The pipeline is used on the
event loop; the broker, which blocks, in one thread of its own.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple, Protocol, TypeVar

from sunup import limits
from sunup.clock import Clock, SystemClock
from sunup.errors import CallError
from sunup.pipeline import Pipeline
from sunup.stream.broker import Broker, BrokerError, Output, Record, Stream, Trouble
from sunup.types import Call, Row
from sunup.wire.cloudevent import Event, Outgoing, read, stamp
from sunup.wire.record import RecordCodec

_LOG: Final = logging.getLogger(__name__)
_REFUSALS: Final = (Trouble.TOPIC_MISSING, Trouble.NOT_PERMITTED)

Given = TypeVar("Given")


class Teller(Protocol):
    """What a loop tells while it works. Both are called on the event loop and must return at once."""

    def state(self, trouble: Trouble | None, message: str) -> None:
        """What keeps the stream from going on; None: nothing does any more. Called when it changes."""
        ...

    def counted(self, scored: int, dead: int) -> None:
        """A batch was committed: so many predictions, so many dead letters."""
        ...


class _Batch(NamedTuple):
    """What was polled together; lists of one length. `rows[i]` and `events[i]` are None where reading failed.

    `answers[i]`: the prediction, or why there is none; None until record i was scored.
    """

    records: Sequence[Record]
    events: list[Event | None]
    rows: list[Row | None]
    answers: list[bytes | CallError | None]


class Loop:
    """Scores one stream with one revision of a function. Belongs to one event loop; is run once.

    `content`: how records are read, see wire.cloudevent. `model`: "name/version", for the outputs' headers.
    `clock`: the pipeline's. Reader 0 of 1 until `share` says otherwise. The pipeline must stay open until `run` has
    returned: one that is closed before refuses records, which then become dead letters.
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
        clock: Clock | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._codec = codec
        self._open_broker = open_broker
        self._stream = stream
        self._content = content
        self._records_max = records_max  # in one batch
        self._teller = teller
        self._clock = clock or SystemClock()
        self._outgoing = Outgoing(f"/functions/{function}", {"revision": str(revision), "model": model})
        self._signature = {"function": function, "revision": str(revision)}
        self._thread = ThreadPoolExecutor(1, "broker")  # the thread itself starts with the first call
        self._drain = asyncio.Event()
        self._share = (0, 1)
        self._joined: tuple[int, int] | None = None  # what the open broker was told of it
        self._broker: Broker | None = None  # touched on the thread only
        self._told: tuple[Trouble | None, str] = (None, "")
        self._writing = False
        self._unwritten = False  # the trouble came of a commit: the records come again
        self._pause = limits.STREAM_RETRY_SECONDS_MAX / 10

    def __repr__(self) -> str:
        state = "draining" if self._drain.is_set() else "running"
        trouble = self._told[0].value if self._told[0] else None
        return f"Loop({self._stream.input}, {state}, share={self._share}, trouble={trouble})"

    async def run(self) -> None:
        """Read, score and write until `drain`; the batch in hand is finished first, and the group left last.

        A broker that fails is told, closed and opened again, for as long as it takes. Any other error ends the loop.
        """
        try:
            while not self._drain.is_set():
                try:
                    await self._turn()
                except BrokerError as error:
                    await self._start_over(error)
        finally:
            left = self._on_thread(self._let_go)
            self._thread.shutdown(wait=False)  # it ends after that
            await asyncio.shield(left)  # whoever cancels this too does not keep the group from being left

    def drain(self) -> None:
        """Take no more in. What waits to be tried again is given up uncommitted: the next reader gets it."""
        self._drain.set()

    def share(self, index: int, count: int) -> None:
        """Be reader `index` of `count` from the next poll on."""
        self._share = (index, count)

    # --- One batch ----------------------------------------------------------------------------------------------------

    async def _turn(self) -> None:
        records = await self._on_thread(self._take)
        # A poll does not end the trouble of a commit; but if it finds nothing, what was refused for a time was written.
        if not self._unwritten or not (records or self._told[0] in _REFUSALS):
            self._go_on()
        if not records:
            return
        batch = self._read(records)
        if await self._score(batch):
            outputs, dead = self._outputs(batch)
            await self._commit(outputs)
            self._teller.counted(len(outputs) - dead, dead)

    def _read(self, records: Sequence[Record]) -> _Batch:
        """Every record by itself: a bad one is set aside."""
        codec, content = self._codec, self._content
        batch = _Batch(records, [], [], [])
        for record in records:
            event = values = error = None
            try:
                event = read(record.value, record.headers, content)
                values = codec.picture(event.data, event.kind) if event.kind else codec.row(event.data)
            except CallError as found:
                error = found
            batch.events.append(event)
            batch.rows.append(values)
            batch.answers.append(error)
        return batch

    def _outputs(self, batch: _Batch) -> tuple[list[Output], int]:
        """What to write, in the records' order, and how much of it is dead letters."""
        time = stamp(self._clock.wall())
        topic, headers, outputs, dead = self._stream.output, self._outgoing.headers, list[Output](), 0
        for record, event, answer in zip(batch.records, batch.events, batch.answers, strict=True):
            if event is not None and type(answer) is bytes:
                made = headers(id=_name(record), subject=event.id, time=time, trace=event.trace)
                outputs.append(Output(topic, record.key, answer, made))
            elif isinstance(answer, CallError):
                outputs.append(self._dead_letter(record, answer, time))
                dead += 1
            else:  # never a position that moves past a record nothing is said of
                raise TypeError(f"{_name(record)} has no answer")
        return outputs, dead

    def _dead_letter(self, record: Record, error: CallError, time: bytes) -> Output:
        # With our headers a record of the largest size would be too large, and hold up its partition for ever.
        value = record.value if len(record.value or b"") <= limits.STREAM_DEAD_BYTES_MAX else None
        said = {
            "error_code": error.code,
            "error_message": error.message,
            "error_field": error.field,
            "error_hint": error.hint,
            **self._signature,
            "topic": record.topic,
            "partition": str(record.partition),
            "offset": str(record.offset),
            "time": time.decode(),
            "value_bytes": str(len(record.value or b"")) if value != record.value else None,
        }
        headers = [(f"sunup_{name}", value.encode()) for name, value in said.items() if value is not None]
        return Output(self._stream.dead_letter, record.key, value, [*record.headers, *headers])

    # --- Scoring ------------------------------------------------------------------------------------------------------

    async def _score(self, batch: _Batch) -> bool:
        """Answer every record that could be read. What fails for now is tried again; False: drained meanwhile."""
        places = [place for place, row in enumerate(batch.rows) if row is not None]
        for attempt in range(limits.STREAM_TRIES_MAX):
            if not places:
                break
            if attempt and await self._drained_within(limits.STREAM_TRY_SECONDS * 2 ** (attempt - 1)):
                return False
            answers = await self._answer(batch, places)
            again: list[int] = []
            for place, answer in zip(places, answers, strict=True):
                batch.answers[place] = answer
                if isinstance(answer, CallError) and answer.retry:
                    again.append(place)
            places = again
        return True

    async def _answer(self, batch: _Batch, places: Sequence[int]) -> Sequence[bytes | CallError]:
        """An answer for each of `places`, in one call; where a run failed for good, in one each."""
        try:
            return await self._predict(batch, places)
        except CallError as error:
            if error.retry or len(places) == 1:
                return [error] * len(places)
        # One row may have failed the run for all of them: each runs again by itself, so only that one fails.
        answers: list[bytes | CallError] = []
        for place in places:
            answers += await self._answer(batch, [place])
            await asyncio.sleep(0)  # a call may have waited for nothing, and others use this event loop
        return answers

    async def _predict(self, batch: _Batch, places: Sequence[int]) -> Sequence[bytes | CallError]:
        names = [_name(batch.records[place]) for place in (places if self._pipeline.log else places[:1])]
        call = Call(
            id=names[0],
            rows=[row for place in places if (row := batch.rows[place]) is not None],
            count=len(places),
            deadline=self._clock.now() + limits.STREAM_BATCH_SECONDS_MAX,
            origins=[(name, 0) for name in names] if self._pipeline.log else (),
        )
        return self._codec.predictions(await self._pipeline.answer(call))

    # --- The broker: `_take`, `_write` and `_let_go` run on the thread ------------------------------------------------

    def _on_thread(self, call: Callable[..., Given], *given: object) -> asyncio.Future[Given]:
        return asyncio.get_running_loop().run_in_executor(self._thread, call, *given)

    def _take(self) -> Sequence[Record]:
        if self._broker is None:
            self._broker = self._open_broker()
        share = self._share
        if share != self._joined:
            self._broker.join(*share)
            self._joined = share
        return self._broker.poll(limits.STREAM_POLL_SECONDS, self._records_max)

    def _write(self, outputs: Sequence[Output]) -> None:
        assert self._broker is not None
        self._broker.commit(outputs)

    def _let_go(self) -> None:
        broker, self._broker, self._joined = self._broker, None, None
        try:
            if broker is not None:
                broker.close()
        except BrokerError as error:
            _LOG.warning("the broker was not left properly: %s", error.message)

    async def _commit(self, outputs: Sequence[Output]) -> None:
        self._writing = True
        await self._on_thread(self._write, outputs)
        self._writing = self._unwritten = False
        self._go_on()

    def _go_on(self) -> None:
        self._tell(None, "")
        self._pause = limits.STREAM_RETRY_SECONDS_MAX / 10

    async def _start_over(self, error: BrokerError) -> None:
        """With another broker, after a pause."""
        self._tell(error.trouble, error.message)
        self._unwritten, self._writing = self._writing, False
        await self._on_thread(self._let_go)
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


def _name(record: Record) -> str:
    """Where a record is: what makes a doubled output recognisable, and a call findable in the log."""
    return f"{record.topic}-{record.partition}-{record.offset}"
