"""What writes stream feature views: absolute values in, so that the same write twice changes nothing."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from sunup.types import Row


class Write(NamedTuple):
    """One entity's values of a view. `key`: as Feast serialises it; `values`: of the view's features in the plan's
    order, None: null; `at`: their event time, seconds since the epoch; `version`: what has a greater one is newer."""

    key: bytes
    values: Row
    at: float
    version: bytes


class FeatureWriter(Protocol):
    """Writes the aggregated views of one plan. Constructing one connects to nothing; one thread at a time.

    Every method blocks no longer than STORE_WRITE_SECONDS_MAX and raises StoreUnavailable, and nothing else; it may be
    called again afterwards. What a `write` that failed has written stays written: the same rows may be written again.

    `mark`: what `begin` left there, or found of another's; b"" before it. One that was kept may be given back to a
    new writer, which then sees a loss that fell between two lives.
    """

    mark: bytes

    def write(self, view: str, rows: Sequence[Write]) -> None:
        """Rows of the view called `view` in the plan, each key once, and no more than a store takes in that time: some
        thousand (STORE_WRITE_ROWS go together). One whose version is smaller than what is stored
        is passed over: whoever wrote that knew more. Feast's SDK reads what was written."""
        ...

    def is_lost(self) -> bool:
        """Whether the store has lost what was written, or may have: what `begin` left there is gone or another's; or
        a server began a new life, from a snapshot or as a replica that became master."""
        ...

    def begin(self) -> None:
        """Leave a mark by which a loss is seen, unless somebody has: all there is has been, or is about to be, written.

        Whoever writes into the same views sees another one's new mark as a loss, and so it is."""
        ...

    def close(self) -> None:
        """Let go of connections. May be called after an error, and twice."""
        ...
