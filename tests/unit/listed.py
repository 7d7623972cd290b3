"""A broker of lists, for tests of the stream loop: it fails, or does something else, where it is told to."""

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sunup import limits
from sunup.stream.broker import Headers, Lag, Output, Record, Stream

STREAM = Stream("fraud-group", "payments", "scores", "rejects")
STEPS = ("open", "join", "poll", "polled", "commit", "committed", "close")  # where a broker may fail


@dataclass
class Topics:
    """What outlives a broker object: the input by partition, the group's positions, everything written."""

    records: dict[int, list[Record]] = field(default_factory=dict)
    positions: dict[int, int] = field(default_factory=dict)
    written: list[Output] = field(default_factory=list)
    wall: float = 0.0  # when records are written, seconds since the epoch

    def add(self, value: bytes | None, *, partition: int = 0, key: bytes | None = None, headers: Headers = ()) -> None:
        held = self.records.setdefault(partition, [])
        held.append(Record(STREAM.input, partition, len(held), key, value, headers, self.wall))

    def of(self, topic: str) -> list[Output]:
        return [output for output in self.written if output.topic == topic]

    @property
    def waiting(self) -> int:
        return sum(len(held) - self.positions.get(partition, 0) for partition, held in self.records.items())


class ListBroker:
    """See Broker. `at(step)` is called at each of STEPS, and before positions move when outputs are written already;
    what it raises is the step's failure. `atomic`: outputs and positions are written together or not at all."""

    def __init__(self, topics: Topics, at: Callable[[str], None], *, atomic: bool = True, batch: int = 7) -> None:
        self._topics = topics
        self._at = at
        self._atomic = atomic
        self._batch = batch
        self._next: dict[int, int] = {}
        self._share: tuple[int, int, tuple[int, ...]] = (0, 1, ())
        self.joined: list[tuple[int, int, tuple[int, ...]]] = []
        self.closed = 0
        self.kept = 0
        self.threads = {threading.get_ident()}
        at("open")

    def keep(self) -> None:
        self._enter("keep")
        self.kept += 1

    def reads(self) -> Collection[int]:
        index, count, without = self._share
        return [number for number in self._topics.records if number % count == index and number not in without]

    def join(self, index: int, count: int, without: Collection[int] = ()) -> None:
        self._enter("join")
        self._share = (index, count, tuple(without))
        self.joined.append(self._share)

    def poll(self, seconds: float, records_max: int = limits.STREAM_BATCH_RECORDS_MAX) -> Sequence[Record]:
        self._enter("poll")
        index, count, without = self._share
        assert self.joined
        found: list[Record] = []
        for partition, held in self._topics.records.items():
            if partition % count == index and partition not in without:
                start = self._next.setdefault(partition, self._topics.positions.get(partition, 0))
                taken = held[start : start + min(self._batch, records_max) - len(found)]
                self._next[partition] += len(taken)
                found += taken
        if not found:
            time.sleep(seconds)
        self._at("polled")
        return found

    def commit(self, outputs: Sequence[Output]) -> None:
        self._enter("commit")
        if not self._atomic:
            self._topics.written += outputs
            self._at("written")
            self._topics.positions.update(self._next)
        else:
            self._topics.written, self._topics.positions = [*self._topics.written, *outputs], dict(self._next)
        self._at("committed")

    def lag(self) -> Mapping[int, Lag]:
        raise NotImplementedError

    def close(self) -> None:
        self.closed += 1
        self.threads.add(threading.get_ident())
        self._at("close")

    def _enter(self, step: str) -> None:
        assert not self.closed
        self.threads.add(threading.get_ident())
        self._at(step)


class Faults:
    """Fails the nth time a step is reached, as often as it is told to; or does something else there."""

    def __init__(self, *failures: tuple[str, Exception | Callable[[], object]]) -> None:
        self.left = list(failures)
        self.seen: list[str] = []

    def __call__(self, step: str) -> None:
        self.seen.append(step)
        for failure in self.left:
            if failure[0] == step:
                self.left.remove(failure)
                if isinstance(failure[1], Exception):
                    raise failure[1]
                failure[1]()
                return
