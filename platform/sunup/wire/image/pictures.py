"""Calls with pictures -> the same calls with tensors, on threads: decoding takes milliseconds and must not hold up the
event loop. Pillow lets go of the interpreter lock meanwhile."""

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any, Final

import msgspec

from sunup.clock import Clock, SystemClock
from sunup.errors import CallError, DeadlineExceeded, Overloaded, TooLarge
from sunup.limits import IMAGE_THREADS_MAX, IMAGES_BYTES_MAX, IMAGES_MAX
from sunup.types import Call, Field, ImageSpec, Row, Timings
from sunup.wire.fields import Picture
from sunup.wire.image.pixels import pixels

Given = bytes | Picture
_COLOURS: Final = 3


class Pictures:
    """Decodes the pictures of one function's calls. Belongs to one event loop.

    `request`: the function's fields, one of which is `spec.field`; `bytes_max`: of one picture.
    """

    def __init__(
        self, spec: ImageSpec, request: Sequence[Field], *, bytes_max: int, clock: Clock | None = None
    ) -> None:
        self._spec = spec
        self._place = [field.name for field in request].index(spec.field)
        self._bytes_max = bytes_max
        self._clock = clock or SystemClock()
        height, width = spec.size
        self._images_max = max(1, min(IMAGES_MAX, IMAGES_BYTES_MAX // (height * width * _COLOURS)))
        self._waiting = 0
        threads = min(IMAGE_THREADS_MAX, len(os.sched_getaffinity(0)))
        self._threads = ThreadPoolExecutor(threads, "pictures")  # the threads start with the first pictures

    def __repr__(self) -> str:
        return f"Pictures({self._spec.field} {list(self._spec.size)} {self._spec.resize}, waiting={self._waiting})"

    async def decoded(self, call: Call, timings: Timings) -> Call:
        """The call with tensors in place of pictures; a picture that cannot be decoded fails its record alone.

        `timings.decode` gets the seconds. Raises TooLarge for more pictures than one call may have, Overloaded when too
        many wait already.
        """
        count = len(call.rows)
        if count > self._images_max:
            raise TooLarge(f"{count} images in one call; at most {self._images_max} are taken. Send several calls.")
        if self._waiting + count > self._images_max:
            raise Overloaded(f"{self._waiting} images are waiting to be decoded already")
        started = perf_counter()
        self._waiting += count
        try:
            found = await self._each(lambda row: self._row(row, call.deadline), call.rows)
        finally:
            self._waiting -= count
        timings.decode = perf_counter() - started
        return _with(call, found)

    def close(self) -> None:
        """End the threads when what they do is done; what waits is given up."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _each(self, decode: Callable[[Row], Row | CallError], rows: Sequence[Row]) -> list[Row | CallError]:
        loop = asyncio.get_running_loop()
        if len(rows) == 1:
            return [await loop.run_in_executor(self._threads, decode, rows[0])]
        return list(await asyncio.gather(*(loop.run_in_executor(self._threads, decode, row) for row in rows)))

    def _row(self, row: Row, deadline: float) -> Row | CallError:
        """On a thread: the row with its picture decoded, or why there is none."""
        try:
            if self._clock.now() >= deadline:
                raise DeadlineExceeded("the call's time was up before the image was decoded")
            return (*row[: self._place], self._pixels(row[self._place]), *row[self._place + 1 :])
        except CallError as error:
            error.field = error.field or self._spec.field
            return error

    def _pixels(self, given: Given) -> Any:
        data, kind = (given.b64, given.content_type) if isinstance(given, Picture) else (given, "")
        if len(data) > self._bytes_max:
            raise TooLarge(f"the image has {len(data)} bytes; at most {self._bytes_max} are taken")
        return pixels(data, self._spec, kind=kind)


def _with(call: Call, found: Sequence[Row | CallError]) -> Call:
    if not any(isinstance(row, CallError) for row in found):
        return msgspec.structs.replace(call, rows=found)
    places = [place for place in range(call.count) if place not in call.failed]
    failed = {place: row for place, row in zip(places, found, strict=True) if isinstance(row, CallError)}
    rows = [row for row in found if not isinstance(row, CallError)]
    return msgspec.structs.replace(call, rows=rows, failed={**call.failed, **failed})
