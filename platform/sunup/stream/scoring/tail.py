"""Records that are read again for what is aggregated of them: on the broker's thread, which waits for nothing long."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sunup.clock import Clock
from sunup.errors import CallError
from sunup.limits import STREAM_KEEP_SECONDS
from sunup.stream.broker import BrokerError, Record, Trouble
from sunup.stream.scoring.events import EventReader, Events

if TYPE_CHECKING:
    from sunup.wire.confluent.schemas import Schemas  # http and ssl, for those whose records need a registry


class TailReader:
    """`reader` reads what `schemas` has learned, which nobody else has. `keep`: how the thread's reader stays in its
    group, called at most every STREAM_KEEP_SECONDS."""

    def __init__(self, reader: EventReader, schemas: "Schemas | None", keep: Callable[[], None], clock: Clock) -> None:
        self._reader = reader
        self._schemas = schemas
        self._keep = keep
        self._clock = clock
        self._kept = clock.now()

    def __repr__(self) -> str:
        return f"TailReader({self._reader!r})"

    def read(self, records: Sequence[Record]) -> Events:
        """See EventReader.read. Raises BrokerError where the schema registry does not answer."""
        if self._schemas is not None:
            patience = _Patience(self.stay)
            values = [record.value for record in records]
            if not asyncio.run(self._schemas.learn(values, patience)):  # a loop of its own: this is a thread
                raise BrokerError(Trouble.WAITING, patience.reason)
        return self._reader.read(records)

    def stay(self) -> None:
        """Stay in the group, if it is time."""
        now = self._clock.now()
        if now - self._kept >= STREAM_KEEP_SECONDS:
            self._kept = now
            self._keep()


class _Patience:
    """None: whoever reads the tail comes again after a pause."""

    def __init__(self, stay: Callable[[], None]) -> None:
        self.reason = ""
        self._stay = stay

    async def pause(self, seconds: float, error: CallError) -> bool:  # noqa: ARG002
        """Told to give up."""
        self.reason = f"{error.code}: {error.message}"
        return True

    async def stay(self) -> None:
        """See scorer.Patience."""
        self._stay()
