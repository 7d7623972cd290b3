"""The calls of a ranking function before and behind their model run, with candidates for the records that name none.

Those come from a second model, the retrieval, which runs on a thread of its own: it compares a record with every item
of a catalogue, so it is never as cheap as what runs on an event loop, and waiting calls share its runs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from numpy.typing import NDArray

from sunup.batch.assemble import Assembly
from sunup.batch.batcher import Batcher
from sunup.batch.plan import slices
from sunup.batch.rank import Expanded, Ranking
from sunup.batch.respond import joined
from sunup.clock import Clock
from sunup.limits import RETRIEVAL_ROWS_MAX
from sunup.types import Call, Reply, Row, Timings

Run: TypeAlias = Callable[[Mapping[str, NDArray[Any]], Sequence[str]], list[NDArray[Any]]]


class Retrieval(NamedTuple):
    """What names candidates. `assembly`: request rows to feeds; `run`: an executor's; `output`: [rows, k] item ids;
    `close`: gives its memory back."""

    assembly: Assembly
    run: Run
    output: str
    close: Callable[[], None]

    def ids(self, rows: Sequence[Row]) -> list[NDArray[Any]]:
        """One array [len(rows), k], in runs of RETRIEVAL_ROWS_MAX. Raises ValueError for an answer of another form."""
        if len(rows) > RETRIEVAL_ROWS_MAX:
            return joined([self.ids(rows[part]) for part in slices(len(rows), RETRIEVAL_ROWS_MAX)])
        found = self.run(self.assembly.feeds(rows), (self.output,))
        if found[0].ndim != 2 or len(found[0]) != len(rows):  # never another record's candidates
            raise ValueError(f"the retrieval answers {list(found[0].shape)} for {len(rows)} records")
        return found


class Ranker:
    """Both ends of a ranking function's calls. Belongs to one event loop; `queue_max` is in calls."""

    def __init__(self, ranking: Ranking, retrieval: Retrieval | None, *, queue_max: int, clock: Clock) -> None:
        self._ranking = ranking
        self._batcher: Batcher | None = None
        if retrieval is not None:
            self._batcher = Batcher(
                retrieval.ids, rows_max=RETRIEVAL_ROWS_MAX, queue_max=queue_max, clock=clock, on_depth=_unheard
            )

    def __repr__(self) -> str:
        return f"Ranker({self._ranking!r}, retrieval={self._batcher!r})"

    async def expand(self, call: Call, timings: Timings) -> Expanded:
        """The call's candidates as rows, retrieved first where a record has none. `timings.execute` counts that run.

        Raises what Batcher.submit and Ranking.expand do, and whatever the retrieval raises.
        """
        if self._batcher is not None and (places := self._ranking.wanting(call)):
            ran = await self._batcher.submit([call.rows[place] for place in places], call.deadline)
            timings.batch, timings.execute = ran.waited, ran.took
            call = self._ranking.completed(call, places, ran.outputs[0])
        return self._ranking.expand(call)

    def regroup(self, call: Call, expanded: Expanded, reply: Reply) -> Reply:
        """See Ranking.regroup."""
        return self._ranking.regroup(call, expanded, reply)

    async def aclose(self) -> None:
        """As Batcher.aclose."""
        if self._batcher is not None:
            await self._batcher.aclose()


def _unheard(_: int) -> None:
    """The depth of the retrieval's queue: what an engine looks at is how many calls are in progress."""
