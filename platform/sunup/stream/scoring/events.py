"""Records -> what stream feature views see of them: key, time, event id and the values to aggregate.

Of a record's JSON only those members are decoded, whatever becomes of its score: an event that no score could be made
of did happen. Everything follows from the record alone, so that one that is read again is the same event.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from hashlib import blake2b
from math import isfinite
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
from msgspec import Raw

from sunup.errors import CallError
from sunup.limits import AGGREGATE_AHEAD_SECONDS_MAX
from sunup.lookup.keys import KEY_ERRORS, NO_KEY, KeyMaker, key_maker
from sunup.lookup.plan import JoinKey, ReadPlan
from sunup.stream.aggregate.event import Event
from sunup.stream.broker import Record
from sunup.stream.scoring.batch import Reading
from sunup.types import Aggregated, Field, Row
from sunup.wire.fields import json_type
from sunup.wire.refusal import MALFORMED

Events: TypeAlias = list[list[Event | None]]
Values: TypeAlias = Callable[[Row], tuple[float | None, ...]]

_BARE_EPOCH: Final = datetime(1970, 1, 1)
_TIME: Final = datetime | float
_ID: Final = str | int | float | bool
_CALENDAR_END: Final = 253_402_300_800.0  # s; the year 10000
_ABSENT: Final = (b"", b"null")
_ID_DIGEST: Final = blake2b(digest_size=8)


class _Refused(Exception):
    """Why a record is no event of a view, without anything of what is in it."""


class EventReader:
    """Reads the events of the aggregated views of a plan, which it keeps to the order of. `request`: the function's
    fields, whose types those of keys are; `reading`: how it reads records.

    `refused[v]` and `reasons[v]`: of the records last read, how many were no events of view v though they have a value,
    and why the first was none.
    """

    def __init__(self, plan: ReadPlan, request: Sequence[Field], reading: Reading) -> None:
        views = [
            _View(at, entity.join_keys, view.aggregated)
            for at, (entity, view) in enumerate(
                (entity, view) for entity in plan.entities for view in entity.views if view.aggregated is not None
            )
            if view.aggregated is not None
        ]
        fields = {field.name: field for field in request}
        shared: dict[tuple[str, str], list[_View]] = {}
        for view in views:
            shared.setdefault((view.how.timestamp, view.how.event_id), []).append(view)
        self._groups = [_Group(group, fields) for group in shared.values()]
        self._alone = {view.at: _Group([view], fields) for group in shared.values() for view in group if group[1:]}
        self._count = len(views)
        self._data = reading.data
        self.refused = [0] * self._count
        self.reasons = [""] * self._count

    def __repr__(self) -> str:
        return f"EventReader({self._count} views)"

    def read(self, records: Sequence[Record]) -> Events:
        """Per view, in the plan's order, what it sees of each record; None: nothing. About 2 us a record and view."""
        self.refused, self.reasons = [0] * self._count, [""] * self._count
        events: Events = [[None] * len(records) for _ in range(self._count)]
        only = self._groups[0] if len(self._groups) == len(events) == 1 else None
        for at, record in enumerate(records):
            try:
                data = self._data(record)
                if data is None:
                    continue
                if only is not None:
                    events[0][at] = only.events(record, data)[0]
                    continue
            except CallError as error:
                self._refuse(range(self._count), error.message)
                continue
            except _Refused as error:
                self._refuse((0,), str(error))
                continue
            for group in self._groups:
                for view, event in self._seen(group, record, data):
                    events[view][at] = event
        return events

    def _seen(self, group: "_Group", record: Record, data: bytes) -> Iterable[tuple[int, Event | None]]:
        """What is missing for one view may not be for another."""
        try:
            return zip(group.places, group.events(record, data), strict=True)
        except _Refused as error:
            if len(group.places) == 1:
                self._refuse(group.places, str(error))
                return ()
        return [seen for place in group.places for seen in self._seen(self._alone[place], record, data)]

    def _refuse(self, views: Sequence[int], reason: str) -> None:
        for view in views:
            self.refused[view] += 1
            self.reasons[view] = self.reasons[view] or reason


class _View(NamedTuple):
    """One view, the `at`th of the plan's."""

    at: int
    keys: tuple[JoinKey, ...]
    how: Aggregated


class _Group:
    """Views whose events have their time and id in the same members: each is decoded once."""

    def __init__(self, views: Sequence[_View], fields: dict[str, Field]) -> None:
        self.places = [view.at for view in views]
        how = views[0].how
        members = _Members()
        self._time = members.place(how.timestamp, _TIME)
        self._id = members.place(how.event_id, _ID) if how.event_id else -1
        self._parts = [(_maker(view, members, fields), _values(view.how, members, fields)) for view in views]
        self._only = self._parts[0] if len(views) == 1 else None
        self._row = members.decoder()
        self._where = ", ".join(" and ".join(key.field for key in view.keys) for view in views)

    def events(self, record: Record, data: bytes) -> Sequence[Event]:
        """Of each view. Raises _Refused where there is none of one of them."""
        try:
            row = self._row(data)
        except MALFORMED as error:  # names the member and the types, never what was in it
            raise _Refused(str(error)) from None
        time = row[self._time]
        if type(time) is not float:
            time = _seconds(time)
        if not 0.0 <= time <= record.timestamp + AGGREGATE_AHEAD_SECONDS_MAX:
            _check(time, record)
        number = None if self._id < 0 else _hashed(row[self._id])
        try:
            if self._only is not None:
                maker, values = self._only
                return (Event(record.offset, maker(row), time, number, values(row)),)
            offset = record.offset
            return [Event(offset, maker(row), time, number, values(row)) for maker, values in self._parts]
        except KEY_ERRORS:
            raise _Refused(f"{self._where} {NO_KEY}") from None


class _Members:
    """The members to decode, each by name and type: where one is wanted as two types, it is decoded twice."""

    def __init__(self) -> None:
        self._structs: list[dict[str, tuple[int, Any, tuple[Any, ...]]]] = []
        self._places: dict[tuple[str, Any], int] = {}

    def place(self, name: str, kind: Any, *default: Any) -> int:
        """Where in a decoded row a member will be. `default`: where it may be absent."""
        if (name, kind) in self._places:
            return self._places[name, kind]
        free = next((each for each in self._structs if name not in each), None)
        if free is None:
            self._structs.append(free := {})
        place = self._places[name, kind] = len(self._places)
        free[name] = (place, kind, default)
        return place

    def decoder(self) -> Callable[[bytes], Row]:
        """From a record's JSON to its row. Raises MALFORMED."""
        made = [_decoder(each) for each in self._structs]
        order = [place for each in self._structs for place, _, _ in each.values()]
        astuple = msgspec.structs.astuple
        if len(made) == 1:
            (only,) = made
            return lambda data: astuple(only(data))
        arrange = itemgetter(*[order.index(place) for place in range(len(order))])

        def decode(data: bytes) -> Row:
            row: Row = arrange([value for one in made for value in astuple(one(data))])
            return row

        return decode


def _decoder(members: dict[str, tuple[int, Any, tuple[Any, ...]]]) -> Callable[[bytes], msgspec.Struct]:
    fields: list[Any] = [(f"f{at}", kind, *default) for at, (_, kind, default) in enumerate(members.values())]
    rename = {f"f{at}": name for at, name in enumerate(members)}
    # gc=False: it holds only scalars, so it can be in no reference cycle.
    struct = msgspec.defstruct("Event", fields, rename=rename, gc=False, kw_only=True)
    return msgspec.json.Decoder(struct).decode


def _maker(view: _View, members: _Members, fields: dict[str, Field]) -> KeyMaker:
    names = [key.field for key in view.keys if key.field]
    places = {name: members.place(name, json_type(fields[name], nullable=False)) for name in names}
    return key_maker(view.keys, places)


def _values(how: Aggregated, members: _Members, fields: dict[str, Field]) -> Values:
    """What is aggregated, as numbers. Of a column that is only counted any value will do, of a flag it is 0 or 1."""
    places, odd = [], False
    for column in how.columns:
        counted = all(each.function == "count" for each in how.aggregations if each.column == column)
        flag = column in fields and fields[column].dtype == "bool"
        kind: Any = (Raw if counted else bool | None) if counted or flag else float | None
        places.append(members.place(column, kind, Raw() if counted else None))
        odd = odd or counted or flag
    if odd:
        return lambda row: tuple([_number(row[place]) for place in places])
    if len(places) == 1:
        (only,) = places
        return lambda row: (row[only],)
    return itemgetter(*places)


def _number(value: Any) -> float | None:
    if isinstance(value, Raw):
        return None if bytes(value) in _ABSENT else 1.0
    return None if value is None else float(value)


def _seconds(time: datetime) -> float:
    """Since the epoch. A time without a zone is UTC's, which `datetime.timestamp` would take for local."""
    return (time - _BARE_EPOCH).total_seconds() if time.tzinfo is None else time.timestamp()


def _check(time: float, record: Record) -> None:
    """A record without a time of its own, which Kafka permits, is one that no time is ahead of."""
    if not isfinite(time) or time >= _CALENDAR_END:
        raise _Refused("its time is not in any calendar")
    if time < 0.0:
        raise _Refused("its time is before 1970")
    if record.timestamp > 0.0:
        raise _Refused(f"its time is more than {AGGREGATE_AHEAD_SECONDS_MAX:g} s ahead of when the record was written")


def _hashed(id: str | float | bool) -> int:
    """64 bits. Equal numbers are the same id, and no text is that of a number, which is no UTF-8."""
    if type(id) is str:
        data = id.encode()
    else:
        data = b"\xff%r" % (int(id) if isinstance(id, float) and id.is_integer() else id)
    digest = _ID_DIGEST.copy()  # two and a half times as fast as another one
    digest.update(data)
    return int.from_bytes(digest.digest(), "little")
