"""Which broker an address means."""

from pathlib import Path

from sunup.settings import EMBEDDED
from sunup.stream.broker import Broker, Stream
from sunup.stream.embedded import EmbeddedBroker


def open_broker(url: str, stream: Stream, log: Path) -> Broker:
    """The broker at `url`: "embedded" for the log in the file `log`, else Kafka's "host:port,host:port"."""
    if url == EMBEDDED:
        return EmbeddedBroker(log, stream)
    from sunup.stream.kafka import KafkaBroker  # its client costs tens of ms to import

    return KafkaBroker(url, stream)
