"""How far a group is behind, seen from outside of it, with confluent-kafka."""

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import OffsetSpec

from sunup.limits import STREAM_BROKER_SECONDS_MAX
from sunup.stream.broker import Lag, Stream
from sunup.stream.kafka.confluent.clients import Clients
from sunup.stream.kafka.confluent.explained import AWAY, Refused, code_of

LOOK_SECONDS: Final = 2.0  # s between looks at the topics, and of a reader without records at whether all is well
_ASK: Final = {"request_timeout": STREAM_BROKER_SECONDS_MAX / 4}


class Onlooker:
    """Connects when it is first asked. Raises confluent-kafka's errors, and Refused where they are about a topic."""

    def __init__(self, clients: Clients, stream: Stream) -> None:
        self._clients = clients
        self._stream = stream
        self._admin: Any = None
        self._firsts: dict[int, int] = {}  # of the input topic's partitions, as of the last look
        self._ends: dict[int, int] = {}
        self._positions: dict[int, int] = {}
        self._looked = 0.0

    def lag(self) -> Mapping[int, Lag]:
        """See stream.broker.Broker."""
        until = time.monotonic() + STREAM_BROKER_SECONDS_MAX / 2
        while True:
            try:
                return self._lag()
            except (KafkaException, Refused) as error:  # a leader or coordinator is moving, or the broker is away
                error_of = error.error if isinstance(error, Refused) else error.args[0]
                if not (error_of.retriable() or code_of(error) in AWAY) or time.monotonic() >= until:
                    self._clients.ask_why()
                    raise
                self._looked = 0.0
                time.sleep(0.05)

    def close(self) -> None:
        """Let go of the client, which ends with the last reference; another is opened if it is asked again."""
        self._admin = None

    def _lag(self) -> dict[int, Lag]:
        if self._admin is None:
            self._admin = self._clients.admin()
        now = time.monotonic()
        if look := now >= self._looked + LOOK_SECONDS:
            self._firsts = self._offsets(self._look_up(), OffsetSpec.earliest())
            self._looked = now
        ends = self._offsets(self._firsts, OffsetSpec.latest())
        # Nothing to read before, and nothing written since: a group cannot have moved on.
        if look or ends != self._ends or any(self._positions[each] < end for each, end in ends.items()):
            self._positions = self._firsts | self._committed(ends)
            self._ends = ends
        return {number: Lag(self._positions[number], end) for number, end in sorted(ends.items())}

    def _look_up(self) -> list[int]:
        """The input topic's partitions; raises when one of the three topics is not there or not permitted."""
        topics = self._stream[1:]
        found = self._admin.describe_topics(TopicCollection([*topics]), **_ASK)
        described = {topic: _of_topic(topic, found[topic]) for topic in topics}
        return [each.id for each in described[self._stream.input].partitions]

    def _offsets(self, partitions: Iterable[int], spec: OffsetSpec) -> dict[int, int]:
        asked = {TopicPartition(self._stream.input, number): spec for number in partitions}
        found = self._admin.list_offsets(asked, isolation_level=IsolationLevel.READ_COMMITTED, **_ASK)
        return {place.partition: _of_topic(place.topic, future).offset for place, future in found.items()}

    def _committed(self, partitions: Iterable[int]) -> dict[int, int]:
        group = self._stream.group
        asked = ConsumerGroupTopicPartitions(group, [TopicPartition(self._stream.input, each) for each in partitions])
        found = self._admin.list_consumer_group_offsets([asked], **_ASK)[group].result()
        for place in found.topic_partitions:
            if place.error is not None:
                raise Refused(place.error, place.topic)
        return {place.partition: place.offset for place in found.topic_partitions if place.offset >= 0}


def _of_topic(topic: str, future: Future[Any]) -> Any:
    try:
        return future.result()
    except KafkaException as error:
        raise Refused(error.args[0], topic) from error
