"""What a run of so many rows takes: `setup + rows * each`, fitted to the runs there were. Pure.

A least-squares line through (rows, seconds) with weights that fade, so that a machine that gets slower is noticed
within a few runs. What was measured before the first call keeps the weight of one run: where every run so far had one
row, it is what tells how a run of many will go.
"""

from typing import Final

_FADE: Final = 0.8  # weight of a run once the next one is known: five runs later it counts a third
_JUMP_MAX: Final = 3.0  # times what was expected that one run may teach: others' work on the same core is no new pace
_ALIKE: Final = 1e-3  # variance of sizes, in squares of their mean, below which they say nothing about other sizes


class Pace:
    """Seconds of a run by its rows. `known`: (rows, seconds) of a run measured before, or None."""

    __slots__ = ("_each", "_known", "_runs", "_setup", "_x", "_xx", "_xy", "_y")

    def __init__(self, known: tuple[int, float] | None = None) -> None:
        self._known = (0.0, 0.0, 0.0) if known is None else (1.0, float(known[0]), known[1])
        self._runs = self._x = self._y = self._xx = self._xy = 0.0
        self._setup = self._each = 0.0
        self._fit()

    def __repr__(self) -> str:
        return f"Pace({1000 * self._setup:.3f} ms + {1000 * self._each:.4f} ms * rows)"

    def seconds(self, rows: int) -> float:
        """What a run of `rows` rows is expected to take; 0.0 as long as nothing is known."""
        return self._setup + self._each * rows

    def note(self, rows: int, seconds: float) -> None:
        """A run of `rows` rows took so long."""
        expected = self.seconds(rows)
        if self._runs and expected:
            seconds = min(seconds, _JUMP_MAX * expected)
        self._runs = _FADE * self._runs + 1.0
        self._x = _FADE * self._x + rows
        self._y = _FADE * self._y + seconds
        self._xx = _FADE * self._xx + rows * rows
        self._xy = _FADE * self._xy + rows * seconds
        self._fit()

    def _fit(self) -> None:
        weight, rows, took = self._known
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
