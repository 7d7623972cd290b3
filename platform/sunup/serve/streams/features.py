"""The stream feature views that a stream worker aggregates: put together, and told of. Only workers that have any
import this."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sunup.clock import Clock, SystemClock
from sunup.function import Function
from sunup.limits import AGGREGATE_FACTS_SECONDS, AGGREGATE_IDS_MAX, AGGREGATE_NOTES_MAX
from sunup.lookup.plan import ReadPlan
from sunup.lookup.writing.open import open_writer
from sunup.serve.telemetry.meter import StreamMeter
from sunup.settings import AGGREGATES, EMBEDDED_LOG, FEATURES_URL
from sunup.stream.aggregate.aggregates import Aggregates
from sunup.stream.aggregate.kept.changelog import changelog_of
from sunup.stream.aggregate.online import streamed
from sunup.stream.aggregate.partition import Counts
from sunup.stream.broker import Stream
from sunup.stream.open import open_admin
from sunup.stream.scoring.aggregating import Aggregating
from sunup.stream.scoring.batch import Reading
from sunup.stream.scoring.events import EventReader
from sunup.stream.scoring.tail import TailReader

if TYPE_CHECKING:
    from sunup.wire.confluent.schemas import Schemas  # http and ssl, for workers whose records need a registry

_LOG: Final = logging.getLogger(__name__)
_MISPLACED: Final = (
    "come under different record keys, or under none, so they may be in different partitions, and each partition is "
    "aggregated by itself: write the records with the view's entity as their key, or into a topic with one partition"
)
_FORGOTTEN: Final = (
    f"had more than {AGGREGATE_IDS_MAX:,} events in the time events may be late: of older ones a second copy is "
    "aggregated again; shorten watermark_delay_threshold"
)
_FACTS_SHARE: Final = 0.01  # of the thread's time: it counts the rows of a table


class _Due(NamedTuple):
    """When values of what is in those partitions change without a record: wall seconds, None: never."""

    at: float | None
    partitions: tuple[int, ...]


class FeatureNews:
    """What is told of the views: counted, and for the supervisor. Its methods are for the broker's thread, but for
    `words`, which is for the event loop's. See scoring.aggregating.News and aggregate.aggregates.Teller."""

    def __init__(self, views: Sequence[str], meter: StreamMeter, clock: Clock) -> None:
        self.aggregates: Aggregates | None = None  # set before the first batch
        self._views = views
        self._meter = meter
        self._clock = clock
        self._counts = {view: [0, 0, 0, 0] for view in views}  # late, duplicates, invalid, misplaced
        self._notes: list[str] = []
        self._reasons = dict.fromkeys(views, "")
        self._fresh_ms: float | None = None
        self._due: _Due | None = None
        self._facts: Mapping[str, Any] = {}
        self._is_settled = False
        self._is_news = True  # since the last look at the facts
        self._facts_at = self._free_at = 0.0  # monotonic seconds of the next, and of the soonest
        self._told: tuple[_Due | None, Mapping[str, Any]] = (None, {})

    def aggregated(self, view: str, counts: Counts) -> None:
        late, duplicates = counts.late, counts.duplicates
        self._meter.aggregated(view, aggregated=counts.aggregated, late=late, duplicate=duplicates)
        self._counts[view][0] += late
        self._counts[view][1] += duplicates

    def note(self, message: str) -> None:
        if message not in self._notes and len(self._notes) < AGGREGATE_NOTES_MAX:
            _LOG.warning("%s", message)
            self._notes.append(message)
            self._is_news = True

    def committed(
        self, refused: Sequence[int], reasons: Sequence[str], misplaced: Sequence[int], seconds: float
    ) -> None:
        self._is_news = True
        written = self.aggregates is not None and self.aggregates.is_written
        if written:
            self._fresh_ms = round(1000 * seconds, 3)
        for view, count, reason in zip(self._views, refused, reasons, strict=True):
            if written:
                self._meter.fresh(view, seconds)
            if count:
                self._meter.aggregated(view, invalid=count)
                self._counts[view][2] += count
                if not self._reasons[view]:
                    self._reasons[view] = reason
                    _LOG.warning("a record is no event of %s: %s; others are counted", view, reason)
        if any(misplaced):
            for view, count in zip(self._views, misplaced, strict=True):
                self._counts[view][3] += count
                if count:
                    self.note(f"events of one entity of {view} {_MISPLACED}")

    def polled(self, due: float | None, partitions: Collection[int], *, last: bool = False) -> None:
        found = _Due(due, tuple(sorted(partitions)))
        now, at = self._clock.now(), self._facts_at
        if found != self._due:
            self._due, self._is_news, at = found, True, self._free_at
        if self._is_news and (last or now >= at) and self.aggregates is not None:
            self._facts = {"views": self._gathered(self.aggregates), "notes": tuple(self._notes)}
            self._is_news = False
            took = self._clock.now() - now
            self._free_at = now + took / _FACTS_SHARE
            self._facts_at = max(now + AGGREGATE_FACTS_SECONDS, self._free_at)

    def settled(self) -> None:
        self._is_settled = True

    def words(self, *, anew: bool = False) -> list[dict[str, Any]]:
        """Messages for the supervisor, of what has changed since the last. `anew`: it knows nothing."""
        told = (None, {}) if anew else self._told
        due, facts = self._told = self._due, self._facts
        said: list[dict[str, Any]] = []
        if facts and facts != told[1]:
            said.append({"op": "features", **facts})
        if due is not None and due != told[0]:
            said.append({"op": "due", "at": due.at, "partitions": list(due.partitions)})
        if self._is_settled:
            said.append({"op": "settled"})
        return said

    def _gathered(self, aggregates: Aggregates) -> dict[str, dict[str, Any]]:
        found = {}
        for view, facts in zip(self._views, aggregates.facts(), strict=True):
            late, duplicates, invalid, misplaced = self._counts[view]
            if facts.forgotten:
                self.note(f"an entity of {view} {_FORGOTTEN}")
            found[view] = {
                "entities": facts.entities,
                "late": late,
                "duplicates": duplicates,
                "invalid": invalid,
                "misplaced": misplaced,
                "reason": self._reasons[view],
                "freshness_ms": self._fresh_ms,
                "behind": facts.behind,
            }
        return found


class Opened(NamedTuple):
    """What a worker needs of it."""

    aggregating: Aggregating
    news: FeatureNews


def open_features(
    spec: Mapping[str, Any],
    function: Function,
    plan: ReadPlan,
    stream: Stream,
    *,
    meter: StreamMeter,
    schemas: "Sequence[Schemas | None]",
    keep: Callable[[], None],
) -> Opened:
    """The views of a function that aggregates some. `schemas`: the loop's and another one, of records in Confluent's
    wire format; `keep`: see TailReader. Raises UsageError. Connects to nothing."""
    clock = SystemClock()
    manifest, settings, state = function.manifest, spec["settings"], Path(spec["run"]).parent
    assert manifest.stream is not None
    views = [streamed(view) for view in plan.views if view.aggregated is not None]
    codec, content = function.record_codec(spec["revision"]), manifest.stream.content
    reader, again = (EventReader(plan, manifest.request, Reading(codec, content, known)) for known in schemas)
    news = FeatureNews([view.name for view in views], meter, clock)
    tail = TailReader(again, schemas[1], keep, clock)
    news.aggregates = Aggregates(
        views,
        state / AGGREGATES / spec["function"],
        group=stream.group,
        topic=stream.input,
        changelog=changelog_of(settings, stream.group),
        open_admin=lambda: open_admin(settings, state / EMBEDDED_LOG),
        events=tail.read,
        writer=open_writer(settings[FEATURES_URL], plan),
        teller=news,
        clock=clock,
        stay=tail.stay,
    )
    widths = [len(view.spec.aggregations) for view in views]
    return Opened(Aggregating(news.aggregates, reader, widths, news=news, wall=clock.wall), news)
