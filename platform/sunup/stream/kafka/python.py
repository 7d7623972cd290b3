"""Apache Kafka as the broker of one stream.

At least once: outputs are acknowledged by every in-sync replica before the position moves, so a crash in between writes
them again. Reading is `read_committed`. The group shares partitions out, and only within `poll`: what was polled is
committed before the next one, so that a rebalance finds nothing half done.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import Any, Final

from kafka import KafkaConsumer, KafkaProducer, errors
from kafka.serializer import Serializer
from kafka.structs import OffsetAndMetadata, TopicPartition

from sunup.limits import STREAM_BATCH_RECORDS_MAX, STREAM_BROKER_SECONDS_MAX
from sunup.stream.broker import Lag, Output, Reader, Record, Stream
from sunup.stream.kafka.clients import READER, WRITER, Clients
from sunup.stream.kafka.explained import FENCED, told
from sunup.stream.kafka.onlooker import LOOK_SECONDS, Onlooker
from sunup.stream.kafka.security import OPEN, Security
from sunup.stream.kafka.words import Words

_log = logging.getLogger("sunup.stream")

_CLOSE_SECONDS: Final = 2.0  # s to leave the group; without it the others wait for the session's end
_NOTHING: Final = object()


class KafkaBroker:
    """A reader in the stream's group and a writer of its outputs. `servers`: "host:port,host:port"."""

    def __init__(self, servers: str, stream: Stream, reader: Reader, security: Security = OPEN) -> None:
        self._words = Words(servers, stream)
        self._stream = stream
        self._clients = Clients(servers, f"sunup-{stream.group}", security)
        self._onlooker = Onlooker(self._clients, stream, self._words)
        self._who = reader
        self._reader: Any = None
        self._writer: Any = None
        self._heard = 0.0  # when the brokers last showed that they are there
        self._moved = 0.0  # when the reader last had records, or there were none to have
        self._polled: dict[TopicPartition, int] = {}  # positions to commit

    def join(self, index: int, count: int, without: Collection[int] = ()) -> None:  # noqa: ARG002 - the group shares partitions out
        if self._reader is None:
            with told(self._words):
                self._reader = self._clients.open(KafkaConsumer, group_id=self._stream.group, **READER)
                self._reader.subscribe([self._stream.input])
                self._writer = self._clients.open(KafkaProducer, value_serializer=_Nullable(), **WRITER)
            self._moved = time.monotonic()
            self._heard = self._moved - 0.8 * LOOK_SECONDS  # is the topic there at all? a first look sooner

    def poll(self, seconds: float, records_max: int = STREAM_BATCH_RECORDS_MAX) -> Sequence[Record]:
        self.join(0, 1)
        until = time.monotonic() + seconds
        with told(self._words):
            self._mend()
            try:
                found = self._reader.poll(timeout_ms=seconds * 1000, max_records=records_max)
            except errors.RetriableError:  # a broker that is away; `_look` says so if it stays away
                found = {}
                time.sleep(max(0.0, until - time.monotonic()))
            if found:
                self._heard = self._moved = time.monotonic()
                self._polled |= {partition: self._reader.position(partition) for partition in found}
            elif time.monotonic() >= self._heard + LOOK_SECONDS:
                self._look()
            return [_record(record) for records in found.values() for record in records]

    def keep(self) -> None:
        with told(self._words):
            assigned = self._reader.assignment()
            self._reader.pause(*assigned)
            try:
                self._reader.poll(timeout_ms=0)
            finally:
                self._reader.resume(*(assigned & self._reader.assignment()))

    def commit(self, outputs: Sequence[Output]) -> None:
        until = time.monotonic() + STREAM_BROKER_SECONDS_MAX
        self.join(0, 1)
        with told(self._words):
            if outputs:
                self._write(outputs, until)
            self._move(self._polled, until)
        self._polled.clear()
        self._heard = time.monotonic()

    def lag(self) -> Mapping[int, Lag]:
        with told(self._words):
            return self._onlooker.lag()

    def reads(self) -> Collection[int]:
        reader = self._reader
        return [] if reader is None else [each.partition for each in reader.assignment()]

    def close(self) -> None:
        """In a thread of its own, for kafka-python has waits without an end; what does not end stays behind."""
        clients = (self._reader, self._writer, self._onlooker.take())
        self._reader = self._writer = None
        self._polled = {}
        closing = Thread(target=_close, args=clients, name="kafka-close", daemon=True)
        closing.start()
        closing.join(2 * _CLOSE_SECONDS)

    def _mend(self) -> None:
        """kafka-python 3.0.12 forgets for good that it was joining if a poll ends while it joins for new partitions."""
        group = self._reader._coordinator
        if group.rebalance_in_progress() and not group.need_rejoin():
            group.request_rejoin()

    def _write(self, outputs: Sequence[Output], until: float) -> None:
        try:
            sent = [
                self._writer.send(topic, _NOTHING if value is None else value, key, [*headers])
                for topic, key, value, headers in outputs
            ]
        except errors.KafkaTimeoutError:  # also what it says when there is no such topic
            self.lag()
            raise
        self._writer.flush(timeout=max(0.0, until - time.monotonic()))
        for future in sent:
            future.get(timeout=max(0.0, until - time.monotonic()))

    def _move(self, positions: Mapping[TopicPartition, int], until: float) -> None:
        if positions:
            offsets = {partition: OffsetAndMetadata(position, "", -1) for partition, position in positions.items()}
            self._reader.commit(offsets, timeout_ms=max(0.0, until - time.monotonic()) * 1000)

    def _look(self) -> None:
        """Nothing came for a while: are the brokers there, and is it the reader that does not read?

        Also commits positions that have passed the markers of transactions, which would look like records left to read.
        """
        lag = self.lag()
        now = self._heard = time.monotonic()
        here = {each: self._reader.position(each, timeout_ms=0) for each in self._reader.assignment()}
        here = {each: at for each, at in here.items() if at is not None and each.partition in lag}
        if all(at >= lag[each.partition].end for each, at in here.items()):
            self._moved = now
        elif now > self._moved + STREAM_BROKER_SECONDS_MAX:
            raise self._words.waiting()
        if not self._polled:
            passed = {each: at for each, at in here.items() if at > lag[each.partition].position}
            with suppress(*FENCED):  # then they are somebody else's now
                self._move(passed, now + STREAM_BROKER_SECONDS_MAX / 2)


class _Nullable(Serializer):  # type: ignore[misc]  # kafka-python has no types
    """`send` refuses a record with neither key nor value, which topics do hold and a dead letter may be."""

    def serialize(self, topic: str, headers: Any, data: Any) -> bytes | None:  # noqa: ARG002
        return None if data is _NOTHING else data


def _record(record: Any) -> Record:
    headers = [(name, value or b"") for name, value in record.headers]
    place = (record.topic, record.partition, record.offset)
    return Record(*place, record.key, record.value, headers, record.timestamp / 1000)


def _close(reader: Any, writer: Any, others: Sequence[Any]) -> None:
    """Each in turn, for each may raise when its broker is away."""
    steps: list[Callable[[], None]] = []
    if reader is not None:
        steps.append(partial(reader.close, autocommit=False, timeout_ms=_CLOSE_SECONDS * 1000))
    if writer is not None:
        # The first raises, and closes nothing, while there is something unsent. It must not be written later on.
        closing = partial(writer.close, _CLOSE_SECONDS / 2)
        steps += [closing, writer._sender.force_close, closing]
    steps += [client.close for client in others]
    for step in steps:
        try:
            step()
        except Exception:
            _log.debug("while closing", exc_info=True)
