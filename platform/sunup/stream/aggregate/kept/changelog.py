"""The tiles of a partition as records of a compacted topic, so that another machine can go on with them.

One record per entity: its key is the digest of the view's definition and the entity's key, its value what is kept of
it; without a value nothing is left of it. And one record per partition, the *marker*, which says up to which offset of
the input the others were made. A checkpoint writes what changed and the marker in the transaction of the batch.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import isnan, nan
from typing import Final, NamedTuple

import msgspec

from sunup.settings import EMBEDDED, STREAM_BROKER
from sunup.stream.admin import Admin
from sunup.stream.aggregate.kept.state import DIGEST_BYTES, GONE, Change
from sunup.stream.broker import BrokerError, Output, Record, Trouble

_MARKER: Final = b"sunup-marker"  # no key of an entity: those have a digest and Feast's key behind it, which is longer
_HEAD: Final = struct.Struct(">IQdd")  # epoch, next offset of the checkpoint, due (NaN: never), ends
_LAST: Final = 100  # records looked at for the marker at first; it is written last
_READ: Final = 20_000  # records read at a time


class Marker(NamedTuple):
    """`next`: offset of the first record of the input that is in no entity's record. `is_whole`: all entities of the
    epoch are there; else a state that was made without the changelog is on its way into it. `views`: digest ->
    watermark; `mark`: of the store that has the values, see FeatureWriter.mark; `origin`: see origin.py."""

    epoch: int
    next: int
    is_whole: bool
    views: dict[bytes, float]
    mark: bytes
    origin: str = ""


class Restored(NamedTuple):
    """What a changelog says of a partition as of `marker`. `orphans`: what is nothing's any more, see State.begin."""

    marker: Marker
    changes: Sequence[Change]
    orphans: Sequence[tuple[int, bytes]]


_marker: Final = msgspec.msgpack.Decoder(Marker)


def changelog_of(settings: Mapping[str, str], group: str) -> str | None:
    """The topic of a group's tiles; None on the embedded log, which compacts nothing. `settings`: of its revision."""
    return None if settings[STREAM_BROKER] == EMBEDDED else f"{group}-tiles"


class Changelog:
    """Of one function. `views`: the digest of each view's definition."""

    def __init__(self, topic: str, views: Sequence[bytes]) -> None:
        self.topic = topic
        self._views = views

    def outputs(self, partition: int, marker: Marker, changes: Iterable[Change]) -> Iterator[Output]:
        """A checkpoint: what changed, then the marker."""
        pack, views = _HEAD.pack, [*self._views, b""]  # of GONE: the key is the record's
        epoch, offset = marker.epoch, marker.next
        for view, key, blob, due, ends in changes:
            value = None if blob is None else pack(epoch, offset, nan if due is None else due, ends) + blob
            yield Output(self.topic, views[view] + key, value, [], partition)
        yield Output(self.topic, _MARKER, msgspec.msgpack.encode(marker), [], partition)

    def marker(self, admin: Admin, partition: int) -> Marker | None:
        """The newest; None where there is none."""
        first, end = admin.span(self.topic)[partition]
        back, until = _LAST, end
        while until > first:
            start = max(first, until - back)
            found = [each for each in self._scan(admin, partition, start, until) if each.key == _MARKER]
            if found and found[-1].value is not None:
                return _decoded(found[-1])
            until, back = start, 10 * back
        return None

    def restore(self, admin: Admin, partition: int, marker: Marker, stay: Callable[[], None]) -> Restored:
        """Everything that belongs to the newest marker: `marker`, unless a transaction has come to its end since then.
        What was written with it is due: nobody knows whether the store has it. `stay` is called now and then."""
        first, end = admin.span(self.topic)[partition]
        last: dict[bytes, bytes | None] = {}
        newest: Record | None = None
        for record in self._scan(admin, partition, first, end, stay):
            if record.key is not None:
                last[record.key] = record.value
                newest = record if record.key == _MARKER else newest
        if last.pop(_MARKER, None) is not None and newest is not None:
            marker = _decoded(newest)
        index = {digest: at for at, digest in enumerate(self._views)}
        changes: list[Change] = []
        orphans: list[tuple[int, bytes]] = []
        for key, value in last.items():
            view = index.get(key[:DIGEST_BYTES])
            if value is None:
                continue
            epoch, offset, due, ends = _HEAD.unpack_from(value)
            if view is None:
                orphans.append((GONE, key))
            elif epoch != marker.epoch:
                orphans.append((view, key[DIGEST_BYTES:]))
            else:
                at = 0.0 if offset >= marker.next else None if isnan(due) else due
                changes.append(Change(view, key[DIGEST_BYTES:], value[_HEAD.size :], at, ends))
        return Restored(marker, changes, orphans)

    def _scan(
        self, admin: Admin, partition: int, start: int, end: int, stay: Callable[[], None] = lambda: None
    ) -> Iterator[Record]:
        at = start
        while at < end and (records := admin.read(self.topic, partition, at, _READ)):
            yield from (record for record in records if record.offset < end)
            at = records[-1].offset + 1
            stay()


def _decoded(record: Record) -> Marker:
    try:
        return _marker.decode(record.value or b"")
    except msgspec.DecodeError as error:
        what = f"{record.topic}-{record.partition} holds a marker at {record.offset} that cannot be read: {error}"
        do = "delete the topic: it is made again, and `platform stream replay --features` fills it"
        raise BrokerError(Trouble.FAILED, f"{what}; {do}") from error
