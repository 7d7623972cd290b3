"""What people and tiles read of a stream from outside, with confluent-kafka: a topic's records, several times as fast.

What is asked or changed little goes on with kafka-python, which has no threads that outlive their use.
"""

import time
from collections.abc import Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, TopicPartition
from kafka.structs import TopicPartition as Place

from sunup.limits import STREAM_BROKER_SECONDS_MAX
from sunup.stream.broker import Reader, Record, Stream
from sunup.stream.kafka.admin import KafkaAdmin, late
from sunup.stream.kafka.confluent.clients import Clients, records_of
from sunup.stream.kafka.confluent.explained import told
from sunup.stream.kafka.security import OPEN, Security
from sunup.stream.kafka.words import Words

_WHO: Final = Reader("admin", exactly_once=False)
_WAIT_SECONDS: Final = 0.2


class ConfluentAdmin(KafkaAdmin):
    """See stream.admin.Admin and KafkaAdmin."""

    def __init__(self, servers: str, security: Security = OPEN) -> None:
        super().__init__(servers, security)
        self._security = security
        self._reader: Any = None
        self._where: tuple[str, int] | None = None  # what it reads
        self._next = self._end = self._behind = 0  # where it is; the end as last asked; up to where there is no record

    def read(self, topic: str, partition: int, offset: int, records_max: int) -> Sequence[Record]:
        def look() -> Sequence[Record]:
            stream = Stream("", topic, topic, topic)
            with told(Words(self._servers, stream)):
                return self._read_on(stream, partition, offset, records_max)

        return self._asked(topic, "", look)

    def close(self) -> None:
        reader, self._reader, self._where = self._reader, None, None
        if reader is not None:
            self._close([reader])
        super().close()

    def _read_on(self, stream: Stream, partition: int, offset: int, records_max: int) -> Sequence[Record]:
        topic, until = stream.input, time.monotonic() + STREAM_BROKER_SECONDS_MAX / 2
        if self._where != (topic, partition) or self._next != offset:
            self._seek(stream, partition, offset)
        if self._end <= offset:
            self._end = self._end_of(Place(topic, partition))
        while max(offset, self._behind) < self._end:
            found = self._reader.consume(1, _WAIT_SECONDS)  # one: it would wait until there are as many as are wanted
            if found and records_max > 1:
                found += self._reader.consume(records_max - 1, 0)
            ends = [each for each in found if each.error() and each.error().code() == KafkaError._PARTITION_EOF]
            self._behind = max((each.offset() for each in ends), default=self._behind)
            if records := records_of([each for each in found if each not in ends] if ends else found):
                self._next = records[-1].offset + 1
                return records
            if time.monotonic() >= until:
                raise late(topic, offset)
        return ()

    def _seek(self, stream: Stream, partition: int, offset: int) -> None:
        if self._reader is None:
            clients = Clients(self._servers, stream, _WHO, self._security)
            self._reader = clients.looker()
        if self._where is None or self._where[0] != stream.input:
            self._partitions(stream.input)  # a topic that is not there is told of
        self._reader.assign([TopicPartition(stream.input, partition, offset)])
        self._where, self._next, self._end, self._behind = (stream.input, partition), offset, 0, 0
