"""What scores the records of one function's topic, put together: counters, pipeline, log, loop, and the stream feature
views it aggregates. The same in a worker of an engine and in a pod, which differ in whom they tell."""

import logging
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from sunup.bundle.manifest import FEATURES
from sunup.function import Function
from sunup.limits import (
    CANDIDATES_MAX,
    IMAGE_STREAM_RECORDS_MAX,
    RANK_ROWS_MAX,
    STREAM_BATCH_RECORDS_MAX,
    STREAM_FEATURES_SECONDS_MIN,
    STREAM_FENCES_MAX,
    STREAM_RUN_SECONDS_MAX,
)
from sunup.link.counters import Segment, counters_path
from sunup.lookup import plan as read_plan
from sunup.lookup.plan import ReadPlan
from sunup.pipeline import Pipeline
from sunup.serve.opening import feature_names, served_log
from sunup.serve.streams.names import place, reader_name
from sunup.serve.telemetry.meter import StreamMeter, stream_series
from sunup.settings import EMBEDDED_LOG
from sunup.stream.broker import Broker, Reader, Stream, Trouble
from sunup.stream.loop import Loop
from sunup.stream.open import open_broker
from sunup.stream.scoring.deaths import Deaths
from sunup.wire.confluent.open import open_schemas

if TYPE_CHECKING:
    from sunup.serve.streams.features import FeatureNews  # for functions that aggregate
    from sunup.stream.scoring.aggregating import Aggregating
    from sunup.wire.confluent.schemas import Schemas

_LOG: Final = logging.getLogger(__name__)


class Told(Protocol):
    """Who is told how it goes, on the event loop."""

    def state(self, trouble: Trouble | None, message: str) -> None:
        """See loop.Teller."""
        ...

    def worked(self) -> None:
        """A batch was committed."""
        ...


class Scoring:
    """One stream of `function`, as `spec` says; it connects to nothing before `run`. It is what its loop tells its news
    to. `is_replaced`: another process has its name again and again, so it ends."""

    def __init__(self, spec: Mapping[str, Any], function: Function, told: Told) -> None:
        declared, run = function.manifest.stream, Path(spec["run"])
        assert declared is not None, "only a function with a stream has something to score"
        self._spec = spec
        self._function = function
        self._told = told
        self._broker: Broker | None = None  # the one the loop opened last
        self._news: FeatureNews | None = None  # of the views it aggregates
        self._fences = 0  # times another reader had taken over since something was committed
        self.is_replaced = False
        plan = _plan(Path(spec["bundle"])) if function.manifest.aggregates else None
        self._meter = self._open_meter(plan)
        self._pipeline = self._open_pipeline()
        stream = Stream(declared.group, declared.input, declared.output, declared.dead_letter)
        reader = Reader(reader_name(spec["function"], spec["slot"], place(run)), declared.guarantee == "exactly-once")
        schemas = _schemas(spec["settings"], function)
        self.loop = Loop(
            self._pipeline,
            codec=function.record_codec(spec["revision"]),
            open_broker=partial(self._open_broker, stream, run.parent / EMBEDDED_LOG, reader),
            stream=stream,
            content=declared.content,
            function=spec["function"],
            revision=spec["revision"],
            model=spec["model"],
            teller=self,
            records_max=records_max(function),
            deaths=Deaths(run / "deaths" / f"{spec['function']}.{spec['slot']}", spec["revision"]),
            schemas=schemas,
            aggregating=None if plan is None else self._open_features(plan, stream, schemas),
        )

    def __repr__(self) -> str:
        return f"Scoring({self._spec['function']}, {self.loop!r})"

    async def aclose(self) -> None:
        """The loop has returned: let go of what it used, in order."""
        await self._pipeline.aclose()
        if self._pipeline.log is not None:
            self._pipeline.log.close()
        await self._function.aclose()

    def reads(self) -> Collection[int]:
        """The partitions that are its own now, as far as it knows."""
        return sorted(self._broker.reads()) if self._broker is not None else []

    def words(self, *, anew: bool = False) -> Iterator[dict[str, Any]]:
        """See FeatureNews.words."""
        if self._news is not None:
            yield from self._news.words(anew=anew)

    # --- loop.Teller --------------------------------------------------------------------------------------------------

    def state(self, trouble: Trouble | None, message: str) -> None:
        """See loop.Teller."""
        self._told.state(trouble, message)
        if trouble is Trouble.FENCED:
            self._fences += 1
            if self._fences >= STREAM_FENCES_MAX:
                _LOG.warning("another process has the name of this one: it ends, for another one to take its place")
                self.is_replaced = True
                self.loop.drain()

    def counted(self, scored: int, dead: int, ignored: int) -> None:
        """See loop.Teller."""
        self._meter.counted(scored, dead, ignored)
        self._fences = 0
        self._told.worked()

    # --- Opening ------------------------------------------------------------------------------------------------------

    def _open_meter(self, plan: ReadPlan | None) -> StreamMeter:
        spec, function = self._spec, self._function
        path = counters_path(Path(spec["run"]), f"{spec['function']}.stream", spec["slot"])
        aggregated = [view.name for view in plan.views if view.aggregated is not None] if plan is not None else []
        logs = function.manifest.log is not None
        series = stream_series(spec["function"], *feature_names(function), logs=logs, aggregated=aggregated)
        return StreamMeter(Segment.create(path, series))

    def _open_pipeline(self) -> Pipeline:
        function, meter = self._function, self._meter
        pipeline = Pipeline(function, observer=meter)
        if function.lookup is not None:
            function.lookup.on_failure = meter.store_failed
            function.lookup.deadline_s = max(function.lookup.deadline_s, STREAM_FEATURES_SECONDS_MIN)
        pipeline.log = served_log(self._spec, function, meter.dropped)
        return pipeline

    def _open_features(self, plan: ReadPlan, stream: Stream, schemas: "Schemas | None") -> "Aggregating":
        from sunup.serve.streams.features import open_features  # what workers that aggregate nothing do without

        known = schemas, _schemas(self._spec["settings"], self._function)
        opened = open_features(
            self._spec, self._function, plan, stream, meter=self._meter, schemas=known, keep=self._keep
        )
        self._news = opened.news
        return opened.aggregating

    def _keep(self) -> None:
        if self._broker is not None:
            self._broker.keep()

    def _open_broker(self, stream: Stream, log: Path, reader: Reader) -> Broker:
        self._broker = open_broker(self._spec["settings"], stream, log, reader)
        return self._broker


def records_max(function: Function) -> int:
    """Records of one batch: fewer of a dear model, so that positions move, and a worker can end, every second or so."""
    rows, seconds, _ = function.cost
    rows_max = rows * STREAM_RUN_SECONDS_MAX / max(seconds, 1e-9)
    if function.ranking is not None:  # each record may be as many rows as it has candidates
        return max(1, int(min(rows_max, RANK_ROWS_MAX) / CANDIDATES_MAX))
    most = STREAM_BATCH_RECORDS_MAX if function.pictures is None else IMAGE_STREAM_RECORDS_MAX
    return max(1, min(most, int(rows_max)))


def _plan(bundle: Path) -> ReadPlan:
    return read_plan.load((bundle / FEATURES).read_bytes())


def _schemas(settings: Mapping[str, str], function: Function) -> "Schemas | None":
    assert function.manifest.stream is not None
    return open_schemas(settings, function.manifest.stream.content, function.manifest.request)
