"""Workers wanted at set times of the day, whoever calls: [scale] warm. Pure: the wall clock is a parameter."""

from collections.abc import Iterable
from typing import NamedTuple

from sunup.cron import Cron
from sunup.limits import WARM_LEAD_SECONDS


class Warm(NamedTuple):
    """From each time of `cron` on, for `seconds`, there are at least `min` workers."""

    cron: Cron
    min: int
    seconds: float


class Schedule:
    """All the set times of one function. Workers are born WARM_LEAD_SECONDS early, to be there at the time."""

    def __init__(self, warm: Iterable[Warm]) -> None:
        self._warm = tuple(warm)
        self._found: dict[
            int, tuple[float, float]
        ] = {}  # by entry: first time after what was asked, so not searched again

    def least(self, wall: float) -> int:
        """Workers wanted at `wall` (Unix seconds)."""
        return max((w.min for i, w in enumerate(self._warm) if self._begins(i, wall) <= wall), default=0)

    def next(self, wall: float) -> float | None:
        """When, later than `wall`, one of them begins next; None without any."""
        later = (self._begins(i, wall) for i in range(len(self._warm)))
        return min((begins for begins in later if begins > wall), default=None)

    def _begins(self, index: int, wall: float) -> float:
        """The beginning of the first span that is not over at `wall`."""
        cron, _, seconds = self._warm[index]
        after = wall - seconds
        asked, found = self._found.get(index, (after, after))
        if not asked <= after < found:  # over, or the clock was set back
            asked, found = self._found[index] = after, cron.next(after)
        return found - WARM_LEAD_SECONDS
