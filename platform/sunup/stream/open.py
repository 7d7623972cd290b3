"""Which broker the settings of a revision mean."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sunup.settings import EMBEDDED, STREAM_BROKER
from sunup.stream.broker import Broker, Reader, Stream
from sunup.stream.embedded import EmbeddedBroker

ONLOOKER: Final = Reader("onlooker", exactly_once=False)  # for those who ask for the lag only


def open_broker(settings: Mapping[str, str], stream: Stream, log: Path, reader: Reader = ONLOOKER) -> Broker:
    """The broker at settings[STREAM_BROKER]: EMBEDDED for the log in the file `log`, else Kafka's "host:port,...".

    `settings`: a revision's; those that begin with "stream_" say how to speak to it.
    """
    url = settings[STREAM_BROKER]
    if url == EMBEDDED:
        return EmbeddedBroker(log, stream)
    from sunup.stream.kafka.python import KafkaBroker  # its client costs tens of ms to import

    return KafkaBroker(url, stream, reader)
