"""decode -> lookup -> batch -> execute -> encode: the one path every prediction takes, from any transport.

    bytes --codec.decode--> Call               rows of request values; records that could not be read are set aside
                            + Features         lookup: rows of feature values, and which were missing or stale
                            -> Ready           the rows to run, each a request row with its features behind it
                            -> outputs         batch and execute: rows to arrays, one model run for all of them
                            -> Reply           outputs to named response columns
    bytes <--codec.encode--

A transport decodes, asks the pipeline for the answer and encodes; what is between the two is here. There are three ways
through, made of the same stages. Where nothing has to be waited for, `answer_now` is plain calls: a model run of 20 us
is cheaper than any queue or thread hop. `begin` is for calls that wait for their features only: plain calls too, before
and behind the wait, and one run for those that end it together. `answer` awaits whatever there is: dear runs go to the
batcher.
"""

import logging
from asyncio import timeout
from collections.abc import Callable, Mapping, Sequence
from math import inf
from time import perf_counter
from typing import Any, Final

from numpy.typing import NDArray

from sunup.batch.assemble import Ready, prepare
from sunup.batch.batcher import Batcher, Ran
from sunup.batch.plan import slices
from sunup.batch.recall import Recall
from sunup.batch.respond import Log, joined, reply
from sunup.batch.retrieve import Ranker
from sunup.batch.turn import Begun, Turn
from sunup.clock import Clock, SystemClock
from sunup.errors import BadRequest, CallError, DeadlineExceeded, ExecutionFailed, HandlerFailed
from sunup.execute.handler import HookFailed
from sunup.function import Function
from sunup.limits import LOOKUP_ROWS_PER_DEADLINE
from sunup.observer import Observer, Unobserved
from sunup.types import Call, Column, Features, Reply, Row, Timings

_LOG: Final = logging.getLogger(__name__)


class Pipeline:
    """Answers calls of one function. Belongs to one event loop; `aclose` before the function's own."""

    log: Log | None = None  # where what is served is kept; set before the first call

    def __init__(self, function: Function, *, observer: Observer | None = None, clock: Clock | None = None) -> None:
        self._lookup = function.lookup
        self._pictures = function.pictures
        self._assembly = function.assembly
        self._executor = function.executor
        self._response = function.response
        self._observer = observer or Unobserved()
        self._clock = clock or SystemClock()
        self._handled = function.handled
        # Decoding a picture is never done on the event loop; nor is a function's own code, whose cost nobody knows.
        self._rows_now_max = 0 if self._pictures or self._handled else function.cost.rows_now_max
        self._run_rows_max = function.run_rows_max
        self._recalls = self._lookup.recall if self._lookup is not None and self._lookup.cache is not None else None
        self._recalled: tuple[Call, Features] | None = None  # between `takes_now` and `answer_now`
        recall = self._opened_recall(function)
        self._recall = None if self._pictures else recall
        self._recall_pictures = recall.pictures if recall and self._pictures else None  # before they are decoded
        queue_max = function.manifest.scale.queue_max
        self._ranker: Ranker | None = None
        if function.ranking is not None:
            self._ranker = Ranker(function.ranking, function.retrieval, queue_max=queue_max, clock=self._clock)
        self._turn = Turn(
            self._run_now,
            rows_max=self._rows_now_max,
            empty=self._response.empty,
            failed=_failed,
            observe=self._observer.features,
            made=self._made,
            clock=self._clock,
        )
        self._batcher = Batcher(
            self._run_shared,
            rows_max=self._run_rows_max,
            queue_max=queue_max,
            clock=self._clock,
            on_depth=self._observer.queued,
            known=function.cost[:2] if self._handled is None else None,  # that is the model's alone
        )

    def _opened_recall(self, function: Function) -> Recall | None:
        """What remembers answers. Nobody knows what a handler.py looks at of a row: it is all of it."""
        spec, lookup = function.manifest.cache, function.lookup
        if lookup is not None and lookup.cache is not None:
            lookup.cache.tell = self._observer.recalled
        if spec is None:
            return None
        fields = function.manifest.rows + (lookup.columns if lookup is not None else ())
        inputs = function.manifest.inputs if self._handled is None else None
        return Recall(spec, fields, inputs, clock=self._clock, tell=self._observer.recalled)

    def __repr__(self) -> str:
        return f"Pipeline(inline={self.inline}, rows_now_max={self._rows_now_max}, {self._batcher!r})"

    @property
    def inline(self) -> bool:
        """Whether a small call can be answered without waiting for anything."""
        return self._rows_now_max > 0 and (self._lookup is None or self._lookup.inline)

    def takes_now(self, call: Call) -> bool:
        """Whether `answer_now` is the way for this call: inline, and few enough rows not to hold up the others."""
        if self._ranker is not None or len(call.rows) > self._rows_now_max:
            return False
        return self._looks_up_now(call) or (self._recalls is not None and self._recall_features(call, self._recalls))

    def answer_now(self, call: Call) -> Reply:
        """The reply, without leaving the event loop. Raises CallError; for one record, its own."""
        timings = Timings()
        found = self._read_now(call, timings)
        ready = prepare(call, found)
        outputs = self._execute_now(call, ready.rows, timings)
        return self._reply(call, ready, outputs, timings)

    def takes_soon(self, call: Call) -> bool:
        """Whether `begin` is the way for this call: it waits for its features and for nothing else.

        Not with [cache]: of calls that share a run it would not be known which of their rows were recalled.
        """
        few = self._ranker is None and self._recall is None and 0 < len(call.rows) <= self._rows_now_max
        return few and self._lookup is not None and not self._lookup.inline

    def begin(self, call: Call, told: Callable[[Reply | Exception], None]) -> Begun:
        """As `answer`, without a coroutine: `told` is called in a later turn of the loop, unless the call is cancelled.

        Calls whose features come within one turn share a model run.
        """
        assert self._lookup is not None
        begun, clock = Begun(self._turn, call, told), self._clock
        begun.reading = self._lookup.ask(
            call.rows, now=clock.now(), wall=clock.wall(), until=call.deadline, told=begun.found
        )
        return begun

    async def answer(self, call: Call) -> Reply:
        """The reply, for any call. Raises CallError; for one record, its own."""
        timings = Timings()
        if self._pictures is not None:
            if self._recall_pictures is not None:
                call, outputs = await self._recall_pictures(call, timings, self._pictures.decoded, self._execute)
                return self._reply(call, prepare(call, None), outputs, timings)
            call = await self._pictures.decoded(call, timings)
        if self._ranker is not None:
            return await self._rank(self._ranker, call, timings)
        found = await self._read(call, timings)
        ready = prepare(call, found)
        outputs = await self._execute(call, ready.rows, timings)
        return self._reply(call, ready, outputs, timings)

    async def aclose(self) -> None:
        """Refuse what waits for the model, let the run under way finish."""
        if self._ranker is not None:
            await self._ranker.aclose()
        await self._batcher.aclose()

    async def _rank(self, ranker: Ranker, call: Call, timings: Timings) -> Reply:
        """The same around the rows that a call's candidates make: one lookup and one run for all of them."""
        self._check_deadline(call)
        try:
            expanded = await ranker.expand(call, timings)
        except CallError:
            raise
        except Exception as error:
            raise _failed(call, error) from error
        ready = prepare(expanded.call, await self._read(expanded.call, timings))
        outputs = await self._execute(expanded.call, ready.rows, timings)
        return ranker.regroup(call, expanded, self._reply(expanded.call, ready, outputs, timings))

    # --- lookup -------------------------------------------------------------------------------------------------------

    def _looks_up_now(self, call: Call) -> bool:
        return self._lookup is None or (self._lookup.inline and len(call.rows) <= LOOKUP_ROWS_PER_DEADLINE)

    def _recall_features(self, call: Call, recall: Callable[..., Features | None]) -> bool:
        """Whether all features of a call are remembered: `answer_now`, which comes next, needs no store then."""
        found = recall(call.rows, wall=self._clock.wall())
        self._recalled = None if found is None else (call, found)
        return found is not None

    def _read_now(self, call: Call, timings: Timings) -> Features | None:
        if self._lookup is None or not call.rows:
            return None
        started, clock = perf_counter(), self._clock
        if self._recalled is not None and self._recalled[0] is call:
            found, self._recalled = self._recalled[1], None
        else:
            found = self._lookup.read_now(call.rows, now=clock.now(), wall=clock.wall(), until=call.deadline)
        timings.lookup = perf_counter() - started
        self._observer.features(found)
        return found

    async def _read(self, call: Call, timings: Timings) -> Features | None:
        if self._lookup is None or self._looks_up_now(call):
            return self._read_now(call, timings)
        started, clock = perf_counter(), self._clock
        found = await self._lookup.read(call.rows, now=clock.now(), wall=clock.wall(), until=call.deadline)
        timings.lookup = perf_counter() - started
        self._observer.features(found)
        return found

    # --- batch and execute --------------------------------------------------------------------------------------------

    def _execute_now(self, call: Call, rows: Sequence[Row], timings: Timings) -> list[NDArray[Any]]:
        if not rows:
            return []
        self._check_deadline(call)
        try:
            return self._run(rows, timings) if self._recall is None else self._recall.run(rows, timings, self._run)
        except Exception as error:
            raise _failed(call, error) from error

    async def _execute(self, call: Call, rows: Sequence[Row], timings: Timings) -> list[NDArray[Any]]:
        if len(rows) <= self._rows_now_max:
            return self._execute_now(call, rows, timings)
        self._check_deadline(call)
        if self._recall is None:
            return await self._submit(call, rows, timings)
        seen = self._recall.look(rows, timings)
        return self._recall.finish(seen, await self._submit(call, seen.rows, timings) if seen.rows else [])

    async def _submit(self, call: Call, rows: Sequence[Row], timings: Timings) -> list[NDArray[Any]]:
        try:
            submit = self._batcher.submit if self._handled is None else self._submit_in_time
            ran = await submit(rows, call.deadline)
        except CallError:
            raise
        except Exception as error:
            raise _failed(call, error) from error
        timings.batch += ran.waited
        timings.execute += ran.took
        return ran.outputs

    async def _submit_in_time(self, rows: Sequence[Row], deadline: float) -> Ran:
        """The function's own code may never return: its callers are answered all the same."""
        try:
            async with timeout(max(0.0, deadline - self._clock.now()) if deadline != inf else None):
                return await self._batcher.submit(rows, deadline)
        except TimeoutError as error:
            raise DeadlineExceeded("the function's own code took longer than the call may") from error

    def _run(self, rows: Sequence[Row], timings: Timings) -> list[NDArray[Any]]:
        """One model run, or several for more rows than one run takes."""
        if len(rows) > self._run_rows_max:
            return joined([self._run(rows[part], timings) for part in slices(len(rows), self._run_rows_max)])
        started = assembled = perf_counter()
        if self._handled is None:
            feeds = self._assembly.feeds(rows)
            assembled = perf_counter()
            outputs = self._executor.run(feeds, self._response.outputs)
        else:
            outputs = self._handled(rows)
        timings.batch += assembled - started
        timings.execute += perf_counter() - assembled
        for name, output in zip(self._response.outputs, outputs, strict=True):
            if len(output) != len(rows):  # never a wrong answer: rows and outputs would no longer belong together
                raise ValueError(f"output {name!r} has {len(output)} rows for {len(rows)} rows of input")
        return outputs

    def _run_shared(self, rows: Sequence[Row]) -> list[NDArray[Any]]:
        """A run for the batcher, on its thread; its calls are timed there."""
        return self._run(rows, Timings())

    def _run_now(self, rows: Sequence[Row], timings: Timings) -> Mapping[str, Column]:
        """A run for the calls of one turn of the loop."""
        return self._response.columns(self._run(rows, timings))

    def _check_deadline(self, call: Call) -> None:
        if self._clock.now() >= call.deadline:
            raise DeadlineExceeded("the call's time was up before the model ran")

    # --- reply --------------------------------------------------------------------------------------------------------

    def _reply(self, call: Call, ready: Ready, outputs: list[NDArray[Any]], timings: Timings) -> Reply:
        columns = self._response.columns(outputs) if outputs else self._response.empty
        return self._made(call, ready, columns, timings)

    def _made(self, call: Call, ready: Ready, columns: Mapping[str, Column], timings: Timings) -> Reply:
        if self.log is not None and ready.rows:
            self.log.note(call, ready, columns)
        return reply(call, ready, columns, timings)


def _failed(call: Call, error: Exception) -> CallError:
    if isinstance(error, HookFailed):
        _LOG.error("%s", error, exc_info=error, extra={"id": call.id})
        told = f"the reason is in the function's log under id {call.id}"
        if error.refused:
            return BadRequest(f"the function cannot use these values; {told}", code="handler_refused")
        return HandlerFailed(f"the function's own code failed; {told}")
    _LOG.error("model run failed", exc_info=error, extra={"id": call.id})
    return ExecutionFailed(f"the model run failed; the reason is in the function's log under id {call.id}")
