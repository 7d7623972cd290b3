"""kafka-python's clients, as a stream needs them."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.net.compat import KafkaNetClient

from sunup.limits import STREAM_BATCH_BYTES_MAX, STREAM_BATCH_RECORDS_MAX, STREAM_BROKER_SECONDS_MAX

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
    "partition_assignment_strategy": (RangePartitionAssignor,),
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


class Clients:
    """Makes them. `servers`: "host:port,host:port". `secure`: kafka-python's settings of how to be let in."""

    def __init__(self, servers: str, name: str, secure: Mapping[str, Any] | None = None) -> None:
        self._whose = {"bootstrap_servers": servers, "client_id": name, **(secure or {})}

    def open(self, make: Callable[..., Any], **settings: Any) -> Any:
        """One of kafka-python's clients, whose threads and sockets are let go if it cannot be made."""
        opened: list[Any] = []

        def client(**configs: Any) -> Any:
            opened.append(KafkaNetClient(**configs))
            # Given to the clients, neither gets as far as this; and each joining of a group waits for the second.
            opened[0].cluster.config |= {"allow_auto_create_topics": False, "retry_backoff_ms": 10}
            return opened[0]

        try:
            return make(kafka_client=client, **self._whose, **_CONNECTION, **settings)
        except BaseException:
            for one in opened:
                one.close()
            raise
