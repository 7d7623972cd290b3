"""Apache Kafka as the broker of one stream, with kafka-python.

Exactly once: outputs and positions are one transaction, under a name that whoever replaces this reader takes over, and
reading is `read_committed`. At least once: outputs are acknowledged by every in-sync replica before the position moves,
so a crash in between writes them again. The group shares partitions out only while a reader polls: what was polled is
committed before the next poll, so that a rebalance finds nothing half done.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import Any, Final

from kafka import KafkaConsumer, errors
from kafka.structs import OffsetAndMetadata, TopicPartition

from sunup.limits import STREAM_BATCH_RECORDS_MAX, STREAM_BROKER_SECONDS_MAX
from sunup.stream.broker import Lag, Output, Reader, Record, Stream
from sunup.stream.kafka.clients import READER, Clients, records_of
from sunup.stream.kafka.explained import FENCED, told
from sunup.stream.kafka.once.membership import Membership
from sunup.stream.kafka.once.watchdog import Watchdog
from sunup.stream.kafka.once.writer import Writer
from sunup.stream.kafka.onlooker import LOOK_SECONDS, Onlooker
from sunup.stream.kafka.security import OPEN, Security
from sunup.stream.kafka.words import Words

_log = logging.getLogger("sunup.stream")

_CLOSE_SECONDS: Final = 2.0  # s to leave the group; without it the others wait for the session's end


class KafkaBroker:
    """A reader in the stream's group and a writer of its outputs. `servers`: "host:port,host:port"."""

    def __init__(self, servers: str, stream: Stream, reader: Reader, security: Security = OPEN) -> None:
        self._words = Words(servers, stream)
        self._stream = stream
        self._who = reader
        self._clients = Clients(servers, f"sunup-{stream.group}-{reader.name}", security)
        self._onlooker = Onlooker(self._clients, stream, self._words)
        self._watchdog = Watchdog()
        self._reader: Any = None
        self._member: Any = None  # set with the reader
        self._writer: Any = None  # and so is this
        self._without: frozenset[int] = frozenset()
        self._heard = 0.0  # when the brokers last showed that they are there
        self._moved = 0.0  # when the reader last had records, or there were none to have
        self._polled: dict[TopicPartition, int] = {}  # positions to commit

    def join(self, index: int, count: int, without: Collection[int] = ()) -> None:  # noqa: ARG002 - the group shares partitions out
        self._without = frozenset(without)
        self._enter()
        with told(self._words):
            self._member.without(self._without)

    def poll(self, seconds: float, records_max: int = STREAM_BATCH_RECORDS_MAX) -> Sequence[Record]:
        self._enter()
        until = time.monotonic() + seconds
        with told(self._words):
            try:
                found = self._member.poll(seconds, records_max, self._polled)
            except errors.RetriableError:  # a broker that is away; `_look` says so if it stays away
                found = {}
                time.sleep(max(0.0, until - time.monotonic()))
            if found:
                fetcher = self._reader._fetcher
                if not fetcher.in_flight_fetches():  # kafka-python fetches on by itself only if it had not to wait
                    fetcher.send_fetches()
                self._heard = self._moved = time.monotonic()
                self._polled |= {partition: self._reader.position(partition) for partition in found}
            elif time.monotonic() >= self._heard + LOOK_SECONDS:
                self._look()
            return [record for partition, records in found.items() for record in records_of(partition, records)]

    def keep(self) -> None:
        self._enter()
        with told(self._words):
            self._member.keep()
            if self._polled:
                self._member.check()

    def commit(self, outputs: Sequence[Output]) -> None:
        until = time.monotonic() + STREAM_BROKER_SECONDS_MAX
        self._enter()
        with told(self._words), self._watchdog.over("a commit"):
            try:
                if self._who.exactly_once:
                    self._transact(outputs, until)
                else:
                    self._writer.write(outputs, until)
                    self._move(self._polled, until)
            except errors.KafkaTimeoutError:
                if time.monotonic() < until - STREAM_BROKER_SECONDS_MAX / 2:  # it may be a topic that is missing
                    self.lag()
                raise
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
        leaving = None if self._member is None else partial(self._member.leave, self._clients)
        clients = (leaving, self._reader, self._writer, self._onlooker.take())
        self._reader = self._member = self._writer = None
        self._polled = {}
        self._watchdog.close()
        closing = Thread(target=_close, args=clients, name="kafka-close", daemon=True)
        closing.start()
        closing.join(2 * _CLOSE_SECONDS)

    def _enter(self) -> None:
        """The writer first: the positions to begin at are those after whatever the last one of this name committed."""
        if self._member is not None:
            return
        who, group = self._who, self._stream.group
        with told(self._words), self._watchdog.over("taking over from the last reader of this name"):
            if self._writer is None:
                self._writer = Writer(self._clients, f"{group}-{who.name}" if who.exactly_once else None)
            self._writer.begin()
            self._reader = self._clients.open(KafkaConsumer, group_id=group, group_instance_id=who.name, **READER)
            self._member = Membership(self._reader)
            self._member.without(self._without)
            self._member.join(self._stream.input)
        self._moved = time.monotonic()
        self._heard = self._moved - 0.8 * LOOK_SECONDS  # is the topic there at all? a first look sooner

    def _transact(self, outputs: Sequence[Output], until: float) -> None:
        if self._polled:
            self._member.check()
        if outputs or self._polled:
            self._writer.transact(outputs, self._polled, self._reader, until)

    def _move(self, positions: Mapping[TopicPartition, int], until: float) -> None:
        if positions:
            self._member.settle(until)
            offsets = {partition: OffsetAndMetadata(position, "", -1) for partition, position in positions.items()}
            self._reader.commit(offsets, timeout_ms=max(0.0, until - time.monotonic()) * 1000)

    def _look(self) -> None:
        """Nothing came for a while: are the brokers there, and is it the reader that does not read?

        Also commits positions that have passed the markers of transactions, which would look like records left to read.
        """
        lag = self.lag()
        now = self._heard = time.monotonic()
        mine = [each for each in self._reader.assignment() if each.partition not in self._without]
        here = {each: self._reader.position(each, timeout_ms=0) for each in mine}
        here = {each: at for each, at in here.items() if at is not None and each.partition in lag}
        if all(at >= lag[each.partition].end for each, at in here.items()):
            self._moved = now
        elif now > self._moved + STREAM_BROKER_SECONDS_MAX:
            raise self._words.waiting()
        if not self._polled and not self._member.is_joining:
            passed = {each: at for each, at in here.items() if at > lag[each.partition].position}
            with suppress(*FENCED):  # then they are somebody else's now
                self._move(passed, now + STREAM_BROKER_SECONDS_MAX / 2)


def _close(leave: Callable[[], None] | None, reader: Any, writer: Any, others: Sequence[Any]) -> None:
    """Each in turn, for each may raise when its broker is away."""
    steps: list[Callable[[], None]] = [] if leave is None else [leave]
    if reader is not None:
        steps.append(partial(reader.close, autocommit=False, timeout_ms=_CLOSE_SECONDS * 1000))
    if writer is not None:
        # The first raises, and closes nothing, while there is something unsent. It must not be written later on.
        closing = partial(writer.producer.close, _CLOSE_SECONDS / 2)
        steps += [closing, writer.producer._sender.force_close, closing]
    steps += [client.close for client in others]
    for step in steps:
        try:
            step()
        except Exception:
            _log.debug("while closing", exc_info=True)
