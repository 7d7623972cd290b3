"""Errors of confluent-kafka as BrokerErrors."""

from contextlib import AbstractContextManager
from typing import Final

from confluent_kafka import KafkaError, KafkaException

from sunup.stream.broker import BrokerError
from sunup.stream.kafka.words import Words, telling

STALE: Final = frozenset({KafkaError.ILLEGAL_GENERATION, KafkaError.REBALANCE_IN_PROGRESS})
FENCED: Final = STALE | {
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError._FENCED,
    KafkaError._ASSIGNMENT_LOST,
    KafkaError._MAX_POLL_EXCEEDED,
}
_MISSING: Final = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_EXCEPTION, KafkaError._UNKNOWN_TOPIC}
    | {KafkaError._UNKNOWN_PARTITION}
)
_NOT_PERMITTED: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
_TOO_LARGE: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
AWAY: Final = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._MSG_TIMED_OUT,
        KafkaError._WAIT_COORD,
        KafkaError.REQUEST_TIMED_OUT,
    }
)


class Refused(Exception):
    """`error`, and the topics it is about, where they are known."""

    def __init__(self, error: KafkaError, *topics: str) -> None:
        super().__init__(error.str())
        self.error = error
        self.topics = topics


def told(words: Words) -> AbstractContextManager[None]:
    """Raises BrokerError and nothing else."""
    return telling(words, explained)


def code_of(error: Exception) -> int:
    """librdkafka's code; 0 of what is no error of it."""
    found = _found(error)
    return 0 if found is None else found.code()


def explained(error: Exception, words: Words) -> BrokerError:
    """Whatever the client raised, as what a person can do about it."""
    found = _found(error)
    if found is None:
        return words.failed(f"{type(error).__name__}: {error}")
    code, topics = found.code(), error.topics if isinstance(error, Refused) else ()
    if code in _NOT_PERMITTED:
        group = code == KafkaError.GROUP_AUTHORIZATION_FAILED
        transactions = code == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        return words.not_permitted(topics, group=group, transactions=transactions)
    if code in _MISSING:
        return words.missing(topics[0] if topics else words.stream.input)
    if code in AWAY:
        return words.unreachable(found.str())
    mixed = code == KafkaError.INCONSISTENT_GROUP_PROTOCOL
    if mixed or code in FENCED:
        return words.fenced(mixed=mixed)
    return words.too_large() if code in _TOO_LARGE else words.failed(f"{found.name()}: {found.str()}")


def _found(error: Exception) -> KafkaError | None:
    if isinstance(error, Refused):
        return error.error
    first = error.args[0] if isinstance(error, KafkaException) and error.args else None
    return first if isinstance(first, KafkaError) else None
