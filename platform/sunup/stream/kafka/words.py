"""What keeps a stream from going on, in words that say what to do about it. For every client of Kafka."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from sunup.stream.broker import BrokerError, Stream, Trouble


class Words(NamedTuple):
    """The errors of one stream at `servers`, "host:port,host:port"."""

    servers: str
    stream: Stream

    def missing(self, topic: str) -> BrokerError:
        create = f"kafka-topics.sh --bootstrap-server {self.servers} --create --topic {topic} --partitions 4"
        what = f"topic {topic} does not exist at {self.servers}; create it, for example: {create}"
        return BrokerError(Trouble.TOPIC_MISSING, what)

    def not_permitted(
        self, topics: Iterable[str] = (), *, group: bool = False, transactions: bool = False
    ) -> BrokerError:
        """The permission that is missing. Producers need WRITE only, since Kafka 3.0 also to be idempotent."""
        stream = self.stream
        grant = ", ".join(f"{'READ' if t == stream.input else 'WRITE'} on topic {t}" for t in sorted(topics))
        if group:
            grant = f"READ on group {stream.group}"
        if transactions:
            grant = f"WRITE and DESCRIBE on transactional ids that begin with {stream.group}-"
        grant = grant or f"WRITE on topics {stream.output} and {stream.dead_letter}"
        return BrokerError(Trouble.NOT_PERMITTED, f"not permitted at {self.servers}: grant {grant}")

    def fenced(self, *, mixed: bool = False) -> BrokerError:
        """`mixed`: by readers who share partitions out in another way."""
        what = f"others of {self.stream.group} read the partitions now"
        if mixed:
            what = f"readers with another client are still in {self.stream.group}; this one waits until they have left"
        return BrokerError(Trouble.FENCED, what)

    def too_large(self) -> BrokerError:
        topics = f"{self.stream.output} and {self.stream.dead_letter}"
        what = f"a record is too large at {self.servers}: raise max.message.bytes of {topics}"
        return BrokerError(Trouble.FAILED, what)

    def unreachable(self, error: object) -> BrokerError:
        return BrokerError(Trouble.UNREACHABLE, f"no broker answers at {self.servers}: {error}")

    def waiting(self) -> BrokerError:
        what = f"records of {self.stream.input} wait at {self.servers}; none arrive"
        return BrokerError(Trouble.FAILED, what)

    def held_up(self, partition: int, offset: int, seconds: float) -> BrokerError:
        """Somebody's transaction on the input was never ended: who reads committed records stops there."""
        what = (
            f"{self.stream.input}-{partition} cannot be read from offset {offset} on: a transaction that was never "
            f"ended holds it up, for {seconds:.0f} s now. Its producer ends it when it comes back; to end it by hand: "
            f"kafka-transactions.sh --bootstrap-server {self.servers} abort --topic {self.stream.input} "
            f"--partition {partition} --start-offset {offset}"
        )
        return BrokerError(Trouble.FAILED, what)

    def failed(self, error: object) -> BrokerError:
        return BrokerError(Trouble.FAILED, f"the broker at {self.servers} or its client failed: {error}")


@contextmanager
def telling(words: Words, explained: Callable[[Exception, Words], BrokerError]) -> Iterator[None]:
    """Raises BrokerError and nothing else. `explained`: what a client's exception means."""
    try:
        yield
    except BrokerError:
        raise
    except Exception as error:
        raise explained(error, words) from error
