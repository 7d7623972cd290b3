"""Answers of rows that were seen before: [cache] of function.toml. Only for functions that ask for it.

A row is known by what the model sees of it, request values and feature values, so a feature that changed is another
row. What is kept is the model's own outputs (of a handler.py, its hooks' too): every caller picks what it wants of
them. The key is the row's values in MessagePack: exact, and one kind of value never looks like another. So -0.0 is not
0.0; what is missing is always the same NaN.
"""

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import blake2b
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from sunup.clock import Clock
from sunup.errors import CallError
from sunup.limits import ANSWER_KEY_BYTES_MAX, ANSWERS_BYTES_MAX, ANSWERS_MAX, ANSWERS_PER_CALL_MAX
from sunup.observer import Tell
from sunup.recent import Recent
from sunup.types import CacheSpec, Call, Field, Row, Tensor, Timings

Outputs: TypeAlias = list[NDArray[Any]]
Decode: TypeAlias = Callable[[Call, Timings], Awaitable[Call]]
RunRows: TypeAlias = Callable[[Call, Sequence[Row], Timings], Awaitable[Outputs]]

_IDENTICAL: Final = "identical"
_SIMILAR: Final = "similar"
_DIGEST: Final = b"\xc1"  # begins a digest: a byte MessagePack never uses
_ENTRY_BYTES: Final = 250  # bytes of one entry beside its key and arrays
_WHOLE_MAX: Final = 2.0**53  # beyond it a float64 has no fraction to round away


class Seen(NamedTuple):
    """What is known of some rows. `rows`: those to run, each once; `keys`: theirs.

    `known[i]`: the outputs of row i ([1, ...] each) if they are remembered; `uses[i]`: else which of `rows` is it.
    """

    rows: list[Row]
    keys: list[list[bytes]]
    known: list[Outputs | None]
    uses: list[int]


class Recall:
    """Remembers outputs by row, bounded in rows and bytes. Belongs to one event loop.

    `fields`: those of a row; `inputs`: the model's, whose columns are what it sees of a row; None: all of it.
    `tell` hears, per cache in `caches`, how many rows were looked for and found.
    """

    def __init__(
        self,
        spec: CacheSpec,
        fields: Sequence[Field],
        inputs: Sequence[Tensor] | None,
        *,
        clock: Clock,
        tell: Tell,
        rows_max: int = ANSWERS_MAX,
        bytes_max: int = ANSWERS_BYTES_MAX,
    ) -> None:
        names = [field.name for field in fields]
        taken = names if inputs is None else list(dict.fromkeys(name for one in inputs for name in one.columns))
        at = [names.index(name) for name in taken]  # a name that is there twice is the caller's, as for the model
        self._pick = _picker(at, len(names))
        self._steps = [(taken.index(name), step) for name, step in spec.round.items()]
        self._kinds = [(name, ttl) for name, ttl in ((_IDENTICAL, spec.identical_s), (_SIMILAR, spec.similar_s)) if ttl]
        self._encode = msgspec.msgpack.Encoder(enc_hook=_plain).encode
        self._clock = clock
        self._tell = tell
        self._kept: Recent[bytes, tuple[float, Outputs]] = Recent(entries_max=rows_max, bytes_max=bytes_max)

    def __repr__(self) -> str:
        return f"Recall({', '.join(name for name, _ in self._kinds)}, {self._kept!r})"

    def look(self, rows: Sequence[Row], timings: Timings) -> Seen:
        """What is known of `rows`, told in `timings.recalled`. A row that is there twice runs once.

        About 5 us for one row of thirty columns. A call of more than ANSWERS_PER_CALL_MAX rows runs as it is.
        """
        if len(rows) > ANSWERS_PER_CALL_MAX:
            return Seen(list(rows), [], [None] * len(rows), list(range(len(rows))))
        now = self._clock.now()
        seen = Seen([], [], [], [])
        places: dict[bytes, int] = {}
        hits = dict.fromkeys((name for name, _ in self._kinds), 0)
        for row in rows:
            keys = self._keys(row)
            known = place = None
            for (name, _), key in zip(self._kinds, keys, strict=True):
                kept = self._kept.get(key)
                if kept is not None and now < kept[0]:
                    known = kept[1]
                    hits[name] += 1
                    break
            else:
                place = places.get(keys[-1])
                if place is None:
                    place = places[keys[-1]] = len(seen.rows)
                    seen.rows.append(row)
                    seen.keys.append(keys)
                else:
                    hits[self._same(keys, seen.keys[place])] += 1
            seen.known.append(known)
            seen.uses.append(-1 if place is None else place)
        self._tell_of(len(rows), hits, timings)
        return seen

    def finish(self, seen: Seen, outputs: Outputs) -> Outputs:
        """The outputs of all rows that were looked for. `outputs`: of a run of `seen.rows`, which are kept."""
        made = [
            self._keep(keys, [output[at : at + 1].copy() for output in outputs]) for at, keys in enumerate(seen.keys)
        ]
        if len(seen.rows) == len(seen.known):
            return outputs  # no row was known, and none was there twice
        return _stacked([known or made[use] for known, use in zip(seen.known, seen.uses, strict=True)])

    def run(self, rows: Sequence[Row], timings: Timings, run: Callable[[Sequence[Row], Timings], Outputs]) -> Outputs:
        """The outputs of `rows`, of which `run` is asked only for those that are not known."""
        seen = self.look(rows, timings)
        return self.finish(seen, run(seen.rows, timings) if seen.rows else [])

    async def pictures(self, call: Call, timings: Timings, decode: Decode, run: RunRows) -> tuple[Call, Outputs]:
        """The outputs of a call with pictures, which are looked for before they are decoded: that may cost more than
        the model. Those that cannot be decoded are told in the call that comes back; outputs are of its other rows.

        Raises what `decode` and `run` do for all of them.
        """
        seen = self.look(call.rows, timings)
        if not seen.rows:
            return call, self.finish(seen, [])
        asked = msgspec.structs.replace(call, rows=seen.rows, count=len(seen.rows), failed={}, single=False)
        decoded = await decode(asked, timings)
        outputs = await run(call, decoded.rows, timings)
        if decoded.failed:
            call, seen = _without(decoded.failed, call, seen)
        return call, self.finish(seen, outputs) if seen.known else []

    def _keys(self, row: Row) -> list[bytes]:
        """One key per cache, the identical one first."""
        picked = self._pick(row)
        keys = []
        for name, _ in self._kinds:
            if name == _SIMILAR:
                picked = list(picked)
                for at, step in self._steps:
                    picked[at] = _rounded(picked[at], step)
            key = self._encode(picked)
            if len(key) > ANSWER_KEY_BYTES_MAX:
                key = _DIGEST + blake2b(key, digest_size=32).digest()
            keys.append(name[:1].encode() + key)
        return keys

    def _same(self, keys: list[bytes], others: list[bytes]) -> str:
        """Which cache calls two rows of one call the same."""
        return next(name for (name, _), one, other in zip(self._kinds, keys, others, strict=True) if one == other)

    def _keep(self, keys: list[bytes], outputs: Outputs) -> Outputs:
        now = self._clock.now()
        size = _ENTRY_BYTES + sum(map(_bytes_of, outputs))
        for (_, ttl), key in zip(self._kinds, keys, strict=True):
            before = self._kept.get(key)
            if before is None or now >= before[0]:  # what was seen first stays
                self._kept.put(key, (now + ttl, outputs), size + len(key))
        return outputs

    def _tell_of(self, rows: int, hits: dict[str, int], timings: Timings) -> None:
        for name, found in hits.items():
            self._tell(name, rows, found)
            rows -= found
        if any(hits.values()):
            timings.recalled = ", ".join(f"{name}={found}" for name, found in hits.items() if found)


def _without(failed: Mapping[int, CallError], call: Call, seen: Seen) -> tuple[Call, Seen]:
    """The call and what was seen of it, less the rows that failed: index in `seen.rows` -> error."""
    left = [place for place in range(len(seen.rows)) if place not in failed]
    places = {place: at for at, place in enumerate(left)}
    kept = [index for index, use in enumerate(seen.uses) if use not in failed]
    positions = [index for index in range(call.count) if index not in call.failed]
    lost = {positions[index]: failed[use] for index, use in enumerate(seen.uses) if use in failed}
    rest = Seen(
        rows=[seen.rows[place] for place in left],
        keys=[seen.keys[place] for place in left],
        known=[seen.known[index] for index in kept],
        uses=[places.get(seen.uses[index], -1) for index in kept],
    )
    rows = [call.rows[index] for index in kept]
    return msgspec.structs.replace(call, rows=rows, failed={**call.failed, **lost}), rest


def _picker(at: list[int], width: int) -> Callable[[Row], Sequence[Any]]:
    """What is taken of a row, from those places of it."""
    if at == list(range(width)):
        return lambda row: row
    return itemgetter(*at) if len(at) > 1 else lambda row: (row[at[0]],)


def _rounded(value: Any, step: float) -> Any:
    """Which multiple of `step` a number is nearest to; what has none (NaN, infinity, a huge one) as it is."""
    steps = value / step
    return round(steps) if -_WHOLE_MAX < steps < _WHOLE_MAX else value


def _stacked(rows: Sequence[Outputs]) -> Outputs:
    return list(rows[0]) if len(rows) == 1 else [np.concatenate(same) for same in zip(*rows, strict=True)]


def _bytes_of(output: NDArray[Any]) -> int:
    held = sys.getsizeof(output)
    return held + sum(map(sys.getsizeof, output.flat)) if output.dtype.hasobject else held


def _plain(value: Any) -> Any:
    """What MessagePack has no form for: values out of arrays."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return [value.dtype.str, value.shape, value.tolist() if value.dtype.hasobject else value.tobytes()]
    raise TypeError(f"a row holds {type(value).__name__}, which has no key")
