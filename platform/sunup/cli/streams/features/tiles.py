"""The tiles of a deployed function, for a command that makes them again: what its stream workers would open."""

import gc
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import Final

from sunup.bundle.manifest import FEATURES
from sunup.bundle.store import read_manifest
from sunup.cli.streams.source import Source
from sunup.clock import SystemClock
from sunup.lookup import plan as read_plan
from sunup.lookup.writing.open import open_writer
from sunup.settings import FEATURES_URL, Project
from sunup.stream.admin import Admin
from sunup.stream.aggregate.event import Event
from sunup.stream.aggregate.kept.changelog import changelog_of
from sunup.stream.aggregate.online import streamed
from sunup.stream.aggregate.rebuild import Progress, Rebuilt, Wanted, rebuild
from sunup.stream.broker import Reader, Record, Stream
from sunup.stream.scoring.batch import Reading
from sunup.stream.scoring.events import EventReader
from sunup.stream.scoring.tail import TailReader
from sunup.wire.confluent.open import open_schemas
from sunup.wire.record import RecordCodec

_READER: Final = "features"


class Tiles:
    """Of the views that a function aggregates. `settings`: of its revision. Constructing one connects to nothing."""

    def __init__(self, project: Project, source: Source, settings: Mapping[str, str]) -> None:
        self._source = source
        self._settings = settings
        self._folder = project.aggregates / source.function
        self._manifest = read_manifest(source.bundle)
        self._plan = read_plan.load((source.bundle / FEATURES).read_bytes())
        self._views = [streamed(view) for view in self._plan.views if view.aggregated is not None]

    @property
    def names(self) -> list[str]:
        """Of the views."""
        return [view.name for view in self._views]

    @property
    def span_s(self) -> float:
        """Seconds of event time after which nothing is left of an event."""
        return max(view.span_s for view in self._views)

    def rebuild(self, starts: Mapping[int, int], admin: Admin, told: Callable[[Progress], None]) -> Rebuilt:
        """See aggregate.rebuild. Raises BrokerError."""
        stream = self._source.stream
        changelog = changelog_of(self._source.settings, stream.group)
        with ExitStack() as opened:
            write = None
            if changelog is not None:
                # In no group that anybody reads in: it only writes.
                writes = Stream(f"{stream.group}-replay", changelog, changelog, changelog)
                broker = opened.enter_context(
                    closing(self._source.broker(writes, Reader(f"{self._source.function}-{_READER}", False)))
                )
                write = broker.commit
            writer = opened.enter_context(closing(open_writer(self._settings[FEATURES_URL], self._plan)))
            wanted = Wanted(self._views, self._folder, stream.group, stream.input, changelog, self._events(), write)
            gc.freeze()
            gc.set_threshold(50_000, 20, 100)  # as in a stream worker: events are no cycles
            return rebuild(wanted, starts, admin=admin, writer=writer, told=told)

    def _events(self) -> Callable[[Sequence[Record]], Sequence[Sequence[Event | None]]]:
        manifest = self._manifest
        codec = RecordCodec(request=manifest.request, response=(), function="", model="", revision=0)
        assert manifest.stream is not None
        schemas = open_schemas(self._source.settings, manifest.stream.content, manifest.request)
        reader = EventReader(self._plan, manifest.request, Reading(codec, manifest.stream.content, schemas))
        return TailReader(reader, schemas, lambda: None, SystemClock()).read
