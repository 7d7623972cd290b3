"""Which broker the settings of a revision mean."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from sunup.settings import CONFLUENT, EMBEDDED, STREAM_BROKER, STREAM_CLIENT
from sunup.stream.admin import Admin
from sunup.stream.broker import Broker, BrokerError, Reader, Stream, Trouble, Watch
from sunup.stream.embedded import EmbeddedBroker, EmbeddedWatch
from sunup.stream.embedded_admin import EmbeddedAdmin

ONLOOKER: Final = Reader("onlooker", exactly_once=False)  # for those who ask for the lag only


def open_broker(settings: Mapping[str, str], stream: Stream, log: Path, reader: Reader = ONLOOKER) -> Broker:
    """The broker at settings[STREAM_BROKER]: EMBEDDED for the log in the file `log`, else Kafka's "host:port,...".

    `settings`: a revision's; those that begin with "stream_" say how to speak to it.
    """
    url = settings[STREAM_BROKER]
    if url == EMBEDDED:
        return EmbeddedBroker(log, stream, reader)
    if settings.get(STREAM_CLIENT) == CONFLUENT:
        return _confluent(settings, stream, reader)
    from sunup.stream.kafka.python import KafkaBroker  # its client costs tens of ms to import
    from sunup.stream.kafka.security import security  # ssl: the same

    return KafkaBroker(url, stream, reader, security(settings))


def open_watch(settings: Mapping[str, str], log: Path) -> Watch:
    """Who looks at the lag of streams of that broker."""
    url = settings[STREAM_BROKER]
    if url == EMBEDDED:
        return EmbeddedWatch(log)
    from sunup.stream.kafka.onlooker import KafkaWatch  # its client costs tens of ms to import
    from sunup.stream.kafka.security import security  # ssl: the same

    return KafkaWatch(url, security(settings))


def open_admin(settings: Mapping[str, str], log: Path) -> Admin:
    """What people do to the topics of a revision from outside, at the broker that `open_broker` would open."""
    url = settings[STREAM_BROKER]
    if url == EMBEDDED:
        return EmbeddedAdmin(log)
    from sunup.stream.kafka.security import security  # ssl: the same

    if settings.get(STREAM_CLIENT) == CONFLUENT:
        with suppress(ImportError):  # this machine may have less than the one that reads: the other client will do
            from sunup.stream.kafka.confluent.admin import ConfluentAdmin  # the same

            return ConfluentAdmin(url, security(settings))
    from sunup.stream.kafka.admin import KafkaAdmin  # its client costs tens of ms to import

    return KafkaAdmin(url, security(settings))


def _confluent(settings: Mapping[str, str], stream: Stream, reader: Reader) -> Broker:
    try:
        from sunup.stream.kafka.confluent.broker import ConfluentBroker  # its client costs tens of ms to import
        from sunup.stream.kafka.security import security  # ssl: the same
    except ImportError as error:
        what = f"this revision reads Kafka with {CONFLUENT}, and that cannot be imported ({error})"
        raise BrokerError(Trouble.FAILED, f"{what}: install sunup[kafka-fast], or deploy again") from error
    return ConfluentBroker(settings[STREAM_BROKER], stream, reader, security(settings))
