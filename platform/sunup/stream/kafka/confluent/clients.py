"""librdkafka's settings, as a stream needs them. Sizes in bytes unless the name says otherwise, times in ms."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from sunup.limits import STREAM_BATCH_BYTES_MAX, STREAM_BROKER_SECONDS_MAX
from sunup.stream.broker import Reader, Record, Stream
from sunup.stream.kafka.confluent.explained import AWAY, Refused
from sunup.stream.kafka.knock import knock
from sunup.stream.kafka.security import OPEN, Security, for_confluent

_MS: Final = int(STREAM_BROKER_SECONDS_MAX * 1000)
_CONNECTION: Final = {
    "socket.timeout.ms": _MS // 2,
    "socket.connection.setup.timeout.ms": _MS // 2,
    "socket.nagle.disable": True,
    # With the default of 100 ms every transaction takes that long: the one before it is not quite done.
    "retry.backoff.ms": 2,
    "retry.backoff.max.ms": 100,
    "reconnect.backoff.ms": 10,
    "reconnect.backoff.max.ms": 1000,  # by default a broker that is back may be noticed 10 s later
    "topic.metadata.refresh.interval.ms": 60_000,  # until partitions that were added to a topic are read
    # By default librdkafka forgets, when no broker answered, what it knew of them; transactions then wait for ever.
    "metadata.recovery.strategy": "none",
    "log_level": 2,  # what matters is told by errors; the rest is a line for each attempt to reconnect
}
_READER: Final = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "isolation.level": "read_committed",
    "auto.offset.reset": "earliest",
    # Readers that come and go stop nobody else; one that is back under its name has its partitions again at once.
    "partition.assignment.strategy": "cooperative-sticky",
    # With a short one a broker that was away takes a member of fixed name for two, and both end.
    "session.timeout.ms": 30_000,
    "heartbeat.interval.ms": 500,  # how soon a reader hears that another one came
    "max.poll.interval.ms": 120_000,  # more than all the bounds of one batch together
    # What is fetched ahead, and so a batch: less than the one, and what comes of one fetch.
    "queued.max.messages.kbytes": STREAM_BATCH_BYTES_MAX // 4 // 1024,
    "fetch.max.bytes": STREAM_BATCH_BYTES_MAX // 2,
    "fetch.queue.backoff.ms": 50,  # by default a queue that was full is not filled for a second
    "fetch.error.backoff.ms": 50,
}
_WRITER: Final = {
    "enable.idempotence": True,
    "acks": "all",
    "compression.type": "none",
    "partitioner": "murmur2_random",  # as every other client of Kafka: a key stays where it was
    "message.max.bytes": STREAM_BATCH_BYTES_MAX,  # how large a record may be is the topic's affair
    "linger.ms": 5,  # a commit flushes, which ends it: few and large requests
    "message.timeout.ms": _MS,
    "delivery.report.only.error": True,
}
_TRANSACTIONS: Final = {"transaction.timeout.ms": _MS}  # then the brokers end what nobody came back for

Told = Callable[[Any], None]


class Clients:
    """Makes them; none is connected before it is asked something. `security`: how the brokers let us in."""

    def __init__(self, servers: str, stream: Stream, reader: Reader, security: Security = OPEN) -> None:
        self._servers = servers
        self._stream = stream
        self._who = reader
        self._security = security
        self._let_in = security == OPEN  # whoever wants neither TLS nor SASL is not asked

    def reader(self, on_error: Told) -> Consumer:
        """In the stream's group, under the reader's name, once it subscribes."""
        whose = {"group.id": self._stream.group, "group.instance.id": self._who.name}
        return Consumer({**self._common(), **_READER, **whose, "error_cb": on_error}, logger=_silent())

    def writer(self, on_error: Told, on_delivery: Callable[[Any, Any], None]) -> Producer:
        """Transactional, if that is what the reader is. `on_delivery`: told of failures only."""
        settings = {**self._common(), **_WRITER, "error_cb": on_error, "on_delivery": on_delivery}
        if self._who.exactly_once:
            settings |= {**_TRANSACTIONS, "transactional.id": f"{self._stream.group}-{self._who.name}"}
        return Producer(settings, logger=_silent())

    def looker(self) -> Consumer:
        """In no group, once it is assigned something. Tells where a partition ends."""
        # A fetch behind the end holds up the next partition's: by default for 500 ms.
        whose = {"group.id": self._who.name, "enable.partition.eof": True, "fetch.wait.max.ms": 20}
        return Consumer({**self._common(), **_READER, **whose}, logger=_silent())

    def admin(self) -> AdminClient:
        """For whoever only looks."""
        return AdminClient(self._common(), logger=_silent())

    def ask_why(self) -> None:
        """Nobody answers a client that wants neither TLS nor SASL. Raises BrokerError where a broker wants one."""
        if self._security == OPEN:
            knock(self._servers, OPEN)

    def _common(self) -> dict[str, Any]:
        """Raises BrokerError where we are not let in; librdkafka would try for ever."""
        if not self._let_in:
            knock(self._servers, self._security)
            self._let_in = True
        name = f"sunup-{self._stream.group}-{self._who.name}"
        whose = {"bootstrap.servers": self._servers, "client.id": name}
        return {**whose, **_CONNECTION, **for_confluent(self._security)}


def records_of(found: Sequence[Any]) -> list[Record]:
    """What a consumer gave. The 7 calls are 0.3 us of the 5 or so that a record takes. Raises Refused for an error that
    does not pass by itself."""
    records = []
    for each in found:
        if (error := each.error()) is not None:
            if error.fatal() or not (error.retriable() or error.code() in AWAY):
                raise Refused(error, *filter(None, [each.topic()]))
            continue
        place = (each.topic(), each.partition(), each.offset())
        headers = each.headers()
        given = [(name, value or b"") for name, value in headers] if headers else []
        records.append(Record(*place, each.key(), each.value(), given, each.timestamp()[1] / 1000))
    return records


def _silent() -> logging.Logger:
    """Without one, librdkafka writes to standard error."""
    return logging.getLogger("sunup.stream.librdkafka")
