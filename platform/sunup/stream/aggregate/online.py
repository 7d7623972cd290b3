"""Values of entities into the online store, and whether the store still has them."""

import struct
from collections.abc import Sequence
from hashlib import blake2b
from math import isfinite
from typing import Any, Final, NamedTuple

import msgspec

from sunup.clock import Clock
from sunup.limits import AGGREGATE_LOOK_SECONDS, AGGREGATE_STORE_RETRY_SECONDS
from sunup.lookup.plan import View
from sunup.lookup.store import StoreUnavailable
from sunup.lookup.writing.writer import FeatureWriter, Write
from sunup.stream.aggregate.kept.state import DIGEST_BYTES, NAME_BYTES
from sunup.stream.aggregate.table import Values
from sunup.types import Aggregated

_VERSION: Final = struct.Struct(">IQI")  # epoch, offset, hop: compared as bytes
_WHOLE: Final = ("INT32", "INT64")


class Streamed(NamedTuple):
    """A view that is aggregated. `name`: in the plan; `order[i]`: the place among `spec.aggregations` of the plan's
    feature i, and `kinds[i]` its Feast type."""

    name: str
    spec: Aggregated
    order: tuple[int, ...]
    kinds: tuple[str, ...]

    @property
    def digest(self) -> bytes:
        """DIGEST_BYTES: NAME_BYTES of its name, then of how it is made. Tiles of another one are of no use to it."""
        name = blake2b(self.name.encode(), digest_size=NAME_BYTES).digest()
        return name + blake2b(msgspec.json.encode(self.spec), digest_size=DIGEST_BYTES - NAME_BYTES).digest()

    @property
    def span_s(self) -> float:
        """Seconds of event time after which nothing is left of an event."""
        return self.spec.window_s_max + self.spec.hop_s + self.spec.late_s


def streamed(view: View) -> Streamed:
    """Of a plan's view that is aggregated."""
    spec = view.aggregated
    assert spec is not None
    places = {each.feature: at for at, each in enumerate(spec.aggregations)}
    return Streamed(
        view.name,
        spec,
        tuple(places[feature.name] for feature in view.features),
        tuple(feature.value_type for feature in view.features),
    )


class Online:
    """The writer and how it fares. A store that is down is left alone for AGGREGATE_STORE_RETRY_SECONDS."""

    def __init__(self, writer: FeatureWriter, views: Sequence[Streamed], clock: Clock) -> None:
        self.reason = ""  # why it cannot be written now
        self.written = 0  # values of entities, so far
        self._writer = writer
        self._views = views
        self._clock = clock
        self._retry_at = -float("inf")
        self._look_at = -float("inf")

    @property
    def is_down(self) -> bool:
        return self._clock.now() < self._retry_at

    def rows(
        self, view: int, keys: Sequence[bytes], values: Sequence[Values], *, epoch: int, offset: int, wall: float
    ) -> list[Write]:
        """What is to be written of entities of view `view`. `offset`: of the first record that is not in them."""
        _, spec, order, kinds = self._views[view]
        version = _VERSION.pack(epoch, offset, max(0, int(wall // spec.hop_s)))
        counts = [spec.aggregations[at].function == "count" for at in order]  # whole already
        whole = [kind in _WHOLE and not is_count for kind, is_count in zip(kinds, counts, strict=True)]
        plain = not any(whole) and order == tuple(range(len(order)))
        return [
            Write(key, found if plain else _typed(found, order, whole), at, version)
            for key, (found, at, _) in zip(keys, values, strict=True)
        ]

    def write(self, view: int, rows: Sequence[Write]) -> bool:
        """Whether they were written."""
        if not rows:
            return True
        if self.is_down:
            return False
        try:
            self._writer.write(self._views[view].name, rows)
        except StoreUnavailable as error:
            self._fails(error)
            return False
        self.reason = ""
        self.written += len(rows)
        return True

    def has_lost(self) -> bool:
        """Whether the store has lost what was written, looked at now and then; `mark` is then another one."""
        if self.is_down or self._clock.now() < self._look_at:
            return False
        self._look_at = self._clock.now() + AGGREGATE_LOOK_SECONDS
        try:
            lost = self._writer.is_lost()
            if lost or not self._writer.mark:
                self._writer.begin()
        except StoreUnavailable as error:
            self._fails(error)
            return False
        return lost

    @property
    def mark(self) -> bytes:
        """See FeatureWriter.mark."""
        return self._writer.mark

    def close(self) -> None:
        self._writer.close()

    def _fails(self, error: StoreUnavailable) -> None:
        self.reason = error.message
        self._retry_at = self._clock.now() + AGGREGATE_STORE_RETRY_SECONDS


def _typed(found: Sequence[Any], order: Sequence[int], whole: Sequence[bool]) -> tuple[Any, ...]:
    return tuple(
        [
            round(found[at]) if is_whole and found[at] is not None and isfinite(found[at]) else found[at]
            for at, is_whole in zip(order, whole, strict=True)
        ]
    )
