"""Apache Kafka as the broker of one stream.

At least once: outputs are acknowledged by every in-sync replica before the position moves, so a crash in between writes
them again. Reading is `read_committed`. The group shares partitions out, and only within `poll`: what was polled is
committed before the next one, so that a rebalance finds nothing half done.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from threading import Thread
from typing import Any, Final

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, errors
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.net.compat import KafkaNetClient
from kafka.serializer import Serializer
from kafka.structs import OffsetAndMetadata, TopicPartition

from sunup.limits import STREAM_BATCH_BYTES_MAX, STREAM_BATCH_RECORDS_MAX, STREAM_BROKER_SECONDS_MAX
from sunup.stream.broker import BrokerError, Lag, Output, Reader, Record, Stream, Trouble

_log = logging.getLogger("sunup.stream")

_MS: Final = int(STREAM_BROKER_SECONDS_MAX * 1000)
_LOOK_SECONDS: Final = 2.0  # s between looks at the topics, and of a reader without records at whether all is well
_CLOSE_SECONDS: Final = 2.0  # s to leave the group; without it the others wait for the session's end
_CONNECTION: Final = {
    "request_timeout_ms": _MS // 2,
    "bootstrap_timeout_ms": _MS // 2,
    "retry_backoff_ms": 10,  # the default of 100 ms is most of what joining a group costs
    "metadata_max_age_ms": 60_000,  # until partitions that were added to a topic are read
    "reconnect_backoff_max_ms": 1000,  # by default a broker that is back may be noticed 30 s later
}
_READER: Final = {
    "enable_auto_commit": False,
    "isolation_level": "read_committed",
    "auto_offset_reset": "earliest",
    "partition_assignment_strategy": (RangePartitionAssignor,),
    "session_timeout_ms": 6000,
    "heartbeat_interval_ms": 1000,
    "max_poll_interval_ms": 120_000,  # more than all the bounds of one batch together
    "max_poll_records": STREAM_BATCH_RECORDS_MAX,
    "fetch_max_bytes": STREAM_BATCH_BYTES_MAX,
    "metrics_enabled": False,
}
_WRITER: Final = {
    "acks": "all",
    "enable_idempotence": True,
    "delivery_timeout_ms": _MS,
    "max_block_ms": _MS // 4,
    "max_request_size": STREAM_BATCH_BYTES_MAX,  # how large a record may be is the topic's affair
    "batch_size": 128 * 1024,
    "linger_ms": 100,  # a commit flushes, which ends it: few and large requests
    "metrics_enabled": False,
}
_FENCED: Final = (
    errors.CommitFailedError,
    errors.RebalanceInProgressError,
    errors.IllegalGenerationError,
    errors.UnknownMemberIdError,
    errors.FencedInstanceIdError,
)
_NOTHING: Final = object()


class KafkaBroker:
    """A reader in the stream's group and a writer of its outputs. `servers`: "host:port,host:port"."""

    def __init__(self, servers: str, stream: Stream, reader: Reader) -> None:
        self._servers = servers
        self._stream = stream
        self._who = reader
        self._reader: Any = None
        self._writer: Any = None
        self._admin: Any = None
        self._eyes: Any = None
        self._firsts: dict[TopicPartition, int] = {}  # of the input topic, as of the last look
        self._ends: dict[TopicPartition, int] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._looked = 0.0
        self._heard = 0.0  # when the brokers last showed that they are there
        self._moved = 0.0  # when the reader last had records, or there were none to have
        self._polled: dict[TopicPartition, int] = {}  # positions to commit

    def join(self, index: int, count: int, without: Collection[int] = ()) -> None:  # noqa: ARG002 - the group shares partitions out
        if self._reader is None:
            with self._told():
                self._reader = self._open(KafkaConsumer, group_id=self._stream.group, **_READER)
                self._reader.subscribe([self._stream.input])
                self._writer = self._open(KafkaProducer, value_serializer=_Nullable(), **_WRITER)
            self._moved = time.monotonic()
            self._heard = self._moved - 0.8 * _LOOK_SECONDS  # is the topic there at all? a first look sooner

    def poll(self, seconds: float, records_max: int = STREAM_BATCH_RECORDS_MAX) -> Sequence[Record]:
        self.join(0, 1)
        until = time.monotonic() + seconds
        with self._told():
            self._mend()
            try:
                found = self._reader.poll(timeout_ms=seconds * 1000, max_records=records_max)
            except errors.RetriableError:  # a broker that is away; `_look` says so if it stays away
                found = {}
                time.sleep(max(0.0, until - time.monotonic()))
            if found:
                self._heard = self._moved = time.monotonic()
                self._polled |= {partition: self._reader.position(partition) for partition in found}
            elif time.monotonic() >= self._heard + _LOOK_SECONDS:
                self._look()
            return [_record(record) for records in found.values() for record in records]

    def keep(self) -> None:
        with self._told():
            assigned = self._reader.assignment()
            self._reader.pause(*assigned)
            try:
                self._reader.poll(timeout_ms=0)
            finally:
                self._reader.resume(*(assigned & self._reader.assignment()))

    def commit(self, outputs: Sequence[Output]) -> None:
        until = time.monotonic() + STREAM_BROKER_SECONDS_MAX
        self.join(0, 1)
        with self._told():
            if outputs:
                self._write(outputs, until)
            self._move(self._polled, until)
        self._polled.clear()
        self._heard = time.monotonic()

    def lag(self) -> Mapping[int, Lag]:
        until = time.monotonic() + STREAM_BROKER_SECONDS_MAX / 2
        with self._told():
            while True:
                try:
                    return self._lag()
                except errors.RetriableError:  # a leader or coordinator is moving, or the broker is away
                    if time.monotonic() >= until:
                        raise
                    self._looked = 0.0
                    time.sleep(0.05)

    def close(self) -> None:
        """In a thread of its own, for kafka-python has waits without an end; what does not end stays behind."""
        clients = (self._reader, self._writer, self._admin, self._eyes)
        self._reader = self._writer = self._admin = self._eyes = None
        self._polled = {}
        closing = Thread(target=_close, args=clients, name="kafka-close", daemon=True)
        closing.start()
        closing.join(2 * _CLOSE_SECONDS)

    def _open(self, make: Callable[..., Any], **settings: Any) -> Any:
        """One of kafka-python's clients, whose threads and sockets are let go if it cannot be made."""
        opened: list[Any] = []

        def client(**configs: Any) -> Any:
            opened.append(KafkaNetClient(**configs))
            # Given to the clients, neither gets as far as this; and each joining of a group waits for the second.
            opened[0].cluster.config |= {"allow_auto_create_topics": False, "retry_backoff_ms": 10}
            return opened[0]

        try:
            whose = {"bootstrap_servers": self._servers, "client_id": f"sunup-{self._stream.group}"}
            return make(kafka_client=client, **whose, **_CONNECTION, **settings)
        except BaseException:
            for one in opened:
                one.close()
            raise

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
            raise BrokerError(Trouble.FAILED, f"records of {self._stream.input} wait at {self._servers}; none arrive")
        if not self._polled:
            passed = {each: at for each, at in here.items() if at > lag[each.partition].position}
            with suppress(*_FENCED):  # then they are somebody else's now
                self._move(passed, now + STREAM_BROKER_SECONDS_MAX / 2)

    def _lag(self) -> dict[int, Lag]:
        if self._eyes is None:
            self._admin = self._open(KafkaAdminClient)
            self._eyes = self._open(KafkaConsumer, **_READER)  # in no group; asks for ends at half of the admin's cost
        now = time.monotonic()
        if look := now >= self._looked + _LOOK_SECONDS:
            self._firsts = self._eyes.beginning_offsets(self._look_up(), _MS // 4)
            self._looked = now
        ends = self._eyes.end_offsets(list(self._firsts), _MS // 4)
        # Nothing to read before, and nothing written since: a group cannot have moved on.
        if look or ends != self._ends or any(self._positions[each] < end for each, end in ends.items()):
            found = self._admin.list_group_offsets({self._stream.group: list(ends)})[self._stream.group]
            self._positions = self._firsts | {each: at.offset for each, at in found.items() if at.offset >= 0}
            self._ends = ends
        return {each.partition: Lag(self._positions[each], end) for each, end in sorted(ends.items())}

    def _look_up(self) -> list[TopicPartition]:
        """The input topic's partitions; raises when one of the three topics is not there or not permitted."""
        found = {topic["name"]: topic for topic in self._admin.describe_topics(list(self._stream[1:]))}
        for topic in self._stream[1:]:
            error = errors.for_code(found[topic]["error_code"])
            if error is errors.UnknownTopicOrPartitionError:
                raise self._missing(topic)
            if error is not errors.NoError:
                raise error(topic)
        numbers = sorted(one["partition_index"] for one in found[self._stream.input]["partitions"])
        return [TopicPartition(self._stream.input, number) for number in numbers]

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors as BrokerError. kafka-python raises others than its own too, RuntimeError and KeyError among them."""
        try:
            yield
        except BrokerError:
            raise
        except Exception as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> BrokerError:
        at = self._servers
        if isinstance(error, errors.AuthorizationError):
            return BrokerError(Trouble.NOT_PERMITTED, f"not permitted at {at}: grant {self._grant(error)}")
        if isinstance(error, _FENCED):
            return BrokerError(Trouble.FENCED, f"others of {self._stream.group} read the partitions now")
        if isinstance(error, errors.InvalidTopicError | errors.UnknownTopicOrPartitionError):
            return self._missing(str(error.args[0]) if error.args else self._stream.input)
        if isinstance(error, errors.MessageSizeTooLargeError | errors.RecordListTooLargeError):
            topics = f"{self._stream.output} and {self._stream.dead_letter}"
            return BrokerError(Trouble.FAILED, f"a record is too large at {at}: raise max.message.bytes of {topics}")
        unanswered = isinstance(error, errors.RetriableError) and not isinstance(error, errors.BrokerResponseError)
        if unanswered or isinstance(error, OSError | errors.RequestTimedOutError):
            return BrokerError(Trouble.UNREACHABLE, f"no broker answers at {at}: {error}")
        return BrokerError(Trouble.FAILED, f"the broker at {at} or its client failed: {type(error).__name__}: {error}")

    def _grant(self, error: errors.AuthorizationError) -> str:
        """The permission that is missing. Producers need WRITE only, since Kafka 3.0 also to be idempotent."""
        if isinstance(error, errors.GroupAuthorizationFailedError):
            return f"READ on group {self._stream.group}"
        if isinstance(error, errors.TopicAuthorizationFailedError) and error.args:
            named = error.args[0] if isinstance(error.args[0], set | list | tuple) else [error.args[0]]
            return ", ".join(f"{'READ' if t == self._stream.input else 'WRITE'} on topic {t}" for t in sorted(named))
        return f"WRITE on topics {self._stream.output} and {self._stream.dead_letter}"

    def _missing(self, topic: str) -> BrokerError:
        create = f"kafka-topics.sh --bootstrap-server {self._servers} --create --topic {topic} --partitions 4"
        what = f"topic {topic} does not exist at {self._servers}; create it, for example: {create}"
        return BrokerError(Trouble.TOPIC_MISSING, what)


class _Nullable(Serializer):  # type: ignore[misc]  # kafka-python has no types
    """`send` refuses a record with neither key nor value, which topics do hold and a dead letter may be."""

    def serialize(self, topic: str, headers: Any, data: Any) -> bytes | None:  # noqa: ARG002
        return None if data is _NOTHING else data


def _record(record: Any) -> Record:
    headers = [(name, value or b"") for name, value in record.headers]
    place = (record.topic, record.partition, record.offset)
    return Record(*place, record.key, record.value, headers, record.timestamp / 1000)


def _close(reader: Any, writer: Any, admin: Any, eyes: Any) -> None:
    """Each in turn, for each may raise when its broker is away."""
    steps: list[Callable[[], None]] = []
    if reader is not None:
        steps.append(partial(reader.close, autocommit=False, timeout_ms=_CLOSE_SECONDS * 1000))
    if writer is not None:
        # The first raises, and closes nothing, while there is something unsent. It must not be written later on.
        closing = partial(writer.close, _CLOSE_SECONDS / 2)
        steps += [closing, writer._sender.force_close, closing]
    steps += [client.close for client in (admin, eyes) if client is not None]
    for step in steps:
        try:
            step()
        except Exception:
            _log.debug("while closing", exc_info=True)
