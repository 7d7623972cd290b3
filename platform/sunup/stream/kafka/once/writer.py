"""Outputs and positions with kafka-python: in one transaction, or one after the other.

kafka-python 3.0.12 waits for a transaction without a limit, and would commit one although a record of it was never
written, if the brokers did not take it in time. So each step is waited for here, and each record looked at.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kafka import KafkaProducer, errors
from kafka.serializer import Serializer
from kafka.structs import OffsetAndMetadata, TopicPartition

from sunup.limits import STREAM_BROKER_SECONDS_MAX
from sunup.stream.broker import Output
from sunup.stream.kafka.clients import TRANSACTIONS, WRITER, Clients

_ABORT_SECONDS: Final = 1.0  # s to take back what failed; else whoever opens the same id does
_HEAR_SECONDS: Final = 1.5  # s until a reader has heard of its group's new generation; heartbeats are 1 s apart
_STEP_SECONDS: Final = 0.005  # s between looks at whether it has
_NOTHING: Final = object()


class Nullable(Serializer):  # type: ignore[misc]  # kafka-python has no types
    """`send` refuses a record with neither key nor value, which topics do hold and a dead letter may be."""

    def serialize(self, topic: str, headers: Any, data: Any) -> bytes | None:  # noqa: ARG002
        return None if data is _NOTHING else data


class Writer:
    """One producer. `transactional_id`: who it is; an older one of the same name is fenced, and what it left half done
    ended, when this returns. None: no transactions."""

    def __init__(self, clients: Clients, transactional_id: str | None) -> None:
        self.transactional_id = transactional_id
        more: Mapping[str, Any] = {} if transactional_id is None else TRANSACTIONS
        self.producer: Any = clients.open(
            KafkaProducer, transactional_id=transactional_id, value_serializer=Nullable(), **WRITER, **more
        )
        self._manager = self.producer._transaction_manager
        self._added: set[TopicPartition] = set()  # partitions of the transaction, of which the manager knows
        self._add = self._manager.maybe_add_partition_to_transaction
        self._manager.maybe_add_partition_to_transaction = self._add_once

    def begin(self) -> None:
        """Become the one of this name. Before anybody reads: what the last one committed moves positions."""
        until = time.monotonic() + STREAM_BROKER_SECONDS_MAX
        begun = self.transactional_id is None
        while not begun:
            try:
                self.producer.init_transactions()
                begun = True
            except errors.KafkaTimeoutError:  # it goes on waiting when it is called again
                if time.monotonic() >= until:
                    raise

    def write(self, outputs: Sequence[Output], until: float) -> None:
        """At least once: every record is acknowledged when this returns."""
        self._flush(self._send(outputs), until)

    def transact(
        self, outputs: Sequence[Output], positions: Mapping[TopicPartition, int], reader: Any, until: float
    ) -> None:
        """Both or nothing. A group that has another generation than the reader knew refuses: then once more with the
        new one, which is for the caller to have permitted."""
        offsets = {partition: OffsetAndMetadata(position, "", -1) for partition, position in positions.items()}
        while True:
            member = reader.group_metadata()
            try:
                return self._transact(outputs, offsets, member, until)
            except errors.CommitFailedError:
                heard_by = min(until, time.monotonic() + _HEAR_SECONDS)
                while reader.group_metadata().generation_id == member.generation_id:
                    if time.monotonic() >= heard_by:
                        raise
                    time.sleep(_STEP_SECONDS)
                if reader.group_metadata().generation_id < 0:
                    raise

    def _transact(
        self, outputs: Sequence[Output], offsets: Mapping[TopicPartition, Any], member: Any, until: float
    ) -> None:
        self._added.clear()
        self.producer.begin_transaction()
        try:
            sent = self._send(outputs)
            self._wait(self._manager.send_offsets_to_transaction(offsets, member), until)
            self._flush(sent, until)
            self._wait(self._manager.begin_commit(), until)
        except Exception as error:
            cause = self._manager.last_error or error  # often wrapped, in words only
            self._abort()
            raise cause from error

    def _abort(self) -> None:
        """Others that read the outputs need not wait until it is ended by the brokers."""
        try:
            self._wait(self._manager.begin_abort(), time.monotonic() + _ABORT_SECONDS)
        except errors.KafkaError:
            return  # fenced, or nobody answers: whoever opens the same id ends it, or the brokers after its time-out

    def _send(self, outputs: Sequence[Output]) -> list[Any]:
        send = self.producer.send
        return [
            send(topic, _NOTHING if value is None else value, key, headers if type(headers) is list else [*headers], to)
            for topic, key, value, headers, to in outputs
        ]

    def _add_once(self, partition: TopicPartition) -> None:
        """In place of the manager's, which takes its lock three times for every record: a tenth of what sending costs.
        What it would raise meanwhile is raised at the end of the transaction."""
        if partition not in self._added:
            self._add(partition)
            self._added.add(partition)

    def _flush(self, sent: Sequence[Any], until: float) -> None:
        if not sent:
            return
        self.producer.flush(timeout=max(0.0, until - time.monotonic()))
        for future in sent:
            if not future.succeeded():
                future.get(timeout=max(0.0, until - time.monotonic()))

    def _wait(self, result: Any, until: float) -> None:
        self.producer._sender.wakeup()
        if not result.wait(timeout_ms=max(0.0, until - time.monotonic()) * 1000):
            raise errors.KafkaTimeoutError("a transaction was not answered in time")
