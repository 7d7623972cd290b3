"""kafka-python's clients, as a stream needs them."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from kafka import errors
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.net.compat import KafkaNetClient
from kafka.structs import TopicPartition

from sunup.limits import STREAM_BATCH_BYTES_MAX, STREAM_BATCH_RECORDS_MAX, STREAM_BROKER_SECONDS_MAX
from sunup.stream.broker import Record
from sunup.stream.kafka.knock import knock
from sunup.stream.kafka.security import OPEN, Security, for_kafka_python


class Sharing(CooperativeStickyAssignor):  # type: ignore[misc]  # kafka-python has no types
    """By another name than librdkafka's: a broker lets nobody into a group who shares partitions out in another way, so
    that no group ever mixes clients."""

    name = "cooperative-sticky-kafka-python"


MS: Final = int(STREAM_BROKER_SECONDS_MAX * 1000)
_CONNECTION: Final = {
    "request_timeout_ms": MS // 2,
    "bootstrap_timeout_ms": MS // 2,
    "retry_backoff_ms": 10,  # the default of 100 ms is most of what joining a group costs
    "metadata_max_age_ms": 60_000,  # until partitions that were added to a topic are read
    "reconnect_backoff_max_ms": 1000,  # by default a broker that is back may be noticed 30 s later
}
READER: Final = {
    "enable_auto_commit": False,
    "isolation_level": "read_committed",
    "auto_offset_reset": "earliest",
    "partition_assignment_strategy": (Sharing,),
    "session_timeout_ms": 6000,
    "heartbeat_interval_ms": 1000,
    "max_poll_interval_ms": 120_000,  # more than all the bounds of one batch together
    "max_poll_records": STREAM_BATCH_RECORDS_MAX,
    "fetch_max_bytes": STREAM_BATCH_BYTES_MAX,
    "metrics_enabled": False,
}
WRITER: Final = {
    "acks": "all",
    "enable_idempotence": True,
    "delivery_timeout_ms": MS,
    "max_block_ms": MS // 4,
    "max_request_size": STREAM_BATCH_BYTES_MAX,  # how large a record may be is the topic's affair
    "batch_size": 128 * 1024,
    "linger_ms": 100,  # a commit flushes, which ends it: few and large requests
    "metrics_enabled": False,
}
TRANSACTIONS: Final = {
    "transaction_timeout_ms": 10_000,  # then the brokers end what nobody came back for
    "retry_backoff_ms": 2,  # one that follows the last at once is refused once or twice; 100 ms by default
}


class Clients:
    """Makes them. `servers`: "host:port,host:port"; `security`: how they let us in."""

    def __init__(self, servers: str, name: str, security: Security = OPEN) -> None:
        self._servers = servers
        self._whose = {"bootstrap_servers": servers, "client_id": name}
        self._security = security
        self._let_in = security == OPEN  # whoever wants neither TLS nor SASL is asked only where a client failed

    def open(self, make: Callable[..., Any], **settings: Any) -> Any:
        """One of kafka-python's clients, whose threads and sockets are let go if it cannot be made."""
        if not self._let_in:
            knock(self._servers, self._security)
            self._let_in = True
        secure = for_kafka_python(self._security)
        opened: list[Any] = []

        def client(**configs: Any) -> Any:
            opened.append(KafkaNetClient(**configs))
            # Given to the clients, neither gets as far as this; and each joining of a group waits for the second.
            opened[0].cluster.config |= {"allow_auto_create_topics": False, "retry_backoff_ms": 10}
            return opened[0]

        try:
            return make(kafka_client=client, **(_CONNECTION | self._whose | secure | settings))
        except BaseException as error:
            for one in opened:
                one.close()
            if isinstance(error, errors.KafkaTimeoutError):  # all that it says of a broker that wants TLS or SASL
                knock(self._servers, self._security)
            raise


def records_of(partition: TopicPartition, records: Sequence[Any]) -> list[Record]:
    """What a consumer has polled of one partition."""
    topic, number = partition
    return [
        Record(
            topic,
            number,
            each.offset,
            each.key,
            each.value,
            [(name, value or b"") for name, value in each.headers] if each.headers else [],
            each.timestamp / 1000,
        )
        for each in records
    ]
