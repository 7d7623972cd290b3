"""How a partition is opened: from its file, else from the changelog, then the tail."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from sunup.clock import Clock
from sunup.limits import AGGREGATE_TAIL_RECORDS_MAX
from sunup.stream.admin import Admin
from sunup.stream.aggregate.event import Event
from sunup.stream.aggregate.kept.changelog import Changelog, Marker
from sunup.stream.aggregate.kept.due import unlog
from sunup.stream.aggregate.kept.origin import is_other
from sunup.stream.aggregate.kept.state import State
from sunup.stream.aggregate.online import Online, Streamed
from sunup.stream.aggregate.partition import Partition
from sunup.stream.broker import BrokerError, Record, Trouble

_LOG: Final = logging.getLogger(__name__)
_READ: Final = 10_000  # records of the input read at a time
_REPLAY: Final = "`platform stream replay --features` fills them with what the topic still holds"


class Opening:
    """Of one function's partitions. `note`: what a person should know."""

    def __init__(
        self,
        views: Sequence[Streamed],
        folder: Path,
        online: Online,
        *,
        group: str,
        topic: str,
        changelog: Changelog | None,
        open_admin: Callable[[], Admin],
        events: Callable[[Sequence[Record]], Sequence[Sequence[Event | None]]],
        note: Callable[[str], None],
        clock: Clock,
        stay: Callable[[], None],
    ) -> None:
        self._views = views
        self._folder = folder
        self._group = group
        self._topic = topic
        self._changelog = changelog
        self._open_admin = open_admin
        self._events = events
        self._online = online
        self._note = note
        self._clock = clock
        self._stay = stay
        self._admin: Admin | None = None
        self._is: str | None = None  # the topic's origin
        self._is_ensured = False
        self._noted: set[str] = set()

    def open(self, number: int, seconds: float) -> Partition:
        """Its file, locked, or what the changelog makes of it. `seconds`: see State.open."""
        state = State(self._folder, number, [view.digest for view in self._views])
        state.open(seconds)
        try:
            part = Partition(number, self._views, state, self._online)
            if self._changelog is not None:
                self._compare(part, self._changelog)
            part.forget()
            self._tell_changes(state)
        except BaseException:
            state.close()
            raise
        return part

    def positions(self) -> Mapping[int, int] | None:
        """Of the group; None: not known now."""
        try:
            return self._asked().positions(self._group, self._topic)
        except BrokerError as error:
            if error.trouble is not Trouble.FENCED:
                raise
            return None

    def catch_up(self, part: Partition, position: int | None) -> None:
        """Everything before `position` into the tables. None: the group has read nothing yet."""
        first, end = self._asked().span(self._topic)[part.number]
        position = first if position is None else position
        state = part.state
        origin = self._origin()
        if not state.has_begun or state.next > end or is_other(part.origin, origin):
            self._begin(part, position, first)
        elif state.next < first and part.next < position:
            gone, where = min(first, position) - part.next, f"{self._topic}-{part.number} from offset {part.next} on"
            self._tell(f"{gone} records of {where} are not in the features: the topic does not hold them any more")
        part.is_of(origin)
        self._read_tail(part, max(part.next, first), position)
        part.next = max(part.next, position) if state.next <= position else part.next
        part.is_behind = False

    def rest(self) -> None:
        """Nothing has to be read for now."""
        admin, self._admin = self._admin, None
        self._is = None
        if admin is not None:
            admin.close()

    close = rest

    def _asked(self) -> Admin:
        self._admin = self._admin or self._open_admin()
        return self._admin

    def _origin(self) -> str:
        if self._is is None:
            self._is = self._asked().origin(self._topic)
        return self._is

    def _begin(self, part: Partition, position: int, first: int) -> None:
        partitions = len(self._asked().span(self._topic))
        if part.state.has_begun:
            what = f"{self._topic} is another topic than the one its features were made of"
            self._tell(f"{what}, on another broker or made anew: they begin empty")
        if position > first:
            self._tell(
                f"features of {self._topic}-{part.number} are made of records from offset {position} on: {_REPLAY}"
            )
        part.state.begin(max(part.state.epoch + 1, int(self._clock.wall())), position, partitions)
        part.is_logged = False
        part.forget()

    def _compare(self, part: Partition, changelog: Changelog) -> None:
        """What is newer, the file or the changelog?"""
        admin, state = self._asked(), part.state
        if not self._is_ensured:
            spans = admin.span(self._topic)
            admin.ensure_compacted(changelog.topic, len(spans))
            self._is_ensured = True
        marker = changelog.marker(admin, part.number)
        part.is_logged = marker is not None and marker.is_whole and marker.epoch >= state.epoch
        if marker is None or marker.epoch < state.epoch or (not marker.is_whole and marker.epoch == state.epoch):
            if state.has_begun and (marker is None or marker.epoch < state.epoch):
                unlog(state)
        elif not marker.is_whole:
            self._tell(f"the changelog {changelog.topic} was being made when its maker ended: {_REPLAY}")
            state.renew(marker.epoch + 1)
            unlog(state)
        elif marker.epoch > state.epoch or self._is_far(state, marker, admin, part.number):
            self._restore(part, changelog, marker)
        if state.has_begun:
            part.is_ahead = marker is None or marker.next < state.next or bool(part.due.unlogged(1)[0])

    def _is_far(self, state: State, marker: Marker, admin: Admin, number: int) -> bool:
        if marker.next <= state.next:
            return False
        first, _ = admin.span(self._topic)[number]
        return marker.next - state.next > AGGREGATE_TAIL_RECORDS_MAX or first > state.next

    def _restore(self, part: Partition, changelog: Changelog, marker: Marker) -> None:
        partitions = len(self._asked().span(self._topic))
        marker, changes, orphans = changelog.restore(self._asked(), part.number, marker, self._stay)
        watermarks = [marker.views.get(view.digest, -float("inf")) for view in self._views]
        part.state.begin(
            marker.epoch,
            marker.next,
            partitions,
            watermarks=watermarks,
            mark=marker.mark,
            changes=changes,
            orphans=orphans,
        )
        part.is_of(marker.origin)
        part.state.new = [at for at, view in enumerate(self._views) if view.digest not in marker.views]
        _LOG.info("%s-%d: %d entities from %s", self._topic, part.number, len(changes), changelog.topic)

    def _read_tail(self, part: Partition, at: int, position: int) -> None:
        while at < position:
            records = self._asked().read(self._topic, part.number, at, min(_READ, position - at))
            records = [record for record in records if record.offset < position]
            if not records:
                return
            at = records[-1].offset + 1
            events = self._events(records)
            part.take([[event for event in some if event is not None] for some in events], at)
            part.commit_tail()
            if part.is_full:
                part.commit(self._clock.wall(), part.checkpoint(logs=False), logs=self._changelog is None)
            self._stay()

    def _tell_changes(self, state: State) -> None:
        if not state.has_begun:
            return
        for at in state.new:
            self._tell(
                f"{self._views[at].name} is new or defined in another way, and its features are empty: {_REPLAY}"
            )
        partitions = len(self._asked().span(self._topic))
        if partitions != state.partitions:
            self._tell(
                f"{self._topic} has {partitions} partitions and had {state.partitions} when its features were begun: "
                f"entities may be in other partitions now; {_REPLAY}"
            )
            state.renew(state.epoch, partitions)

    def _tell(self, message: str) -> None:
        if message not in self._noted:
            self._noted.add(message)
            self._note(message)
