"""Feature views of a stream under faults: all that tests/exactly_once does to it, and more to compare at the end."""

from collections.abc import Callable, Iterable

from tests.exactly_once.chaos import CHUNK, Chaos, Plan
from tests.kafka_fixture import KafkaServer
from tests.streaming.differences import Differences, Expected
from tests.streaming.events import Events
from tests.streaming.function import Streaming
from tests.topics import Entry

ONLINE_SECONDS_MAX = 30.0  # from the last record's being read until every value is that of its hop


class StreamingChaos(Chaos):
    """`events`: what is written, in this order."""

    def __init__(self, streaming: Streaming, events: Events, plan: Plan, server: KafkaServer | None = None) -> None:
        super().__init__(streaming, plan, server)
        self._streaming = streaming
        self._events = events
        self.expected: Expected | None = None  # of the topic, once everything is written and read

    def _deploy(self, factor: float) -> None:
        if self._factors:  # of the one before there is something to see
            self._wait(lambda: self._scored.facts["scored"] > 0, "a score of the first revision")
        super()._deploy(factor - 1.0)  # the first one is 1: doubling is exact

    def _write(self, send: Callable[[Iterable[Entry]], None], numbers: range) -> None:
        for start in range(numbers.start, numbers.stop, CHUNK):
            written = self._events.entries(range(start, min(start + CHUNK, numbers.stop)))
            send(written)
            self._streaming.sent += len(written)

    def _judge(self) -> None:
        found = Differences()
        self.expected = Expected(self._streaming)
        self.outcome.revisions = self.expected.judge_scores(self._factors, found)
        self.expected.judge_online(found, ONLINE_SECONDS_MAX)
        self.expected.judge_sdk(found)
        self.outcome.letters = len(self.expected.frame) - sum(self.outcome.revisions.values())
        self.outcome.faults = found
