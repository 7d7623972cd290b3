"""What a broker is to the stream loop: records in, outputs and positions out. One file per backend, one contract.

A *position* is the offset of the next record a group has to read of a partition; it moves only with `commit`. What was
polled and never committed is polled again, by whoever reads the partition next.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum
from typing import NamedTuple, Protocol, TypeAlias

from sunup.errors import SunupError
from sunup.limits import STREAM_BATCH_RECORDS_MAX

Headers: TypeAlias = Sequence[tuple[str, bytes]]


class Stream(NamedTuple):
    """The topics of one function and the group that remembers what it has read."""

    group: str
    input: str
    output: str
    dead_letter: str


class Reader(NamedTuple):
    """Who reads. No two readers of a group have one `name` at the same time; whoever replaces one gets its name again,
    and with it the right to end what it left half done. `exactly_once`: outputs and positions change in one step."""

    name: str
    exactly_once: bool = True


class Record(NamedTuple):
    """One record of the input topic. `timestamp`: seconds since the epoch."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp: float


class Output(NamedTuple):
    """One record to be written. Records of one key keep their order; without a key any partition will do, unless it is
    named."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    partition: int | None = None


class Lag(NamedTuple):
    """One partition: the group's position (0 where it never committed) and the offset the next record will get."""

    position: int
    end: int

    @property
    def records(self) -> int:
        return max(0, self.end - self.position)


class Trouble(Enum):
    """What keeps a stream from being read or written."""

    UNREACHABLE = "unreachable"  # no broker answers
    TOPIC_MISSING = "topic-missing"
    NOT_PERMITTED = "not-permitted"
    FENCED = "fenced"  # another process reads the partitions now
    WAITING = "waiting"  # records cannot be scored now, and are tried again; no broker says so
    FAILED = "failed"  # anything else; the message says what


class BrokerError(SunupError):
    """The broker cannot do what was asked. `message` says what a person can do about it."""

    status = 503
    code = "broker"
    retry = True

    def __init__(self, trouble: Trouble, message: str) -> None:
        super().__init__(message)
        self.trouble = trouble


class Broker(Protocol):
    """One reader of one stream, or somebody who only looks at its lag. Constructing one connects to nothing.

    Every method blocks no longer than STREAM_BROKER_SECONDS_MAX beyond what its docstring says, and raises BrokerError
    and nothing else. After an error the object is only good for `close`: open another one, which starts at the
    positions that were committed. One thread at a time.
    """

    def join(self, index: int, count: int, without: Collection[int] = ()) -> None:
        """Be reader `index` of `count`, or change that, and read no partition of `without`: they are paused. A broker
        that shares partitions out itself ignores the first two."""
        ...

    def poll(self, seconds: float, records_max: int = STREAM_BATCH_RECORDS_MAX) -> Sequence[Record]:
        """The next records that are there, in order within each partition: at most `records_max`, and none after the
        one whose value fills STREAM_BATCH_BYTES_MAX. Waits up to `seconds` for the first, for no other. Records polled
        before and not committed do not come again from this object."""
        ...

    def keep(self) -> None:
        """Stay in the group while no record is wanted. Called at least every STREAM_KEEP_SECONDS; returns at once."""
        ...

    def commit(self, outputs: Sequence[Output]) -> None:
        """Write `outputs` durably, then move the group past everything polled. A crash in between writes them twice, on
        a broker that cannot do both in one step."""
        ...

    def lag(self) -> Mapping[int, Lag]:
        """Every partition of the input topic, without joining. Also sees that the other two topics are there."""
        ...

    def reads(self) -> Collection[int]:
        """The partitions that are this reader's now, as far as it knows. The one method any thread may call."""
        ...

    def close(self) -> None:
        """Leave the group and let go of everything. Does not commit. May be called after an error, and twice."""
        ...


class Watch(Protocol):
    """Somebody who looks at the lag of any number of streams of one broker, over the same connections. Constructing one
    connects to nothing. One thread at a time; errors as of a Broker, after which it may be asked again."""

    def lag(self, stream: Stream) -> Mapping[int, Lag]:
        """See Broker.lag."""
        ...

    def dismiss(self, stream: Stream, is_dead: Callable[[str], bool]) -> Collection[str]:
        """Have the group wait no longer for readers that are dead and that nobody replaces, by their names, and end
        what they left half done; the names of those. `is_dead(name)` is asked of every reader there is, in this thread.
        """
        ...

    def forget(self, stream: Stream) -> None:
        """It will not be asked for this one any more."""
        ...

    def close(self) -> None:
        """Let go of everything. It connects again when it is asked again."""
        ...
