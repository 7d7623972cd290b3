"""A producer that writes the outputs of a stream, with or without a transaction around them."""

import time
from collections.abc import Sequence
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from sunup.stream.broker import Output
from sunup.stream.kafka.confluent.clients import Clients, Told
from sunup.stream.kafka.confluent.explained import STALE, Refused, code_of

TRIES_MAX: Final = 6  # of one transaction or commit, while the group changes
TRY_SECONDS: Final = 0.01  # s before the second, doubled each time: the group's next generation is milliseconds away


class Writer:
    """Connects when it `begin`s, or first writes. Raises confluent-kafka's errors, and Refused for a record's.

    After any error it is only good for `close`.
    """

    def __init__(self, clients: Clients, on_error: Told) -> None:
        self._producer = clients.writer(on_error, self._delivered)
        self._failed: list[Refused] = []
        self._met: set[str] = set()

    def begin(self, seconds: float) -> None:
        """End what the last writer of this name left half done, and be the only one of it."""
        self._producer.init_transactions(seconds)

    def meet(self, topic: str, seconds: float) -> None:
        """See where its partitions are; a record for a topic that is not known yet may wait for half a second."""
        if topic not in self._met:
            self._producer.list_topics(topic, seconds)
            self._met.add(topic)

    def write(self, outputs: Sequence[Output], until: float) -> None:
        """Until every output is acknowledged."""
        self._produce(outputs)
        unsent = self._producer.flush(_left(until))
        if self._failed:
            raise self._failed[0]
        if unsent:
            raise KafkaException(KafkaError(KafkaError._MSG_TIMED_OUT, f"{unsent} records are not acknowledged"))

    def transact(
        self, outputs: Sequence[Output], positions: Sequence[TopicPartition], reader: Consumer, until: float
    ) -> None:
        """Outputs and positions, both or neither. While the group goes from one generation to the next, the positions
        of readers who keep their partitions are refused like those of readers who lost theirs: it is tried again."""
        for attempt in range(TRIES_MAX):
            try:
                self._transact(outputs, positions, reader, until)
            except KafkaException as found:
                error = self._cause(found)
                if self._failed:
                    raise self._failed[0] from error
                if code_of(error) == KafkaError.TOPIC_AUTHORIZATION_FAILED:  # of which, it does not say
                    raise Refused(error.args[0], *{output.topic for output in outputs}) from error
                if code_of(error) not in STALE or attempt == TRIES_MAX - 1 or time.monotonic() > until:
                    raise error from None
                self._producer.abort_transaction(_left(until))
                self._failed.clear()  # what was aborted is reported as such
                time.sleep(TRY_SECONDS * 2**attempt)
            else:
                return

    def close(self) -> None:
        """Without sending what is not sent: it must not be written later on."""
        self._producer.purge()
        self._producer.flush(0)
        self._producer.close()

    def _transact(
        self, outputs: Sequence[Output], positions: Sequence[TopicPartition], reader: Consumer, until: float
    ) -> None:
        self._producer.begin_transaction()
        self._produce(outputs)
        if positions:
            # As of now: a reader learns of a new generation between two polls, and loses partitions within them only.
            group = reader.consumer_group_metadata()
            self._producer.send_offsets_to_transaction([*positions], group, _left(until))
        self._producer.commit_transaction(_left(until))

    def _cause(self, error: KafkaException) -> KafkaException:
        """A step that comes when another one has failed already is told only that; who begins again is told why."""
        if code_of(error) != KafkaError._STATE:
            return error
        try:
            self._producer.begin_transaction()
        except KafkaException as cause:
            return cause
        return error

    def _produce(self, outputs: Sequence[Output]) -> None:
        self._failed.clear()
        produce = self._producer.produce
        for topic, key, value, headers, to in outputs:
            # By place, which is measurably faster: partition, callback, on_delivery, timestamp, headers.
            try:
                given = headers if type(headers) is list else [*headers]  # it takes no other sequence
                produce(topic, value, key, -1 if to is None else to, None, None, 0, given)
            except KafkaException as error:
                raise Refused(error.args[0], topic) from error

    def _delivered(self, error: KafkaError | None, message: Any) -> None:
        if error is not None:
            self._failed.append(Refused(error, message.topic()))


def _left(until: float) -> float:
    return max(0.0, until - time.monotonic())
