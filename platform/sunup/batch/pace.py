"""What a run of so many rows takes: `setup + rows * each`, fitted to the runs there were, and what they were off. Pure.

A least-squares line through (rows, seconds) with weights that fade, so that a machine that gets slower is noticed
within a few runs. What was measured before the first call fades slowly: where every run so far had one row, it is what
tells how a run of many will go. It may be wrong (a first run sets things up), so it is forgotten in the end: then a run
of many is believed to cost what one of few does, is tried, and teaches better.
"""

from typing import Final

_FADE: Final = 0.8  # weight of a run once the next one is known: five runs later it counts a third
_JUMP_MAX: Final = 3.0  # times what was expected that one run may teach: others' work on the same core is no new pace
_KNOWN_FADE: Final = 0.99  # the same of what was known before: it says nothing any more after about a thousand runs
_MARGIN: Final = 1.0  # mean deviations a run is expected to take longer than the line says: a promise is kept by most
_ALIKE: Final = 1e-3  # variance of sizes, in squares of their mean, below which they say nothing about other sizes


class Pace:
    """Seconds of a run by its rows. `known`: (rows, seconds) of a run measured before, or None."""

    __slots__ = ("_each", "_known", "_off", "_runs", "_setup", "_weight", "_x", "_xx", "_xy", "_y")

    def __init__(self, known: tuple[int, float] | None = None) -> None:
        self._known = (0.0, 0.0) if known is None else (float(known[0]), known[1])
        self._weight = 0.0 if known is None else 1.0
        self._off = 0.0  # faded sum of how far runs were from what was expected
        self._runs = self._x = self._y = self._xx = self._xy = 0.0
        self._setup = self._each = 0.0
        self._fit()

    def __repr__(self) -> str:
        spread = 1000 * self._spread
        return f"Pace({1000 * self._setup:.3f} ms + {1000 * self._each:.4f} ms * rows, off by {spread:.3f} ms)"

    def seconds(self, rows: int) -> float:
        """What a run of `rows` rows will take, by most of those there were; 0.0 as long as nothing is known."""
        return self._setup + self._each * rows + _MARGIN * self._spread

    @property
    def _spread(self) -> float:
        return self._off / self._runs if self._runs else 0.0

    def note(self, rows: int, seconds: float) -> None:
        """A run of `rows` rows took so long."""
        expected = self._setup + self._each * rows
        if self._runs and expected:
            seconds = min(seconds, _JUMP_MAX * expected)
            self._off = _FADE * self._off + abs(seconds - expected)
        self._weight *= _KNOWN_FADE
        self._runs = _FADE * self._runs + 1.0
        self._x = _FADE * self._x + rows
        self._y = _FADE * self._y + seconds
        self._xx = _FADE * self._xx + rows * rows
        self._xy = _FADE * self._xy + rows * seconds
        self._fit()

    def _fit(self) -> None:
        weight, (rows, took) = self._weight, self._known
        n = self._runs + weight
        if not n:
            return
        x, y = (self._x + weight * rows) / n, (self._y + weight * took) / n
        variance = (self._xx + weight * rows * rows) / n - x * x
        slope = 0.0
        if variance > _ALIKE * x * x:
            slope = ((self._xy + weight * rows * took) / n - x * y) / variance
        self._each = min(max(slope, 0.0), y / x)  # neither part is negative
        self._setup = y - self._each * x
