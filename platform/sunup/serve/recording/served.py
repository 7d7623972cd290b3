"""The worker's end of the served-feature log: rows are encoded as they are answered, and written by a thread.

About 4 us for a call of one row and 30 columns, amortised; a call never waits for a disk. What is pending when a
worker is killed is lost, the last SERVED_FLUSH_SECONDS at most; what there is no room for is dropped and counted.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from random import random
from typing import Any, Final

import msgspec
import numpy as np

from sunup.batch.assemble import Ready
from sunup.clock import Clock, SystemClock
from sunup.limits import (
    SERVED_FLUSH_BYTES,
    SERVED_FLUSH_SECONDS,
    SERVED_FRAME_BYTES_MAX,
    SERVED_PENDING_BYTES_MAX,
    SERVED_RETRY_SECONDS,
)
from sunup.served.spool import SpoolWriter
from sunup.types import Call, Column

_LOG: Final = logging.getLogger(__name__)
_ARRAY: Final = b"\xdd"  # MessagePack's array of up to 2**32 elements; the count follows, big endian
_HEAD: Final = len(_ARRAY) + 4


class ServedLog:
    """See pipeline.Log. `sample`: the share of calls that are kept; `dropped(rows)` counts. Belongs to one event loop;
    the spool to its thread."""

    def __init__(
        self, spool: SpoolWriter, *, sample: float, dropped: Callable[[int], None], clock: Clock | None = None
    ) -> None:
        self._spool = spool
        self._sample = sample
        self._count_dropped = dropped
        self._clock = clock or SystemClock()
        self._encode = msgspec.msgpack.Encoder(enc_hook=_plain).encode_into
        self._frame = bytearray(_HEAD)
        self._calls = 0  # in the frame
        self._rows = 0
        self._pending = 0  # bytes that the thread has and has not written
        self._writes: deque[tuple[Future[bool], int, int]] = deque()  # in hand: bytes and rows of each
        self._timer: asyncio.TimerHandle | None = None
        self._sealer: asyncio.TimerHandle | None = None
        self._thread = ThreadPoolExecutor(1, "spool")  # the thread itself starts with the first call
        self._log_at = 0.0

    def __repr__(self) -> str:
        return f"ServedLog({self._spool!r}, pending={self._pending})"

    def note(self, call: Call, ready: Ready, columns: Mapping[str, Column]) -> None:
        """See pipeline.Log."""
        if self._sample < 1.0 and random() >= self._sample:
            return
        rows, frame = len(ready.rows), self._frame
        if self._pending + len(frame) > SERVED_PENDING_BYTES_MAX:
            self._drop(rows, "the disk does not keep up")
            return
        before = len(frame)
        try:
            self._encode(self._noted(call, ready, columns), frame, -1)
        except Exception as error:  # whatever a value is, its call is answered
            del frame[before:]
            self._drop(rows, f"they cannot be encoded: {error!r}")
            return
        self._calls += 1
        self._rows += rows
        if len(frame) >= SERVED_FLUSH_BYTES:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SERVED_FLUSH_SECONDS, self._flush)

    def close(self) -> None:
        """Write what is pending: the worker ends. Waits for the disk."""
        for timer in (self._timer, self._sealer):
            if timer is not None:
                timer.cancel()
        self._flush()
        self._thread.submit(self._spool.close)
        self._thread.shutdown()
        self._settle()

    def _noted(self, call: Call, ready: Ready, columns: Mapping[str, Column]) -> tuple[Any, ...]:
        """As served.schema.Noted, in its order."""
        outputs = [column.tolist() if type(column) is np.ndarray else column for column in columns.values()]
        at = int(self._clock.wall() * 1_000_000)
        if call.origins:
            return _whole_records(call, ready, at, outputs)
        places = ready.positions
        return (
            *(call.id, at, ready.rows, outputs, None if type(places) is range else places, None),
            *(ready.ages, ready.defaulted, ready.stale),
        )

    def _flush(self) -> None:
        """Give the frame to the thread."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._calls:
            return
        frame, rows = self._frame, self._rows
        frame[:_HEAD] = _ARRAY + self._calls.to_bytes(4, "big")
        self._frame, self._calls, self._rows = bytearray(_HEAD), 0, 0
        if len(frame) > SERVED_FRAME_BYTES_MAX:
            self._drop(rows, "one call has more of them than are written at once")
            return
        loop = asyncio.get_running_loop()
        self._pending += len(frame)
        writing = self._thread.submit(self._spool.write, frame)
        self._writes.append((writing, len(frame), rows))
        writing.add_done_callback(lambda _: loop.call_soon_threadsafe(self._settle))
        if self._sealer is None:
            self._sealer = loop.call_later(self._spool.seconds_max, self._seal)

    def _settle(self) -> None:
        """Look at what the thread has done."""
        while self._writes and self._writes[0][0].done():
            written, size, rows = self._writes.popleft()
            self._pending -= size
            if not written.result():
                self._drop(rows, "the spool is full, or cannot be written")

    def _seal(self) -> None:
        """A segment has been written to for long enough, or will have been soon."""
        self._sealer = None
        self._thread.submit(self._spool.tick)
        if self._spool.is_open:
            self._sealer = asyncio.get_running_loop().call_later(self._spool.seconds_max, self._seal)

    def _drop(self, rows: int, reason: str) -> None:
        self._count_dropped(rows)
        now = self._clock.now()
        if now >= self._log_at:  # the metric counts them
            self._log_at = now + SERVED_RETRY_SECONDS
            _LOG.warning("rows of the served-feature log are dropped: %s", reason)


def _whole_records(call: Call, ready: Ready, at: int, outputs: list[Any]) -> tuple[Any, ...]:
    """Rows of several requests, or candidates of records: a record of which one failed has no answer, and no row."""
    origins, failed = call.origins, ready.failed
    unanswered = {origins[row] for row in failed}
    kept = [row for row, place in enumerate(ready.positions) if origins[place] not in unanswered]

    def pick(values: Sequence[Any] | None) -> Sequence[Any] | None:
        return values if values is None or not failed else [values[row] for row in kept]

    whose = origins if not failed else [origins[ready.positions[row]] for row in kept]
    made = pick(ready.rows), [pick(column) for column in outputs], None, whose
    return (call.id, at, *made, pick(ready.ages), pick(ready.defaulted), pick(ready.stale))


def _plain(value: Any) -> Any:
    """What MessagePack has no form for: values and arrays of numpy."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no value of a column")
