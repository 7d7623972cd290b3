"""A stream worker: a process forked from the nursery that scores the records of one function's topic.

It ends in order: no more records are taken, the batch in hand is scored and committed, the group is left.
"""

import asyncio
import gc
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sunup.bundle.manifest import FEATURES
from sunup.errors import SunupError
from sunup.execute.executor import Executor
from sunup.function import Function
from sunup.limits import (
    CANDIDATES_MAX,
    IMAGE_STREAM_RECORDS_MAX,
    RANK_ROWS_MAX,
    STREAM_BATCH_RECORDS_MAX,
    STREAM_FEATURES_SECONDS_MIN,
    STREAM_FENCES_MAX,
    STREAM_READS_SECONDS,
    STREAM_RUN_SECONDS_MAX,
)
from sunup.link.channel import Channel, Message
from sunup.link.counters import Segment, counters_path
from sunup.lookup import plan as read_plan
from sunup.lookup.plan import ReadPlan
from sunup.pipeline import Pipeline
from sunup.serve.attached import Attached
from sunup.serve.opening import feature_names, load, served_log
from sunup.serve.streams.names import place, reader_name
from sunup.serve.telemetry.meter import StreamMeter, stream_series
from sunup.settings import EMBEDDED_LOG
from sunup.stream.broker import Broker, Reader, Stream, Trouble
from sunup.stream.loop import Loop
from sunup.stream.open import open_broker
from sunup.stream.scoring.deaths import Deaths
from sunup.wire.confluent.open import open_schemas

if TYPE_CHECKING:
    from sunup.serve.streams.features import FeatureNews, Opened  # for functions that aggregate
    from sunup.wire.confluent.schemas import Schemas

_LOG: Final = logging.getLogger(__name__)


async def live(spec: dict[str, Any], fds: list[int], begun: float, kept: Executor | None) -> None:
    """Load, score until told to stop, leave."""
    await StreamWorker(spec, fds).run(begun, kept)
    _LOG.info("ended")


class StreamWorker:
    """The process as its supervisor sees it, around one loop. Also what the loop tells its news to."""

    def __init__(self, spec: Mapping[str, Any], fds: list[int]) -> None:
        self._spec = spec
        self._attached = Attached(spec, fds, self._heard)
        self._loop: Loop | None = None
        self._meter: StreamMeter | None = None
        self._broker: Broker | None = None  # the one the loop opened last
        self._reads: list[int] | None = None  # what the supervisor was told of it
        self._worked = False  # it was told that something is committed
        self._news: FeatureNews | None = None  # of the views it aggregates
        self._fences = 0  # times another reader had taken over since then

    def __repr__(self) -> str:
        return f"StreamWorker({self._spec['id']}, {self._loop!r})"

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
        pipeline = self._open(function)
        assert self._loop is not None
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)  # records are no cycles: looking for them took a third of the loop's own time
        timings = {"fork": begun - self._spec["asked"], **function.timings}
        self._attached.ready(timings, function.cost)
        _LOG.info("ready", extra={"ms": {stage: round(1000 * seconds, 3) for stage, seconds in timings.items()}})
        async with asyncio.TaskGroup() as tasks:
            telling = tasks.create_task(self._tell_reads())
            await self._loop.run()
            telling.cancel()
        self._tell_features()
        await pipeline.aclose()
        if pipeline.log is not None:
            pipeline.log.close()
        await function.aclose()

    def state(self, trouble: Trouble | None, message: str) -> None:
        """See loop.Teller: the supervisor shows it."""
        self._attached.tell({"op": "state", "trouble": trouble.value if trouble else None, "reason": message})
        if trouble is Trouble.FENCED:
            self._fences += 1
            if self._fences >= STREAM_FENCES_MAX and self._loop is not None:
                _LOG.warning("another process has the name of this one: it ends, for another one to take its place")
                self._loop.drain()

    def counted(self, scored: int, dead: int, ignored: int) -> None:
        """See loop.Teller."""
        assert self._meter is not None
        self._meter.counted(scored, dead, ignored)
        self._fences = 0
        if not self._worked:
            self._worked = True
            self._attached.tell({"op": "worked"})

    def _open(self, function: Function) -> Pipeline:
        spec, manifest = self._spec, function.manifest
        declared = manifest.stream
        assert declared is not None, "a stream worker is only born for a function with a stream"
        run = Path(spec["run"])
        path = counters_path(run, f"{spec['function']}.stream", spec["slot"])
        plan = _plan(Path(spec["bundle"])) if manifest.aggregates else None
        aggregated = [view.name for view in plan.views if view.aggregated is not None] if plan is not None else []
        names = feature_names(function)
        series = stream_series(spec["function"], *names, logs=manifest.log is not None, aggregated=aggregated)
        self._meter = StreamMeter(Segment.create(path, series))
        pipeline = Pipeline(function, observer=self._meter)
        if function.lookup is not None:
            function.lookup.on_failure = self._meter.store_failed
            function.lookup.deadline_s = max(function.lookup.deadline_s, STREAM_FEATURES_SECONDS_MIN)
        pipeline.log = served_log(spec, function, self._meter.dropped)
        stream = Stream(declared.group, declared.input, declared.output, declared.dead_letter)
        reader = Reader(reader_name(spec["function"], spec["slot"], place(run)), declared.guarantee == "exactly-once")
        schemas = _schemas(spec["settings"], function)
        opened = None if plan is None else self._open_features(function, plan, stream, schemas)
        self._loop = Loop(
            pipeline,
            codec=function.record_codec(spec["revision"]),
            open_broker=partial(self._open_broker, stream, run.parent / EMBEDDED_LOG, reader),
            stream=stream,
            content=declared.content,
            function=spec["function"],
            revision=spec["revision"],
            model=spec["model"],
            teller=self,
            records_max=_records_max(function),
            deaths=Deaths(run / "deaths" / f"{spec['function']}.{spec['slot']}", spec["revision"]),
            schemas=schemas,
            aggregating=None if opened is None else opened.aggregating,
        )
        return pipeline

    def _open_features(self, function: Function, plan: ReadPlan, stream: Stream, schemas: "Schemas | None") -> "Opened":
        from sunup.serve.streams.features import open_features  # what workers that aggregate nothing do without

        assert self._meter is not None
        known = schemas, _schemas(self._spec["settings"], function)
        opened = open_features(self._spec, function, plan, stream, meter=self._meter, schemas=known, keep=self._keep)
        self._news = opened.news
        return opened

    def _keep(self) -> None:
        if self._broker is not None:
            self._broker.keep()

    def _open_broker(self, stream: Stream, log: Path, reader: Reader) -> Broker:
        self._broker = open_broker(self._spec["settings"], stream, log, reader)
        return self._broker

    async def _tell_reads(self) -> None:
        """Tell the supervisor which partitions are this worker's, whenever that has changed."""
        while True:
            broker = self._broker
            reads = sorted(broker.reads()) if broker is not None else []
            if reads != self._reads:
                self._reads = reads
                self._attached.tell({"op": "reads", "partitions": reads})
            self._tell_features()
            await asyncio.sleep(STREAM_READS_SECONDS)  # brokers do not call: this is the period of looking

    def _tell_features(self, *, anew: bool = False) -> None:
        if self._news is not None:
            for words in self._news.words(anew=anew):
                self._attached.tell(words)

    def _heard(self, _: Channel, message: Message) -> None:
        head, loop = message.head, self._loop
        match head["op"]:
            case "hello":
                self._reads, self._worked = None, False  # a supervisor that knows nothing yet
                self._tell_features(anew=True)
            case "drain" if loop is not None:
                loop.drain()
            case "share" if loop is not None:
                loop.share(head["index"], head["count"], head["without"])


def _plan(bundle: Path) -> ReadPlan:
    return read_plan.load((bundle / FEATURES).read_bytes())


def _schemas(settings: Mapping[str, str], function: Function) -> "Schemas | None":
    assert function.manifest.stream is not None
    return open_schemas(settings, function.manifest.stream.content, function.manifest.request)


def _records_max(function: Function) -> int:
    """Records of one batch: fewer of a dear model, so that positions move, and a worker can end, every second or so."""
    rows, seconds, _ = function.cost
    rows_max = rows * STREAM_RUN_SECONDS_MAX / max(seconds, 1e-9)
    if function.ranking is not None:  # each record may be as many rows as it has candidates
        return max(1, int(min(rows_max, RANK_ROWS_MAX) / CANDIDATES_MAX))
    most = STREAM_BATCH_RECORDS_MAX if function.pictures is None else IMAGE_STREAM_RECORDS_MAX
    return max(1, min(most, int(rows_max)))
