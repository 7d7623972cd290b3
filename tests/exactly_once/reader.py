"""Copies a stream until nothing waits: `python -m tests.exactly_once.reader WAY DIE_AT AFTER_MS SETTINGS NAME...`.

SETTINGS: a revision's, as JSON. NAME...: those of Stream. The outputs are those of a model y = x, as a ledger wants
them. WAY: "as-it-is" is the product's broker; the others move positions outside of the transaction, "before" or
"after" it. The process ends itself with SIGKILL at its commit number DIE_AT (0: never): between the two steps of a
commit that has two, else AFTER_MS from its beginning.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Timer
from typing import Any, Final

from sunup.settings import STREAM_BROKER
from sunup.stream.broker import Broker, Output, Reader, Record, Stream
from sunup.stream.kafka.python import KafkaBroker
from sunup.stream.open import open_broker

RECORDS_MAX: Final = 100  # of a batch


def die() -> None:
    """As a kill -9 from outside."""
    os.kill(os.getpid(), signal.SIGKILL)


class _TwoSteps(KafkaBroker):
    """Outputs in a transaction, positions by themselves. `between`: called between the two."""

    between: Callable[[], None] = staticmethod(lambda: None)

    def _outputs(self, outputs: Sequence[Output], until: float) -> None:
        producer: Any = self._writer.producer
        self._writer._added.clear()  # as its own transactions begin
        producer.begin_transaction()
        self._writer.write(outputs, until)
        producer.commit_transaction()


class PositionsAfter(_TwoSteps):
    """At least once, whatever it says."""

    def _transact(self, outputs: Sequence[Output], until: float) -> None:
        self._outputs(outputs, until)
        self.between()
        self._move(self._polled, until)


class PositionsBefore(_TwoSteps):
    """At most once."""

    def _transact(self, outputs: Sequence[Output], until: float) -> None:
        self._move(self._polled, until)
        self.between()
        self._outputs(outputs, until)


def opened(way: str, settings: Mapping[str, str], stream: Stream) -> Broker:
    """A reader of that way."""
    who = Reader("copy-0")
    match way:
        case "after":
            return PositionsAfter(settings[STREAM_BROKER], stream, who)
        case "before":
            return PositionsBefore(settings[STREAM_BROKER], stream, who)
        case "as-it-is":
            return open_broker(settings, stream, Path(), who)
    raise ValueError(way)


def copied(stream: Stream, record: Record) -> Output:
    """What a function of a model y = x writes, as its first revision."""
    y = json.dumps({"y": json.loads(record.value or b"")["x"]}).encode()
    place = f"{record.topic}-{record.partition}-{record.offset}".encode()
    return Output(stream.output, record.key, y, [("ce_id", place), ("ce_revision", b"1")])


def main(broker: Broker, die_at: int, after_ms: float, stream: Stream) -> None:
    """Until nothing waits, or that commit."""
    commits = 0
    while any(lag.records for lag in broker.lag().values()):
        if records := broker.poll(0.2, RECORDS_MAX):
            commits += 1
            if commits == die_at and isinstance(broker, _TwoSteps):
                broker.between = die
            elif commits == die_at:
                Timer(after_ms / 1000, die).start()
            broker.commit([copied(stream, record) for record in records])
    broker.close()


if __name__ == "__main__":
    _, way, die_at, after_ms, settings, *names = sys.argv
    stream = Stream(*names)
    main(opened(way, json.loads(settings), stream), int(die_at), float(after_ms), stream)
