"""Errors of kafka-python as BrokerErrors."""

from contextlib import AbstractContextManager
from typing import Final

from kafka import errors

from sunup.stream.broker import BrokerError
from sunup.stream.kafka.words import Words, telling

FENCED: Final = (
    errors.CommitFailedError,
    errors.RebalanceInProgressError,
    errors.IllegalGenerationError,
    errors.UnknownMemberIdError,
    errors.FencedInstanceIdError,
    errors.ProducerFencedError,
    errors.InvalidProducerEpochError,
)


def told(words: Words) -> AbstractContextManager[None]:
    """Raises BrokerError and nothing else. kafka-python raises others than its own too: RuntimeError, KeyError."""
    return telling(words, explained)


def explained(error: Exception, words: Words) -> BrokerError:
    """Whatever the client raised, as what a person can do about it."""
    if isinstance(error, errors.AuthorizationError):
        return _not_permitted(error, words)
    if isinstance(error, (*FENCED, errors.InconsistentGroupProtocolError)):
        return words.fenced(mixed=not isinstance(error, FENCED))
    if isinstance(error, errors.InvalidTopicError | errors.UnknownTopicOrPartitionError):
        return words.missing(str(error.args[0]) if error.args else words.stream.input)
    if isinstance(error, errors.MessageSizeTooLargeError | errors.RecordListTooLargeError):
        return words.too_large()
    unanswered = isinstance(error, errors.RetriableError) and not isinstance(error, errors.BrokerResponseError)
    if unanswered or isinstance(error, OSError | errors.RequestTimedOutError):
        return words.unreachable(error)
    return words.failed(f"{type(error).__name__}: {error}")


def _not_permitted(error: errors.AuthorizationError, words: Words) -> BrokerError:
    if isinstance(error, errors.GroupAuthorizationFailedError):
        return words.not_permitted(group=True)
    if isinstance(error, errors.TopicAuthorizationFailedError) and error.args:
        return words.not_permitted(error.args[0] if isinstance(error.args[0], set | list | tuple) else [error.args[0]])
    return words.not_permitted(transactions=isinstance(error, errors.TransactionalIdAuthorizationFailedError))
