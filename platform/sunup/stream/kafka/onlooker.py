"""How far a group is behind, seen from outside of it, with kafka-python."""

import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from kafka import KafkaAdminClient, KafkaConsumer, errors
from kafka.admin import OffsetSpec
from kafka.structs import TopicPartition

from sunup import limits
from sunup.limits import STREAM_BROKER_SECONDS_MAX
from sunup.stream.broker import BrokerError, Lag, Stream, Trouble
from sunup.stream.kafka.clients import MS, READER, Clients
from sunup.stream.kafka.explained import told
from sunup.stream.kafka.once.dismissal import dismiss
from sunup.stream.kafka.security import OPEN, Security
from sunup.stream.kafka.words import Words

_log = logging.getLogger("sunup.stream")

LOOK_SECONDS: Final = 2.0  # s between looks at the topics, and of a reader without records at whether all is well


class Onlooker:
    """Connects when it is first asked. Raises kafka-python's errors, and BrokerError for a topic that is missing."""

    def __init__(self, clients: Clients, stream: Stream, words: Words) -> None:
        self._clients = clients
        self._stream = stream
        self._words = words
        self._admin: Any = None
        self._eyes: Any = None
        self._firsts: dict[TopicPartition, int] = {}  # of the input topic, as of the last look
        self._ends: dict[TopicPartition, int] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._looked = 0.0

    def lag(self) -> Mapping[int, Lag]:
        """See stream.broker.Broker."""
        until = time.monotonic() + STREAM_BROKER_SECONDS_MAX / 2
        while True:
            try:
                return self._lag()
            except errors.RetriableError:  # a leader or coordinator is moving, or the broker is away
                if time.monotonic() >= until:
                    raise
                self._looked = 0.0
                time.sleep(0.05)

    def take(self) -> list[Any]:
        """Its clients, for whoever closes them; it opens others if it is asked again."""
        clients = [client for client in (self._admin, self._eyes) if client is not None]
        self._admin = self._eyes = None
        return clients

    def _lag(self) -> dict[int, Lag]:
        if self._eyes is None:
            self._admin = self._clients.open(KafkaAdminClient)
            self._eyes = self._clients.open(KafkaConsumer, **READER)  # in no group; ends at half of the admin's cost
        now = time.monotonic()
        if look := now >= self._looked + LOOK_SECONDS:
            self._firsts = self._eyes.beginning_offsets(self._look_up(), MS // 4)
            self._looked = now
        ends = self._eyes.end_offsets(list(self._firsts), MS // 4)
        # Nothing to read before, and nothing written since: a group cannot have moved on.
        if look or ends != self._ends or any(self._positions[each] < end for each, end in ends.items()):
            found = self._admin.list_group_offsets({self._stream.group: list(ends)})[self._stream.group]
            self._positions = self._firsts | {each: at.offset for each, at in found.items() if at.offset >= 0}
            self._ends = ends
        if look and all(self._positions[each] >= end for each, end in ends.items()):
            self._refuse_held_up(ends)
        return {each.partition: Lag(self._positions[each], end) for each, end in sorted(ends.items())}

    def _refuse_held_up(self, ends: Mapping[TopicPartition, int]) -> None:
        """Nothing is left to be read: is there anything that somebody's unfinished transaction keeps from being?

        Ends are those of committed records. The broker remembers when the producer of each transaction last wrote.
        """
        written = self._admin.list_partition_offsets(dict.fromkeys(ends, OffsetSpec.LATEST), timeout_ms=MS // 4)
        behind = [each for each, end in ends.items() if written[each].offset > end]
        for each, state in self._admin.describe_producers(behind).items():
            for producer in state.active_producers:
                silent = time.time() - producer.last_timestamp / 1000
                if producer.current_transaction_start_offset >= 0 and silent > limits.STREAM_HELD_UP_SECONDS:
                    raise self._words.held_up(each.partition, producer.current_transaction_start_offset, silent)

    def _look_up(self) -> list[TopicPartition]:
        """The input topic's partitions; raises when one of the three topics is not there or not permitted."""
        found = {topic["name"]: topic for topic in self._admin.describe_topics(list(self._stream[1:]))}
        for topic in self._stream[1:]:
            error = errors.for_code(found[topic]["error_code"])
            if error is errors.UnknownTopicOrPartitionError:
                raise self._words.missing(topic)
            if error is not errors.NoError:
                raise error(topic)
        numbers = sorted(one["partition_index"] for one in found[self._stream.input]["partitions"])
        return [TopicPartition(self._stream.input, number) for number in numbers]


class KafkaWatch:
    """The lag of many streams of one cluster, over the same few connections. `security`: see Clients."""

    def __init__(self, servers: str, security: Security = OPEN) -> None:
        self._servers = servers
        self._clients = _Shared(servers, "sunup-watcher", security)
        self._unshared = Clients(servers, "sunup-watcher", security)
        self._onlookers: dict[Stream, Onlooker] = {}
        self._away: BrokerError | None = None  # what is said of every stream, while no broker answers
        self._ask_at = 0.0  # monotonic seconds, when one is asked again

    def lag(self, stream: Stream) -> Mapping[int, Lag]:
        if self._away is not None and time.monotonic() < self._ask_at:
            raise self._away
        words = Words(self._servers, stream)
        onlooker = self._onlookers.setdefault(stream, Onlooker(self._clients, stream, words))
        try:
            with told(words):
                lag = onlooker.lag()
        except BrokerError as error:
            if error.trouble in (Trouble.UNREACHABLE, Trouble.FAILED) and error.__cause__ is not None:
                self.close()  # it was the clients that failed
            if error.trouble is Trouble.UNREACHABLE:  # it takes seconds to find out: not for each stream again
                self._away, self._ask_at = error, time.monotonic() + LOOK_SECONDS / 2
            self.forget(stream)
            raise
        self._away = None
        return lag

    def dismiss(self, stream: Stream, is_dead: Callable[[str], bool]) -> Collection[str]:
        with told(Words(self._servers, stream)):
            return dismiss(self._clients.open(KafkaAdminClient), self._unshared, stream.group, is_dead)

    def forget(self, stream: Stream) -> None:
        self._onlookers.pop(stream, None)

    def close(self) -> None:
        self._onlookers.clear()  # they know the clients
        self._clients.close()


class _Shared(Clients):
    """One client of each kind, for whoever asks for it."""

    def __init__(self, servers: str, name: str, security: Security) -> None:
        super().__init__(servers, name, security)
        self._opened: dict[Callable[..., Any], Any] = {}

    def open(self, make: Callable[..., Any], **settings: Any) -> Any:
        if make not in self._opened:
            self._opened[make] = super().open(make, **settings)
        return self._opened[make]

    def close(self) -> None:
        opened, self._opened = list(self._opened.values()), {}
        for client in opened:
            try:
                client.close()
            except Exception:  # most likely what it is closed for
                _log.debug("while closing", exc_info=True)
