"""What people do to a stream of Apache Kafka from outside, with kafka-python."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Thread
from typing import Any, Final, TypeVar
from uuid import UUID

from kafka import KafkaAdminClient, KafkaConsumer, errors
from kafka.structs import OffsetAndMetadata, TopicPartition

from sunup.limits import STREAM_BROKER_SECONDS_MAX
from sunup.stream.broker import BrokerError, Record, Stream, Trouble
from sunup.stream.kafka.clients import MS, READER, Clients, records_of
from sunup.stream.kafka.compacted import ensure
from sunup.stream.kafka.explained import told
from sunup.stream.kafka.security import OPEN, Security
from sunup.stream.kafka.words import Words

_log = logging.getLogger("sunup.stream")

_CLOSE_SECONDS: Final = 2.0  # s; nothing is left to be done for anybody
_CLIENT: Final = "sunup-admin"
# A fetch behind the end holds up the next partition's: by default for 500 ms.
_EYES: Final = READER | {"fetch_max_wait_ms": 20}

Given = TypeVar("Given")


class KafkaAdmin:
    """See stream.admin.Admin. `servers`: "host:port,host:port"; `security`: see Clients. In no group: `group_id` is
    only where a client asks for positions. Records of unfinished transactions are behind the end, as readers see it."""

    def __init__(self, servers: str, security: Security = OPEN) -> None:
        self._servers = servers
        self._clients = Clients(servers, _CLIENT, security)
        self._admin: Any = None
        self._eyes: Any = None

    def span(self, topic: str) -> Mapping[int, tuple[int, int]]:
        def look() -> Mapping[int, tuple[int, int]]:
            partitions = self._partitions(topic)
            firsts = self._eyes.beginning_offsets(partitions, MS // 4)
            ends = self._eyes.end_offsets(partitions, MS // 4)
            return {each.partition: (firsts[each], max(firsts[each], ends[each])) for each in partitions}

        return self._asked(topic, "", look)

    def origin(self, topic: str) -> str:
        """Topics have ids since Kafka 2.8; before, the cluster's is the best there is."""

        def look() -> str:
            (found,) = self._admin.describe_topics([topic])
            id = found.get("topic_id")
            if id and UUID(str(id)).int:
                return f"topic:{id}"
            cluster = self._admin.describe_cluster().get("cluster_id")
            return f"cluster:{cluster}" if cluster else ""

        return self._asked(topic, "", look)

    def at(self, topic: str, wall: float) -> Mapping[int, int]:
        def look() -> Mapping[int, int]:
            partitions = self._partitions(topic)
            moment = max(0, math.ceil(wall * 1000))
            found = self._eyes.offsets_for_times(dict.fromkeys(partitions, moment), MS // 4)
            ends = self._eyes.end_offsets(partitions, MS // 4)
            return {
                each.partition: ends[each] if found.get(each) is None else min(found[each].offset, ends[each])
                for each in partitions
            }

        return self._asked(topic, "", look)

    def read(self, topic: str, partition: int, offset: int, records_max: int) -> Sequence[Record]:
        where = TopicPartition(topic, partition)

        def look() -> Sequence[Record]:
            if self._eyes.assignment() != {where}:
                if where not in self._partitions(topic):
                    raise errors.UnknownTopicOrPartitionError(topic)
                self._eyes.assign([where])
                self._eyes.seek(where, offset)
            elif self._eyes.position(where, timeout_ms=0) != offset:  # else it goes on with what it has fetched
                self._eyes.seek(where, offset)
            return self._read(where, records_max)

        return self._asked(topic, "", look)

    def positions(self, group: str, topic: str) -> Mapping[int, int]:
        """FENCED while a transaction of the group is not finished: where it stands is not known then."""

        def look() -> Mapping[int, int]:
            partitions = self._partitions(topic)
            # The admin client would give positions that an unfinished transaction is about to move.
            asker = self._clients.open(KafkaConsumer, group_id=group, **READER)
            try:
                found = {each.partition: asker.committed(each, timeout_ms=MS // 4) for each in partitions}
            except errors.KafkaTimeoutError as error:
                what = f"a transaction of {group} is not finished; the broker ends it after its time-out"
                raise BrokerError(Trouble.FENCED, what) from error
            finally:
                self._close([asker])
            return {number: offset for number, offset in found.items() if offset is not None}

        return self._asked(topic, group, look)

    def move(self, group: str, topic: str, positions: Mapping[int, int]) -> None:
        def act() -> None:
            offsets = {TopicPartition(topic, n): OffsetAndMetadata(at, "", -1) for n, at in positions.items()}
            # It answers for each partition; UNKNOWN_MEMBER_ID where somebody is in the group.
            for each, error in self._admin.alter_group_offsets(group, offsets).items():
                if error is not errors.NoError:
                    raise error(each.topic)

        self._asked(topic, group, act)

    def ensure_compacted(self, topic: str, partitions: int) -> None:
        if self._asked(topic, "", lambda: ensure(self._admin, self._servers, topic, partitions)):
            self.close()  # its clients know the topic as it was

    def close(self) -> None:
        clients = [client for client in (self._admin, self._eyes) if client is not None]
        self._admin = self._eyes = None
        self._close(clients)

    def _asked(self, topic: str, group: str, look: Callable[[], Given]) -> Given:
        """What `look` finds; tried again while a leader or a coordinator moves, or is found for the first time."""
        until = time.monotonic() + STREAM_BROKER_SECONDS_MAX / 2
        with told(Words(self._servers, Stream(group, topic, topic, topic))):
            while True:
                try:
                    if self._eyes is None:
                        self._admin = self._clients.open(KafkaAdminClient)
                        self._eyes = self._clients.open(KafkaConsumer, **_EYES)
                    return look()
                except errors.RetriableError:
                    if time.monotonic() >= until:
                        raise
                    time.sleep(0.05)

    def _partitions(self, topic: str) -> list[TopicPartition]:
        (found,) = self._admin.describe_topics([topic])
        error = errors.for_code(found["error_code"])
        if error is errors.UnknownTopicOrPartitionError:
            raise Words(self._servers, Stream("", topic, topic, topic)).missing(topic)
        if error is not errors.NoError:
            raise error(topic)
        return [
            TopicPartition(topic, number) for number in sorted(one["partition_index"] for one in found["partitions"])
        ]

    def _read(self, where: TopicPartition, records_max: int) -> Sequence[Record]:
        until = time.monotonic() + STREAM_BROKER_SECONDS_MAX / 2
        end = self._end_of(where)
        while (at := self._eyes.position(where, timeout_ms=MS // 4)) < end:
            if found := self._eyes.poll(timeout_ms=200, max_records=records_max).get(where):
                return records_of(where, found)
            if time.monotonic() >= until:
                raise late(where.topic, at)
        return ()

    def _end_of(self, where: TopicPartition) -> int:
        end: int = self._eyes.end_offsets([where], MS // 4)[where]
        return end

    @staticmethod
    def _close(clients: Iterable[Any]) -> None:
        """In a thread of its own, for kafka-python has waits without an end; what does not end stays behind."""
        threads = [Thread(target=_close, args=[client], name="kafka-close", daemon=True) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_CLOSE_SECONDS)


def late(topic: str, offset: int) -> Exception:
    """What to raise where records do not come that are there."""
    error: Exception = errors.KafkaTimeoutError(f"records of {topic} wait behind {offset}, and none arrive")
    return error


def _close(client: Any) -> None:
    try:
        client.close()
    except Exception:  # its broker is away, most likely
        _log.debug("while closing", exc_info=True)
