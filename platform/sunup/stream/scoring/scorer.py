"""A batch's rows through the pipeline, as often as it takes: what may pass is waited for, what will not is told.

A model run is made for all rows; where it failed for good, one for each, so that only the row that spoils it fails.
What fails for now is tried again with growing pauses, and holds its batch: order per key is kept, and a store that is
down for minutes makes no dead letters.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from sunup import limits
from sunup.clock import Clock
from sunup.errors import CallError, DeadlineExceeded, FeaturesMissing, FeaturesUnread
from sunup.pipeline import Pipeline
from sunup.stream.scoring.batch import Batch, place
from sunup.types import Call, GivenRows
from sunup.wire.record import RecordCodec


class RunsDoNotEnd(Exception):
    """The function's own code holds its thread: nothing will be scored in this process any more."""


class Patience(Protocol):
    """How a loop waits."""

    async def pause(self, seconds: float, error: CallError) -> bool:
        """Wait because of `error`, and stay in the group; whether to give up instead."""
        ...

    async def stay(self) -> None:
        """Let others have a turn, and stay in the group."""
        ...


class Scorer:
    """Scores batches of one loop. `records_max`: of one batch, if calls are quick."""

    def __init__(
        self, pipeline: Pipeline, codec: RecordCodec, patience: Patience, clock: Clock, records_max: int
    ) -> None:
        self._pipeline = pipeline
        self._codec = codec
        self._patience = patience
        self._clock = clock
        self._most = records_max
        # What a batch should hold: begins low, for nobody knows what a handler.py costs; follows what calls take.
        self.records_max = min(records_max, limits.STREAM_FIRST_RECORDS_MAX)

    def __repr__(self) -> str:
        return f"Scorer({self._pipeline!r})"

    async def score(self, batch: Batch, places: Sequence[int]) -> bool:
        """Answer the records at `places`, which can be read. False: told to give up, the batch has to be read again.

        Raises RunsDoNotEnd.
        """
        began, pause, late = self._clock.now(), limits.STREAM_TRY_SECONDS, 0
        refusals: Counter[int] = Counter()
        while places:
            for at, answer in zip(places, await self._answer(batch, places), strict=True):
                batch.answers[at] = answer
                refusals[at] += isinstance(answer, FeaturesMissing) and not isinstance(answer, FeaturesUnread)
            errors = {at: error for at in places if isinstance(error := batch.answers[at], CallError) and error.retry}
            late = late + 1 if len(errors) == len(places) and all(map(_is_late, errors.values())) else 0
            if late == limits.STREAM_TRIES_MAX:
                raise RunsDoNotEnd(f"{late} runs took longer than {limits.STREAM_BATCH_SECONDS_MAX:g} s each")
            if self._clock.now() - began >= limits.STREAM_TRANSIENT_SECONDS_MAX:
                break
            places = [at for at in errors if refusals[at] < limits.STREAM_TRIES_MAX]
            if places and await self._patience.pause(pause, errors[places[0]]):
                return False
            pause = min(2 * pause, limits.STREAM_RETRY_SECONDS_MAX)
        return True

    async def score_alone(self, batch: Batch, at: int) -> None:
        """Answer the record at `at`, in one attempt. Raises RunsDoNotEnd."""
        (batch.answers[at],) = await self._call(batch, [at])
        if _is_late(batch.answers[at]):
            raise RunsDoNotEnd(f"a run for {place(batch.records[at]).decode()} alone took too long")

    async def _answer(self, batch: Batch, places: Sequence[int]) -> Sequence[bytes | CallError]:
        """An answer for each of `places`: in one call, in several where that took too long before."""
        if len(places) <= (size := self.records_max):
            return await self._call(batch, places)
        answers: list[bytes | CallError] = []
        for start in range(0, len(places), size):
            if answers and _is_late(answers[-1]):  # so would the others be
                return [*answers, *answers[-1:] * (len(places) - len(answers))]
            answers += await self._call(batch, places[start : start + size])
            await self._patience.stay()
        return answers

    async def _call(self, batch: Batch, places: Sequence[int]) -> Sequence[bytes | CallError]:
        """The same in one call; where a run failed for good, in one each."""
        began = self._clock.now()
        try:
            found = await self._predict(batch, places)
        except CallError as error:
            if isinstance(error, DeadlineExceeded):
                self.records_max = max(1, len(places) // 2)
            if error.retry or len(places) == 1:
                return [error] * len(places)
        else:
            self._learn(len(places), self._clock.now() - began)
            return found
        # One row may have failed the run for all of them: each runs again by itself, so only that one fails.
        singles: list[bytes | CallError] = []
        for at in places:
            singles += await self._call(batch, [at])
            await self._patience.stay()  # a call may have waited for nothing, and others use this event loop
        return singles

    def _learn(self, records: int, seconds: float) -> None:
        """A call took so long: batches are to take half of STREAM_RUN_SECONDS_MAX to all of it."""
        if seconds > limits.STREAM_RUN_SECONDS_MAX:
            self.records_max = max(1, int(records * limits.STREAM_RUN_SECONDS_MAX / seconds))
        elif records >= self.records_max and seconds < limits.STREAM_RUN_SECONDS_MAX / 2:
            self.records_max = min(2 * records, self._most)

    async def _predict(self, batch: Batch, places: Sequence[int]) -> Sequence[bytes | CallError]:
        names = [place(batch.records[at]).decode() for at in (places if self._pipeline.log else places[:1])]
        rows = [row for at in places if (row := batch.rows[at]) is not None]
        call = Call(
            id=names[0],
            rows=rows if batch.given is None else GivenRows(rows, [batch.given[at] for at in places]),
            count=len(places),
            deadline=self._clock.now() + limits.STREAM_BATCH_SECONDS_MAX,
            origins=[(name, 0) for name in names] if self._pipeline.log else (),
        )
        return self._codec.predictions(await self._pipeline.answer(call))


def _is_late(answer: bytes | CallError | None) -> bool:
    return isinstance(answer, DeadlineExceeded)
