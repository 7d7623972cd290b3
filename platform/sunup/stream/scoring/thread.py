"""The broker of a loop, which blocks, in a thread of its own; stream feature views are aggregated there, too.

What is aggregated of a batch is committed with it or forgotten with it, so both are done by the same thread.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

from sunup import limits
from sunup.stream.broker import Broker, BrokerError, Output, Record
from sunup.types import Row

if TYPE_CHECKING:
    from sunup.stream.scoring.aggregating import Aggregating  # for functions with stream feature views

_LOG: Final = logging.getLogger("sunup.stream")

Given = TypeVar("Given")


class BrokerThread:
    """Opens a broker when records are wanted, and another one after `let_go`. Reader 0 of 1 until `share` says
    otherwise. What is awaited raises BrokerError and nothing else.

    `aggregating`: of a function that aggregates, else None.
    """

    def __init__(self, open_broker: Callable[[], Broker], aggregating: "Aggregating | None" = None) -> None:
        self._open_broker = open_broker
        self._aggregating = aggregating
        self._thread = ThreadPoolExecutor(1, "broker")  # the thread itself starts with the first call
        self._share: tuple[int, int, tuple[int, ...]] = (0, 1, ())
        self._joined: tuple[int, int, tuple[int, ...]] | None = None  # what the open broker was told of it
        self._broker: Broker | None = None  # touched on the thread only

    def __repr__(self) -> str:
        return f"BrokerThread(share={self._share}, {self._aggregating!r})"

    @property
    def aggregates(self) -> bool:
        """Whether values come with what is taken."""
        return self._aggregating is not None

    def share(self, index: int, count: int, without: Collection[int] = ()) -> None:
        """See Broker.join: from the next poll on."""
        self._share = (index, count, tuple(without))

    def take(self, records_max: int) -> asyncio.Future[Sequence[Record]]:
        """The next records, or none."""
        return self._run(self._take, records_max)

    def given(self, records: Sequence[Record]) -> asyncio.Future[list[Row]]:
        """Aggregate what was taken: the values of the views before each record, see types.GivenRows."""
        assert self._aggregating is not None
        return self._run(self._aggregating.take, records)

    def keep(self) -> asyncio.Future[None]:
        """Stay in the group."""
        return self._run(self._keep)

    def commit(self, outputs: Sequence[Output]) -> asyncio.Future[None]:
        """Write, and move on."""
        return self._run(self._commit, outputs)

    def let_go(self) -> asyncio.Future[None]:
        """The broker failed. What was taken comes again."""
        return self._run(self._let_go)

    def end(self) -> asyncio.Future[None]:
        """Nothing more comes: what is committed is settled, what is not comes again. The thread ends after that."""
        ended = self._run(self._end)
        self._thread.shutdown(wait=False)
        return ended

    # --- On the thread ------------------------------------------------------------------------------------------------

    def _run(self, call: Callable[..., Given], *given: object) -> asyncio.Future[Given]:
        return asyncio.get_running_loop().run_in_executor(self._thread, call, *given)

    def _take(self, records_max: int) -> Sequence[Record]:
        broker = self._broker
        if broker is None:
            broker = self._broker = self._open_broker()
        share = self._share
        if share != self._joined:
            broker.join(*share)
            self._joined = share
        if self._aggregating is None:
            return broker.poll(limits.STREAM_POLL_SECONDS, records_max)
        records = broker.poll(self._aggregating.idle_seconds(limits.STREAM_POLL_SECONDS), records_max)
        self._aggregating.polled(broker.reads())
        return records

    def _keep(self) -> None:
        assert self._broker is not None
        self._broker.keep()

    def _commit(self, outputs: Sequence[Output]) -> None:
        assert self._broker is not None
        if self._aggregating is None:
            self._broker.commit(outputs)
        else:
            self._broker.commit([*outputs, *self._aggregating.outputs()])
            self._aggregating.committed()

    def _let_go(self) -> None:
        if self._aggregating is not None:  # first: whoever reads these partitions next needs their tiles
            self._aggregating.forget()
        self._leave()

    def _end(self) -> None:
        if self._aggregating is not None:
            self._aggregating.end(self._broker)
        self._leave()

    def _leave(self) -> None:
        broker, self._broker, self._joined = self._broker, None, None
        try:
            if broker is not None:
                broker.close()
        except BrokerError as error:
            _LOG.warning("the broker was not left properly: %s", error.message)
