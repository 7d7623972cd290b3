"""Apache Kafka as the broker of one stream, with confluent-kafka.

Exactly once: outputs and positions are one transaction, under a name that whoever replaces this reader takes over.
At least once: outputs are acknowledged by every in-sync replica before the position moves. A reader has a fixed name in
its group, so that the one that replaces it has its partitions at once; one that is closed leaves. Partitions change
hands only while a reader polls or keeps, when librdkafka calls `_assigned` and `_revoked`.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from sunup.limits import STREAM_BATCH_RECORDS_MAX, STREAM_BROKER_SECONDS_MAX
from sunup.stream.broker import Lag, Output, Reader, Record, Stream
from sunup.stream.kafka.confluent.clients import Clients, records_of
from sunup.stream.kafka.confluent.explained import FENCED, STALE, Refused, code_of, told
from sunup.stream.kafka.confluent.onlooker import LOOK_SECONDS, Onlooker
from sunup.stream.kafka.confluent.writer import TRIES_MAX, TRY_SECONDS, Writer
from sunup.stream.kafka.once.watchdog import Watchdog
from sunup.stream.kafka.security import OPEN, Security
from sunup.stream.kafka.words import Words

_log = logging.getLogger("sunup.stream")

_CLOSE_SECONDS: Final = 2.0  # s to leave the group, and s more for the rest
_MEET_SECONDS: Final = STREAM_BROKER_SECONDS_MAX / 4  # s for one question about a topic


class ConfluentBroker:
    """A reader in the stream's group and a writer of its outputs. `servers`: "host:port,host:port"."""

    def __init__(self, servers: str, stream: Stream, reader: Reader, security: Security = OPEN) -> None:
        self._words = Words(servers, stream)
        self._stream = stream
        self._who = reader
        self._clients = Clients(servers, stream, reader, security)
        self._onlooker = Onlooker(self._clients, stream)
        self._watchdog = Watchdog()
        self._reader: Any = None
        self._writer: Any = None  # set with the reader
        self._without: frozenset[int] = frozenset()
        self._mine: frozenset[int] = frozenset()
        self._seen: set[str] = set()  # topics that are there
        self._fatal: Refused | None = None
        self._heard = 0.0  # when the brokers last showed that they are there
        self._moved = 0.0  # when the reader last had records, or there were none to have
        self._polled: dict[int, int] = {}  # positions to commit
        self._lost = False  # a partition of them
        self._pending: list[Thread] = []  # calls that have not returned

    def join(self, index: int, count: int, without: Collection[int] = ()) -> None:  # noqa: ARG002 - the group shares partitions out
        before, self._without = self._without, frozenset(without)
        self._enter()
        with told(self._words):
            mine = [place for place in self._reader.assignment() if place.partition in before ^ self._without]
            self._reader.pause([place for place in mine if place.partition in self._without])
            self._reader.resume([place for place in mine if place.partition in before])

    def poll(self, seconds: float, records_max: int = STREAM_BATCH_RECORDS_MAX) -> Sequence[Record]:
        self._enter()
        with told(self._words):
            found = self._reader.consume(1, seconds)  # one: it would wait until there are as many as are wanted
            if found and records_max > 1:
                found += self._reader.consume(records_max - 1, 0)
            records = records_of(found)
            self._check()
            if records:
                self._heard = self._moved = time.monotonic()
                self._polled |= self._positions({record.partition for record in records})
            elif time.monotonic() >= self._heard + LOOK_SECONDS:
                self._look()
            return records

    def keep(self) -> None:
        self._enter()
        with told(self._words):
            self._reader.pause(self._reader.assignment())
            try:
                for early in records_of(self._reader.consume(1, 0)):  # none, as far as is known
                    self._reader.seek(TopicPartition(early.topic, early.partition, early.offset))
            finally:
                # What was assigned meanwhile is paused if it is to be.
                now = self._reader.assignment()
                self._reader.resume([place for place in now if place.partition not in self._without])
            self._check()

    def commit(self, outputs: Sequence[Output]) -> None:
        until = time.monotonic() + STREAM_BROKER_SECONDS_MAX
        self._enter()
        with told(self._words), self._watchdog.over("a commit"):
            self._check()
            topics = {output.topic for output in outputs}
            self._meet(topics)
            for topic in topics:
                self._writer.meet(topic, _MEET_SECONDS)
            positions = [TopicPartition(self._stream.input, each, at) for each, at in self._polled.items()]
            if self._who.exactly_once and (outputs or positions):
                self._writer.transact(outputs, positions, self._reader, until)
            elif not self._who.exactly_once:
                self._writer.write(outputs, until)
                self._move(positions, until)
        self._polled.clear()
        self._heard = time.monotonic()

    def lag(self) -> Mapping[int, Lag]:
        with told(self._words):
            return self._onlooker.lag()

    def reads(self) -> Collection[int]:
        return self._mine

    def close(self) -> None:
        """In a thread of its own, for librdkafka has waits without an end; what does not end stays behind."""
        clients = (self._reader, self._writer, self._pending)
        self._reader = self._writer = None
        self._polled, self._pending, self._mine = {}, [], frozenset()
        self._onlooker.close()
        self._watchdog.close()
        closing = Thread(target=_close, args=clients, name="kafka-close", daemon=True)
        closing.start()
        closing.join(2 * _CLOSE_SECONDS)

    # --- The group ----------------------------------------------------------------------------------------------------

    def _enter(self) -> None:
        """The writer first: the positions to begin at are those after whatever the last one of this name committed."""
        if self._reader is not None:
            return
        with told(self._words), self._watchdog.over("taking over from the last reader of this name"):
            self._writer = Writer(self._clients, self._erred)
            if self._who.exactly_once:
                try:
                    self._writer.begin(STREAM_BROKER_SECONDS_MAX / 2)
                except KafkaException:
                    self._clients.ask_why()
                    raise
            reader = self._reader = self._clients.reader(self._erred)
            self._meet({self._stream.input})
            for topic in (self._stream.output, self._stream.dead_letter):
                # Before it fetches: behind a fetch that waits, each would take 500 ms. What is wrong, `commit` says.
                with suppress(Refused):
                    self._meet({topic})
            calls = {"on_assign": self._assigned, "on_revoke": self._revoked, "on_lost": self._revoked}
            reader.subscribe([self._stream.input], **calls)
        self._moved = time.monotonic()
        self._heard = self._moved - 0.8 * LOOK_SECONDS  # is all well? a first look sooner

    def _meet(self, topics: set[str]) -> None:
        """See that topics are there. A producer would have a broker make them, which a consumer does not."""
        new = topics - self._seen
        for topic in sorted(new):
            error = self._reader.list_topics(topic, _MEET_SECONDS).topics[topic].error
            if error is not None:
                raise Refused(error, topic)
        self._seen |= new

    def _assigned(self, reader: Consumer, places: list[TopicPartition]) -> None:
        reader.incremental_assign(places)
        self._mine |= {place.partition for place in places}
        reader.pause([place for place in places if place.partition in self._without])
        # One that was paused when it was given up is paused still when it comes back.
        reader.resume([place for place in places if place.partition not in self._without])

    def _revoked(self, _: Consumer, places: list[TopicPartition]) -> None:
        self._mine -= {place.partition for place in places}
        self._lost = self._lost or any(place.partition in self._polled for place in places)

    def _erred(self, error: KafkaError) -> None:
        """Of the rest librdkafka gets over by itself, or calls fail with it."""
        if error.fatal():
            self._fatal = Refused(error)

    def _check(self) -> None:
        """Whether this object can still commit."""
        if self._fatal is not None:
            raise self._fatal
        if self._lost:
            raise self._words.fenced()

    # --- Records and positions ----------------------------------------------------------------------------------------

    def _positions(self, partitions: Collection[int]) -> dict[int, int]:
        """Behind the last record, and behind the markers of transactions that follow it."""
        asked = [TopicPartition(self._stream.input, number) for number in partitions]
        return {place.partition: place.offset for place in self._reader.position(asked) if place.offset >= 0}

    def _move(self, positions: list[TopicPartition], until: float) -> None:
        """Tried again while the group goes from one generation to the next, for the reason `Writer.transact` gives."""
        for attempt in range(TRIES_MAX if positions else 0):
            try:
                self._move_once(positions, until)
            except KafkaException as error:
                if code_of(error) not in STALE or attempt == TRIES_MAX - 1 or time.monotonic() > until:
                    raise
                time.sleep(TRY_SECONDS * 2**attempt)
            else:
                return

    def _move_once(self, positions: list[TopicPartition], until: float) -> None:
        """In a thread: it takes no time-out, and without a broker may take minutes."""
        ended: list[BaseException | None] = []

        def commit(reader: Any) -> None:
            try:
                reader.commit(offsets=positions, asynchronous=False)
            except BaseException as error:
                ended.append(error)
            else:
                ended.append(None)

        thread = Thread(target=commit, args=(self._reader,), name="kafka-commit", daemon=True)
        thread.start()
        thread.join(max(0.0, until - time.monotonic()))
        if not ended:
            self._pending.append(thread)
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "positions were not committed in time"))
        if ended[0] is not None:
            raise ended[0]

    def _look(self) -> None:
        """Nothing came for a while: are the brokers there, and is it the reader that does not read?

        Also commits positions that have passed the markers of transactions, which would look like records left to read.
        """
        lag = self._onlooker.lag()
        now = self._heard = time.monotonic()
        mine = self._mine - self._without
        here = {each: at for each, at in self._positions(mine).items() if each in lag}
        if all(here.get(each, lag[each].position) >= lag[each].end for each in mine if each in lag):
            self._moved = now
        elif now > self._moved + STREAM_BROKER_SECONDS_MAX:
            raise self._words.waiting()
        passed = {each: at for each, at in here.items() if at > lag[each].position}
        if passed and not self._polled:
            try:
                places = [TopicPartition(self._stream.input, each, at) for each, at in passed.items()]
                self._move(places, now + STREAM_BROKER_SECONDS_MAX / 2)
            except KafkaException as error:
                if code_of(error) not in FENCED:  # else they are somebody else's now
                    raise


def _close(reader: Any, writer: Any, pending: Sequence[Thread]) -> None:
    """Each in turn, for each may raise when its broker is away."""
    for thread in pending:
        thread.join()  # what it uses must not go before it ends
    steps: list[Callable[[], None]] = []
    if writer is not None:
        steps.append(writer.close)  # first: who reads on waits for the end of a transaction
    if reader is not None:
        steps += [partial(_leave, reader), reader.close]
    for step in steps:
        try:
            step()
        except Exception:
            _log.debug("while closing", exc_info=True)


def _leave(reader: Any) -> None:
    """`close` alone leaves no group: whoever has a fixed name is expected back until its session ends."""
    until = time.monotonic() + _CLOSE_SECONDS
    reader.unsubscribe()
    while reader.memberid() and time.monotonic() < until:
        reader.consume(1, 0.01)  # calls `_revoked`, and then the leaving is on its way
